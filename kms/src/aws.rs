//! AWS KMS, in one region or several.

pub(crate) mod builder;
mod envelope;
mod error;
mod region;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger::backend::KeyWrap;
use claviger::{
    BackendError, CallContext, Clock, KeyManagementService, KeyMeta, LockPolicy, SecretKey, SystemRandom,
    WrapHealth, WrappedKey,
};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use zeroize::Zeroizing;

pub use crate::aws::error::{AwsKmsError, AwsKmsFault};

use crate::aws::envelope::{Envelope, RegionCopy};
use crate::aws::region::{Contexts, DataKey, Region, context_of};
use crate::check::{CopyCheck, check};
use crate::copies::{CopyFailures, all_of, first_of};

/// Wraps system keys under AWS KMS keys, one in each of several regions, as Asherah does, so that both
/// can read what the other wrote.
///
/// A system key is sealed (AES-256-GCM, `ciphertext ‖ tag ‖ nonce`) under a data key that is made for
/// it, and that data key is wrapped in every region. So any one region unwraps:
///
/// ```json
/// {"encryptedKey":"…","kmsKeks":[{"region":"us-east-1","arn":"arn:aws:kms:…","encryptedKek":"…"}]}
/// ```
///
/// The region that made the data key stands first, the others follow in the order of configuration.
/// Readers, ours and Asherah's, take them in any order.
///
/// | call | requests |
/// |---|---|
/// | `wrap_key` | `GenerateDataKey` in the preferred region, and the next if that fails or is late; then `Encrypt` in all others at once |
/// | `unwrap_key` | `Decrypt` in the preferred region, and the next if that fails or is late |
///
/// A service needs `kms:GenerateDataKey`, `kms:Encrypt` and `kms:Decrypt` on each key.
///
/// # Regions that fail
/// Each request has a deadline, 2 seconds unless told. The next region is asked at once when one
/// fails, and also when it has not answered after 300 ms; the first answer counts, and requests still
/// under way are dropped with their connections. A region that failed three times in a row is left
/// alone but for one request a second; one that was dropped for being late is asked last for a second.
///
/// A wrap in which a region fails succeeds without that region's copy, and names it among
/// [`missing_copies`](WrappedKey::missing_copies): until the key is wrapped anew, that region cannot
/// unwrap it. With [`min_regions`](crate::AwsKmsBuilder::min_regions) it is an error when too few are left.
///
/// # Which master key
/// A copy is unwrapped with the key that is *configured* for its region, or with one of the
/// [`previous`](crate::AwsKmsBuilder::previous_arn) ones when KMS answers that another key wrapped it. The
/// ARN in the envelope is for people: whoever can write the store does not choose the key. Copies of
/// regions that are not configured are not tried.
///
/// # Encryption context
/// Without one, a writer of the store can put one system key's envelope in the place of another's;
/// neither then opens anything it should not, since the keys below do not authenticate.
/// [`encryption_context`](crate::AwsKmsBuilder::encryption_context) makes KMS bind each envelope to its key's
/// id and creation: such a swap is refused by KMS itself, and its log names the key each call was
/// for. Asherah cannot read envelopes that are bound.
///
/// # Secrets
/// Data keys are wiped when done with, in the buffers that belong to us or come to us from the SDK.
/// Out of reach are the SDK's and the HTTP client's own: the body of each request and answer, in
/// which the data key stands in base64, under TLS on the network but not in memory. They are freed
/// when the call ends and overwritten when the allocator reuses them. No trace of the SDK, on any
/// level, shows them unless `LOG_SENSITIVE_BODIES` is set in the environment: leave it unset. A system
/// key itself never leaves the process.
///
/// # Retries and HTTPS
/// The core retries, so the SDK does not: a client made by the caller is copied with its retries
/// switched off. HTTPS is rustls with ring and the system's certificates, one client for all regions.
/// A proxy, or credentials by SSO, need a client made by the caller.
///
/// ```no_run
/// use claviger_kms::AwsKms;
///
/// # async fn example() -> Result<(), claviger::BackendError> {
/// let kms = AwsKms::builder()
///     .region("us-east-1", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
///     .region("eu-west-1", "arn:aws:kms:eu-west-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321")
///     .preferred("us-east-1")
///     .open()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct AwsKms {
    /// In the order in which they are tried.
    regions: Vec<Arc<Region>>,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    min_regions: usize,
    hedge_after: Duration,
    binding: Binding,
    clock: Arc<dyn Clock>,
    locks: LockPolicy,
}

