//! Moves system keys from one KMS, or one state of it, to another, while they are in use.

mod terms;

use std::sync::Arc;

use tracing::Instrument as _;

pub use self::terms::{Rewrap, RewrapOptions, RewrapReport};
use crate::clock::SystemClock;
use crate::error::{BackendError, Error};
use crate::gate::serial::SerialGate;
use crate::kms::{KeyManagementService, WrappedKey, to_error as of_kms};
use crate::metastore::handle::to_error as of_store;
use crate::metastore::{MetastoreAdmin, Replacement};
use crate::partition::is_system_key_id;
use crate::policy::Limits;
use crate::record::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use crate::secret::SecretKey;
use crate::telemetry::calls::{Call, Calls};

/// Wraps the store's system keys, which `from` unwraps, anew with `to`, one after the other, so that
/// `to` alone will do.
///
/// A key is up to date, and left alone, if `to` unwraps it and misses no copy. Any other is
/// unwrapped, wrapped, and unwrapped again to be compared; only then does the new form replace the old
/// one, if that has not changed meanwhile, and is read back and compared. What the store did not keep
/// as it was written is taken back. So the key can be unwrapped at any moment, by the one service or the other;
/// services that run meanwhile should be able to do both. What is interrupted is done again by the
/// next call.
///
/// A key that somebody made with `from` is `to`'s afterwards. Where `from` has become known, that may be anybody who
/// writes the store: see [`RewrapOptions::revoke`].
///
/// ```
/// # use claviger::{BackendError, Error, KeyManagementService, MetastoreAdmin, RewrapOptions, rewrap_system_keys};
/// # async fn f(store: impl MetastoreAdmin, old: impl KeyManagementService, new: impl KeyManagementService) -> Result<(), Error> {
/// let report = rewrap_system_keys(&store, &old, &new, &RewrapOptions::new()).await?;
/// assert!(report.is_clean(), "{report:?}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Metastore`] when the rows cannot be listed. What went wrong with single keys is in the
/// report, and does not keep it from the others.
///
/// # Cancel safety
/// A key that was begun is wrapped the one way or the other.
pub async fn rewrap_system_keys(
    store: &impl MetastoreAdmin,
    from: &impl KeyManagementService,
    to: &impl KeyManagementService,
    options: &RewrapOptions,
) -> Result<RewrapReport, Error> {
    Move::new(store, from, to, options, Purpose::Move).run().await
}

/// Wraps those of the store's system keys anew that lack copies which `kms` is to keep, so that any of
/// its regions or members can unwrap them: after an outage, or when one was added.
///
/// As [`rewrap_system_keys`]; but a new form is only taken if it lacks fewer copies than the old one. Keys
/// that lack none are unwrapped, too: what `kms` does not open is [`Rewrap::Failed`], however whole it
/// looks. So a dry run tells whether `kms` is the one that the store's system keys were wrapped by.
///
/// # Errors
/// As of [`rewrap_system_keys`].
///
/// # Cancel safety
/// As of [`rewrap_system_keys`].
pub async fn repair_system_keys(
    store: &impl MetastoreAdmin,
    kms: &impl KeyManagementService,
    options: &RewrapOptions,
) -> Result<RewrapReport, Error> {
    Move::new(store, kms, kms, options, Purpose::Repair).run().await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Move,
    Repair,
}

/// Why a new form was not taken.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("the service unwraps another key than it wrapped; its form was not stored")]
    OtherKey,
    #[error("still no copy of {0}; the key is left as it is")]
    StillMissing(String),
    #[error("what was stored reads back differently; the former wrapped key was put back")]
    ReadBack,
    #[error("other writers kept changing the row")]
    Contended,
}

