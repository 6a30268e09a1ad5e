//! What a factory depends on, and how that is doing.

use super::decide::{Awaited, Failure, WayOut};
use super::request::LoadRequest;
use crate::clock::Moment;
use crate::error::Dependency;
use crate::key::state::Trouble;
use crate::kms::KmsHandle;
use crate::metastore::handle::MetastoreHandle;

#[derive(Debug)]
pub(crate) struct BackEnds {
    // The metastore is let go last: a KMS may lie on top of one, never the reverse.
    kms: KmsHandle,
    store: MetastoreHandle,
}

impl BackEnds {
    pub(crate) const fn new(store: MetastoreHandle, kms: KmsHandle) -> Self {
        Self { kms, store }
    }

    pub(super) const fn store(&self) -> &MetastoreHandle {
        &self.store
    }

    pub(super) const fn kms(&self) -> &KmsHandle {
        &self.kms
    }

    /// Returns the metastore, which the load waits for from now on.
    pub(super) fn store_for(&self, request: &LoadRequest) -> &MetastoreHandle {
        request.progress.awaits(Dependency::Metastore);
        &self.store
    }

    /// Returns how the way to the store is for this load.
    pub(super) fn way_out(&self, request: &LoadRequest, awaited: Awaited, now: Moment) -> WayOut {
        let (reads, writes) = (self.store.reads(), self.store.writes());
        let is_shut = match awaited {
            Awaited::Check => reads.is_shut_to(&request.subject()),
            // Its row is to be read and inserted.
            Awaited::Successor => reads.is_open() || writes.is_open(),
        };
        let failure = |trouble: &Trouble| {
            if trouble.is_recent_in_passing(now) {
                return Some(Failure::Passing);
            }
            trouble.is_recent(now).then_some(Failure::Lasting)
        };
        WayOut { is_shut, trouble: request.trouble(failure).flatten() }
    }

    /// Returns what many wait for, if many wait.
    pub(super) fn bottleneck(&self) -> Dependency {
        // The KMS is asked seldom, but when it hangs.
        let is_kms = self.kms.gate().is_tripped() || self.kms.gate().is_asked();
        if is_kms { Dependency::Kms } else { Dependency::Metastore }
    }
}