/// Whether data keys are bound to an encryption context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    Unbound,
    /// They are; ones that are not are taken, too, if so configured.
    Bound {
        or_not: bool,
    },
}

/// How many regions can be configured, and how many copies of one envelope are tried.
const COPIES_MAX: usize = 16;

impl AwsKms {
    /// Tries every region by itself: whether it wraps and unwraps now, and how long it takes.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn check(&self, call: &CallContext) -> Vec<CopyCheck> {
        let settings = Settings { min_regions: 1, ..self.settings.clone() };
        join_all(self.regions.iter().map(|region| {
            let alone = Self { regions: vec![Arc::new(region.afresh())], settings: settings.clone() };
            async move { check(&**region.name(), &alone, call).await }
        }))
        .await
    }

    fn contexts(&self, meta: &KeyMeta) -> Contexts {
        match self.settings.binding {
            Binding::Unbound => Contexts { bound: None, or_none: false },
            Binding::Bound { or_not } => Contexts { bound: context_of(meta), or_none: or_not },
        }
    }

    /// The regions in the order in which they are tried now.
    fn in_order(&self) -> impl Iterator<Item = &Arc<Region>> {
        let now = self.settings.clock.monotonic();
        let (in_time, late): (Vec<_>, Vec<_>) =
            self.regions.iter().partition(|region| region.is_in_time(now));
        in_time.into_iter().chain(late)
    }

    /// What is asked of a region that others stand in for when it is late.
    fn attempt<'a, T: Send + 'a, F>(
        &'a self,
        region: &'a Region,
        attempt: impl FnOnce(CallContext) -> F + Send + 'a,
    ) -> (Arc<str>, Attempt<'a, T>)
    where
        F: Future<Output = Result<T, BackendError>> + Send + 'a,
    {
        let Settings { hedge_after, clock, .. } = &self.settings;
        let watched = |call| region.watched(attempt(call), *hedge_after, &**clock).boxed();
        (Arc::clone(region.name()), Box::new(watched))
    }

    /// Draws a data key in the first region that answers.
    async fn generate(
        &self,
        contexts: &Contexts,
        call: &CallContext,
    ) -> Result<(&Arc<Region>, DataKey), BackendError> {
        let attempts = self.in_order().map(|region| {
            let bound = contexts.bound.clone();
            self.attempt(region, async move |call| Ok((region, region.generate(bound, call).await?)))
        });
        let attempts: Vec<_> = attempts.collect();
        Ok(first_of(call, attempts, self.settings.hedge_after).await?)
    }

    /// Wraps the data key in all regions but the one that drew it.
    async fn wrap_elsewhere(
        &self,
        drawn_in: &Arc<Region>,
        data_key: &SecretKey,
        contexts: &Contexts,
        call: &CallContext,
    ) -> (Vec<RegionCopy<'_>>, CopyFailures) {
        // One buffer for all regions, wiped when the last request is done with it.
        let data_key = Bytes::from_owner(Zeroizing::new(data_key.expose_secret().to_vec()));
        let others = self.regions.iter().filter(|region| !Arc::ptr_eq(region, drawn_in));
        let attempts = others.map(|region| {
            let wrapped = region.encrypt(data_key.clone(), contexts.bound.clone(), *call);
            (Arc::clone(region.name()), async move { Ok(region.copy(&wrapped.await?)) }.boxed())
        });
        let attempts: Vec<_> = attempts.collect();
        drop(data_key);
        let (made, failures) = all_of(attempts).await;
        (made.into_iter().map(|(_, copy)| copy).collect(), failures)
    }

    /// Unwraps one region's copy of the data key, and opens the system key with it.
    async fn unwrap_copy(
        region: &Region,
        copy: &RegionCopy<'_>,
        sealed: &[u8],
        contexts: &Contexts,
        locks: LockPolicy,
        call: CallContext,
    ) -> Result<SecretKey, BackendError> {
        let data_key = region.decrypt(&copy.encrypted_kek().map_err(refused)?, contexts, call).await?;
        KeyWrap::new(&data_key, locks)?.open(sealed)
    }

    /// The copies that are tried, in order: each region's first, then what else there is of regions
    /// that the envelope names more than once.
    fn candidates<'e>(&self, envelope: &'e Envelope<'_>) -> Vec<(&Arc<Region>, &'e RegionCopy<'e>)> {
        let mut candidates = Vec::new();
        for (place, region) in self.in_order().enumerate() {
            let copies = envelope.copies().iter().filter(|copy| copy.region == **region.name());
            candidates.extend(copies.enumerate().map(|(round, copy)| ((round, place), region, copy)));
        }
        candidates.sort_by_key(|&(order, ..)| order);
        candidates.truncate(COPIES_MAX);
        candidates.into_iter().map(|(_, region, copy)| (region, copy)).collect()
    }
}

