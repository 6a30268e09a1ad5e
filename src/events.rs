//! What operators should hear of: one place that logs, counts and shows it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;

use crate::error::ErrorChain;
use crate::partition::Level;
use crate::record::{KeyId, KeyMeta};
use crate::telemetry::Telemetry;
use crate::telemetry::keys::KeyChange;

macro_rules! events {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal,)+) => {
        /// Something out of the ordinary that did not fail the call, or whose failure is an alarm.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])+ $variant,)+
        }

        impl Event {
            /// All events there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name that logs and the metric `claviger_events_total` give it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

events! {
    /// An expired or exhausted key was used because no other could be had in time.
    ExpiredKeyUsed => "expired_key_used",
    /// A key was used whose check is overdue, because the metastore did not answer in time.
    Stale => "stale",
    /// A background refresh or rotation failed.
    RefreshFailed => "refresh_failed",
    /// Data was decrypted under a revoked key.
    RevokedDecrypt => "revoked_decrypt",
    /// The store said that the key is revoked, and now says that it is not: somebody undid the revocation.
    /// The key stays revoked here.
    Unrevoked => "unrevoked",
    /// So many keys are known to be revoked that those which were learned first are forgotten: of them a
    /// revocation can be undone. Told once.
    RevocationsForgotten => "revocations_forgotten",
    /// The records of a partition name more key versions that are not there than
    /// [`max_misses`](crate::Limits::max_misses) within a second: they are forged, or rows were lost. Logged
    /// once for each such second.
    TooManyMisses => "too_many_misses",
    /// The metastore holds a key record that cannot be read.
    Malformed => "malformed",
    /// A key record's wrapped key does not authenticate, or is that of another key version or id: somebody
    /// altered the row or copied it.
    Tampered => "tampered",
    /// A key record names a parent that cannot be its own.
    ForeignParent => "foreign_parent",
    /// A key record's system key is not in the store.
    MissingParent => "missing_parent",
    /// A row holds another key than the one that was read from it. The row was lost and another process made
    /// the key anew, or somebody wrote another key there. The row's key encrypts from then on. The former one
    /// decrypts beside it, in this process, for `max_stale_decrypt`. Data that this process sealed under it
    /// since the row changed can be read by nobody else: decrypt it and seal it anew by then.
    KeyChanged => "key_changed",
    /// A check found the row of a cached key version gone. What was sealed under it cannot be decrypted,
    /// unless the row is put back ([`restore_lost`](crate::SessionFactory::restore_lost)). Told once of
    /// each version, unless word of its shredding came first.
    RowLost => "row_lost",
    /// The metastore came to another server, which may lack what was committed last: all that is cached
    /// is checked.
    FailedOver => "failed_over",
    /// A latest key was created in the future.
    ClockSkew => "clock_skew",
    /// The store says that a key exists and does not return it, again and again.
    Indistinct => "indistinct",
    /// The store keeps a key that a record names under another id only, which its table takes for the
    /// same: the record was refused, or opened where the store was told to.
    FoldedId => "folded_id",
    /// The KMS could not make all copies of a wrapped system key.
    CopiesMissing => "copies_missing",
    /// A replica of the metastore failed or did not answer in time: the metastore itself is asked for
    /// what it was to answer. Counted once for each outage.
    ReplicaLost => "replica_lost",
    /// An invalidation source failed: until it answers again, revocations are learned by the regular
    /// checks only. Counted once for each outage.
    InvalidationsLost => "invalidations_lost",
    /// An invalidation source panicked. It is called again.
    ListenerPanicked => "listener_panicked",
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each event was raised by one factory.
#[derive(Debug)]
pub(crate) struct Events {
    /// In the order of [`Event::ALL`], both.
    counts: [AtomicU64; Event::ALL.len()],
    counters: Vec<Counter>,
}

impl Events {
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let counters = Event::ALL.iter().map(|event| telemetry.event(event.name())).collect();
        Self { counts: [const { AtomicU64::new(0) }; Event::ALL.len()], counters }
    }

    pub(crate) fn raise(&self, event: Event, key: &KeyId) {
        self.tell(event, key, &"");
    }

    /// Counts the event, and logs it if `log`: what repeats at every call during an outage is not
    /// logged at every call.
    pub(crate) fn raise_if(&self, log: bool, event: Event, key: &KeyId) {
        if log {
            self.raise(event, key);
        } else {
            self.count(event);
        }
    }

    /// Raises the event with its cause, and the causes of that.
    pub(crate) fn raise_because(&self, event: Event, key: &KeyId, cause: &dyn StdError) {
        self.tell(event, key, &ErrorChain::new(cause));
    }

    /// Raises the event with a cause that is no error.
    pub(crate) fn tell(&self, event: Event, key: &KeyId, cause: &dyn fmt::Display) {
        self.count(event);
        tracing::warn!(event = event.name(), key = %key, cause = %cause, "key management event");
    }

    /// Raises the alarm that a key's row is gone: what was sealed under it may be lost.
    pub(crate) fn row_lost(&self, key: &KeyMeta) {
        self.count(Event::RowLost);
        tracing::error!(
            event = Event::RowLost.name(),
            key = %key.id(),
            created = key.created().unix_seconds(),
            "key management event"
        );
    }

    /// Tells what became of a key.
    pub(crate) fn key_changed(level: Level, change: KeyChange, key: &KeyMeta) {
        tracing::info!(
            change = change.name(),
            level = level.name(),
            key = %key.id(),
            created = key.created().unix_seconds(),
            "{}", change.text()
        );
    }

    fn count(&self, event: Event) {
        if let Some(count) = self.counts.get(event as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(counter) = self.counters.get(event as usize) {
            counter.increment(1);
        }
    }

    /// Returns the events that were raised, with how often.
    pub(crate) fn counts(&self) -> Vec<(Event, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Event::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Metadata, Subscriber, span};

    use super::*;
    use crate::record::Created;

    /// Keeps what is logged: the level and the fields.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut log = self.0.lock().unwrap();
            write!(log, "{}", event.metadata().level()).unwrap();
            event.record(&mut Fields(&mut log));
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    fn logged(raise: impl Fn(&Events)) -> String {
        let (log, events) = (Log::default(), Events { counts: Default::default(), counters: Vec::new() });
        tracing::subscriber::with_default(log.clone(), || {
            raise(&events);
            // A test on another thread may have said it first, where nobody listens.
            tracing::callsite::rebuild_interest_cache();
            log.0.lock().unwrap().clear();
            raise(&events);
        });
        let text = log.0.lock().unwrap();
        text.clone()
    }

    #[test]
    fn lost_row_is_an_error_that_names_the_version_and_other_events_are_warnings() {
        let key = KeyMeta::new(KeyId::new("_IK_alice_checkout_payments"), Created::MIN);
        let lost = logged(|events| events.row_lost(&key));
        assert!(lost.starts_with("ERROR ") && lost.contains("event=\"row_lost\""), "{lost}");
        assert!(lost.contains("key=_IK_alice_checkout_payments created=1"), "{lost}");
        let other = logged(|events| events.raise(Event::FailedOver, key.id()));
        assert!(other.starts_with("WARN ") && other.contains("event=\"failed_over\""), "{other}");
    }
}