impl Unfit {
    fn of(self, meta: &KeyMeta) -> Error {
        let kms = |source| Error::Kms { operation: "wrap_key", key: meta.clone(), source };
        let store = |source| Error::Metastore { operation: "replace_many", key: meta.id().clone(), source };
        match self {
            Self::OtherKey => kms(BackendError::damaged(self)),
            Self::StillMissing(_) => kms(BackendError::transient(self)),
            Self::ReadBack => store(BackendError::damaged(self)),
            Self::Contended => store(BackendError::transient(self)),
        }
    }
}

const PAGE: usize = 1_000;
const PAGE_OF_VERSIONS: usize = 100;
/// How often a row that another writer changed meanwhile is looked at again.
const ROUNDS_MAX: u32 = 3;

/// How a system key is wrapped now.
enum State {
    UpToDate,
    Due { missing: Vec<String> },
}

struct Move<'a, S, F, T> {
    store: &'a S,
    from: &'a F,
    to: &'a T,
    options: &'a RewrapOptions,
    purpose: Purpose,
    store_gate: SerialGate,
    from_gate: SerialGate,
    to_gate: SerialGate,
    calls: Calls,
}

impl<'a, S: MetastoreAdmin, F: KeyManagementService, T: KeyManagementService> Move<'a, S, F, T> {
    fn new(store: &'a S, from: &'a F, to: &'a T, options: &'a RewrapOptions, purpose: Purpose) -> Self {
        let Limits { store_deadline, kms_deadline, max_attempts, .. } = options.limits;
        let gate = |deadline| SerialGate::new(deadline, max_attempts);
        let (store_gate, from_gate, to_gate) = (gate(store_deadline), gate(kms_deadline), gate(kms_deadline));
        let calls = Calls::of_tool(Arc::new(SystemClock::new()));
        Self { store, from, to, options, purpose, store_gate, from_gate, to_gate, calls }
    }

    async fn run(&self) -> Result<RewrapReport, Error> {
        let mut report = RewrapReport::default();
        match &self.options.only {
            None => self.all(&mut report).await?,
            Some(ids) => {
                for id in ids {
                    self.versions(id, &mut report).await?;
                }
            }
        }
        Ok(report)
    }