impl KeyManagementService for AwsKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        call: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let contexts = self.contexts(meta);
        // One region draws the key, and then the others wrap it.
        let rounds = self.regions.len().min(2);
        let (region, data_key) = self.generate(&contexts, &call.share(rounds)).await?;
        let sealed = KeyWrap::new(&data_key.secret, self.settings.locks)?.seal(key, &SystemRandom::new())?;
        let (others, failures) = self.wrap_elsewhere(region, &data_key.secret, &contexts, call).await;
        let mut copies = vec![region.copy(&data_key.wrapped)];
        copies.extend(others);
        let (made, wanted) = (copies.len(), self.settings.min_regions);
        if made < wanted {
            return Err(AwsKmsFault::TooFewRegions { made, wanted, source: failures.into() }.into());
        }
        let envelope = Envelope::new(&sealed, copies).write()?;
        Ok(WrappedKey::new(envelope).lacking(failures.names()))
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        call: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let envelope = Envelope::read(wrapped).map_err(refused)?;
        let sealed = envelope.encrypted_key().map_err(refused)?;
        let candidates = self.candidates(&envelope);
        if candidates.is_empty() {
            return Err(refused(AwsKmsFault::RegionsUnknown { regions: envelope.regions_shown() }));
        }
        let (contexts, locks) = (self.contexts(meta), self.settings.locks);
        let attempts = candidates.into_iter().map(|(region, copy)| {
            self.attempt(region, |call| Self::unwrap_copy(region, copy, &sealed, &contexts, locks, call))
        });
        let attempts: Vec<_> = attempts.collect();
        Ok(first_of(call, attempts, self.settings.hedge_after).await?)
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        let envelope = Envelope::read(wrapped).map_err(refused)?;
        let is_there = |region: &&Arc<Region>| {
            let mut copies = envelope.copies().iter().filter(|copy| copy.region == **region.name());
            copies.any(|copy| copy.encrypted_kek().is_ok())
        };
        let (present, missing): (Vec<_>, Vec<_>) = self.regions.iter().partition(is_there);
        let names =
            |regions: &[&Arc<Region>]| regions.iter().map(|region| region.name().to_string()).collect();
        Ok(WrapHealth::new(names(&present), names(&missing)))
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        Some(self.settings.locks)
    }
}

/// Boxed, and collected before they are awaited: the compiler does not see that an iterator over them is `Send`.
type Attempt<'a, T> = Box<dyn FnOnce(CallContext) -> BoxFuture<'a, Result<T, BackendError>> + Send + 'a>;

/// The error of a call that has asked no region yet.
fn refused(fault: AwsKmsFault) -> BackendError {
    BackendError::from(fault).not_asked()
}