    async fn all(&self, report: &mut RewrapReport) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.list(after.as_ref(), PAGE).await?;
            let is_ours = |id: &KeyId| is_system_key_id(id);
            report.damaged.extend(page.damaged.into_iter().filter(|row| is_ours(&row.id)));
            for record in page.records.into_iter().filter(|record| is_ours(record.meta().id())) {
                self.look_at(record, report).await;
            }
            match page.next {
                None => return Ok(()),
                next => after = next,
            }
        }
    }

    /// Versions of one key are neighbours, wherever the store's order puts them.
    async fn versions(&self, id: &KeyId, report: &mut RewrapReport) -> Result<(), Error> {
        let mut after = KeyMeta::new(id.clone(), Created::MIN);
        loop {
            let page = self.list(Some(&after), PAGE_OF_VERSIONS).await?;
            let others = page.records.iter().any(|record| record.meta().id() != id);
            report.damaged.extend(page.damaged.into_iter().filter(|row| row.id == *id));
            for record in page.records.into_iter().filter(|record| record.meta().id() == id) {
                self.look_at(record, report).await;
            }
            match page.next {
                Some(next) if !others && next.id() == id => after = next,
                _ => return Ok(()),
            }
        }
    }

    async fn list(&self, after: Option<&KeyMeta>, limit: usize) -> Result<crate::Page, Error> {
        let key = after.map_or_else(|| KeyId::new("_SK_"), |key| key.id().clone());
        let listed = self
            .store_gate
            .call(|context| {
                let key = &key;
                async move {
                    let answer = self.store.list("", after, limit, &context);
                    self.calls.observe(Call::List, key, &context, answer).await
                }
            })
            .await;
        listed.map_err(|error| of_store("list", &key, error))
    }

    async fn look_at(&self, record: EnvelopeKeyRecord, report: &mut RewrapReport) {
        let meta = record.meta().clone();
        let span = tracing::info_span!("claviger.rewrap", key = %meta);
        let done = self.renew(record).instrument(span).await.unwrap_or_else(Rewrap::Failed);
        self.calls.count_rewrap(done.name());
        tracing::info!(key = %meta, outcome = %done, "system key looked at");
        report.keys.push((meta, done));
    }

    async fn renew(&self, mut record: EnvelopeKeyRecord) -> Result<Rewrap, Error> {
        let meta = record.meta().clone();
        for _ in 0..ROUNDS_MAX {
            let lacks = match self.state(&record).await? {
                State::UpToDate => return Ok(Rewrap::UpToDate),
                State::Due { .. } if self.options.is_left_out(meta.created()) => return Ok(Rewrap::LeftOut),
                State::Due { missing } => missing,
            };
            let secret = self.unwrap_from(record.wrapped_key(), &meta).await?;
            if self.options.dry_run {
                return Ok(Rewrap::Due { missing: lacks });
            }
            let new = self.wrapped(&meta, &secret, &lacks).await?;
            let (old, bytes) = (record.wrapped_key(), new.bytes());
            if self.options.revoke && !self.revoke(&record).await? {
                return Ok(Rewrap::Gone);
            }
            if self.replace(&meta, old, bytes).await? {
                self.read_back(&meta, old, bytes, &secret).await?;
                return Ok(Rewrap::Rewrapped { missing: new.missing_copies().to_vec() });
            }
            record = match self.load(&meta).await? {
                Some(record) => record,
                None => return Ok(Rewrap::Gone),
            };
        }
        Err(Unfit::Contended.of(&meta))
    }

    async fn state(&self, record: &EnvelopeKeyRecord) -> Result<State, Error> {
        let (wrapped, meta) = (record.wrapped_key(), record.meta());
        // It asks no service: that one is up it does not tell.
        let missing = match self.to.inspect(wrapped) {
            Ok(health) => health.missing,
            Err(error) if !error.is_transient() && self.purpose == Purpose::Move => {
                // Another service's.
                return Ok(State::Due { missing: Vec::new() });
            }
            Err(error) => return Err(of_kms("inspect", meta, error)),
        };
        if !missing.is_empty() || self.options.even_if_up_to_date {
            return Ok(State::Due { missing });
        }
        if self.purpose == Purpose::Repair {
            // What looks whole may be another master key's.
            return self.unwrap_from(wrapped, meta).await.map(|_| State::UpToDate);
        }
        match self
            .to_gate
            .call(|context| async move {
                let answer = self.to.unwrap_key(wrapped, meta, &context);
                self.calls.observe(Call::UnwrapKey, meta, &context, answer).await
            })
            .await
        {
            Ok(_) => Ok(State::UpToDate),
            Err(error) if !error.is_transient() => Ok(State::Due { missing }),
            Err(error) => Err(of_kms("unwrap_key", meta, error)),
        }
    }

    async fn unwrap_from(&self, wrapped: &[u8], meta: &KeyMeta) -> Result<SecretKey, Error> {
        let unwrapped = self
            .from_gate
            .call(|context| async move {
                let answer = self.from.unwrap_key(wrapped, meta, &context);
                self.calls.observe(Call::UnwrapKey, meta, &context, answer).await
            })
            .await;
        unwrapped.map_err(|error| of_kms("unwrap_key", meta, error))
    }

    /// Wraps the key, and makes sure that the new form serves before anybody sees it.
    async fn wrapped(
        &self,
        meta: &KeyMeta,
        secret: &SecretKey,
        lacks: &[String],
    ) -> Result<WrappedKey, Error> {
        let wrapped = self
            .to_gate
            .call(|context| async move {
                let answer = self.to.wrap_key(secret, meta, &context);
                self.calls.observe(Call::WrapKey, meta, &context, answer).await
            })
            .await;
        let wrapped = wrapped.map_err(|error| of_kms("wrap_key", meta, error))?;
        let missing = wrapped.missing_copies();
        let is_better = missing.len() < lacks.len() && missing.iter().all(|copy| lacks.contains(copy));
        let may_lack = match self.purpose {
            Purpose::Move => true,
            Purpose::Repair => missing.is_empty() || is_better,
        };
        if !may_lack {
            return Err(Unfit::StillMissing(missing.join(", ")).of(meta));
        }
        if !self.unwraps_to(wrapped.bytes(), meta, secret).await? {
            return Err(Unfit::OtherKey.of(meta));
        }
        Ok(wrapped)
    }

    async fn unwraps_to(&self, wrapped: &[u8], meta: &KeyMeta, secret: &SecretKey) -> Result<bool, Error> {
        let unwrapped = self
            .to_gate
            .call(|context| async move {
                let answer = self.to.unwrap_key(wrapped, meta, &context);
                self.calls.observe(Call::UnwrapKey, meta, &context, answer).await
            })
            .await;
        let unwrapped = unwrapped.map_err(|error| of_kms("unwrap_key", meta, error))?;
        Ok(is_same(&unwrapped, secret))
    }

    /// Returns `true` if the key is there, and revoked.
    async fn revoke(&self, record: &EnvelopeKeyRecord) -> Result<bool, Error> {
        let meta = record.meta();
        let revoked = self
            .store_gate
            .call(|context| async move {
                let answer = self.store.revoke(meta, &context);
                self.calls.observe(Call::Revoke, meta, &context, answer).await
            })
            .await;
        revoked.map_err(|error| of_store("revoke", meta.id(), error))
    }

    async fn replace(&self, meta: &KeyMeta, old: &[u8], new: &[u8]) -> Result<bool, Error> {
        let replacement = &[Replacement::new(meta.clone(), old, new)];
        let replaced = self
            .store_gate
            .call(|context| async move {
                let answer = self.store.replace_many(replacement, &context);
                self.calls.observe(Call::ReplaceMany, meta, &context, answer).await
            })
            .await;
        match replaced {
            Ok(replaced) if replaced == [true] => Ok(true),
            // The reply to a first attempt may have been lost.
            answer => match self.load(meta).await? {
                Some(record) if **record.wrapped_key() == *new => Ok(true),
                _ => match answer {
                    Ok(_) => Ok(false),
                    Err(error) => Err(of_store("replace_many", meta.id(), error)),
                },
            },
        }
    }

    /// Makes sure that what is stored now can be unwrapped; if not, puts the former key back.
    async fn read_back(
        &self,
        meta: &KeyMeta,
        old: &[u8],
        new: &[u8],
        secret: &SecretKey,
    ) -> Result<(), Error> {
        let stored = match self.load(meta).await? {
            // Deleted by an operator: what was wrapped is gone with it.
            None => return Ok(()),
            Some(record) => record,
        };
        let is_revoked = stored.is_revoked() || !self.options.revoke;
        let stored = Arc::clone(stored.wrapped_key());
        // Another writer's form may be the other service's.
        let is_good = *stored == *new
            || self.unwraps_to(&stored, meta, secret).await.unwrap_or(false)
            || self.unwrap_from(&stored, meta).await.is_ok_and(|unwrapped| is_same(&unwrapped, secret));
        if is_good && is_revoked {
            return Ok(());
        }
        self.replace(meta, &stored, old).await?;
        Err(Unfit::ReadBack.of(meta))
    }

    async fn load(&self, meta: &KeyMeta) -> Result<Option<EnvelopeKeyRecord>, Error> {
        let loaded = self
            .store_gate
            .call(|context| async move {
                self.calls.observe(Call::Load, meta, &context, self.store.load(meta, &context)).await
            })
            .await;
        loaded.map_err(|error| of_store("load", meta.id(), error))
    }
}

/// Only the holder of the key could measure how long this takes: both come from its own service.
fn is_same(one: &SecretKey, other: &SecretKey) -> bool {
    one.expose_secret() == other.expose_secret()
}
