//! Several services, some of which must unwrap together.

mod quorum;
mod shamir;

use std::sync::Arc;
use std::time::Duration;

use claviger::{
    BackendError, CallContext, Clock, FailureKind, KeyManagementService, KeyMeta, LockPolicy, SecretKey,
    SecureRandom, WrapHealth, WrappedKey,
};

use crate::check::CopyCheck;
use crate::clv1::{Envelope, Kind, Malformed};
use crate::members::{Draft, Member, Members, MembersBuilder, invalid, unwrap_bare};

/// Wraps system keys so that `k` of `n` services must unwrap together: for roots that no single
/// provider may open, and that outlive the loss of `n - k` of them.
///
/// # What is stored
/// An envelope that begins with `CLV1`, which no Asherah reads: so it is written only with
/// [`asherah_compatible(false)`](KofNKmsBuilder::asherah_compatible). The system key is sealed under a
/// wrapping key made for that envelope; the wrapping key is split by Shamir's scheme, and each member
/// wraps one share. Members that fail are left out and listed as missing; a wrap with exactly `k`
/// shares is usable, and lost with any one of them, until it is repaired
/// ([`min_shares`](KofNKmsBuilder::min_shares)).
///
/// # Unwrapping
/// All members are asked at once, and the key is there as soon as `k` shares that belong together are:
/// after the `k`-th fastest. A share that does not fit (forged, exchanged, another envelope's) fails by
/// itself: as shares come in, every subset of `k` is tried. With at most 10 members they are never more
/// than 252.
///
/// # What a writer of the store can do
/// Nothing comes out but the key that was sealed. Shares, names and places may be exchanged or taken
/// away, which makes them fail, no more; names that are not configured are never asked. An envelope
/// that asks for fewer shares than configured is refused, whatever it says of itself
/// ([`previous_k`](KofNKmsBuilder::previous_k)), and so is one that a single member wrapped
/// ([`legacy_member`](KofNKmsBuilder::legacy_member)). As with any KMS of this library, a whole
/// envelope of another system key may be put in its place, which then fails to open what it wrapped.
/// For a key of his own choice he must be able to wrap under the master keys of `k` members.
///
/// # What each member sees
/// The process that wraps or unwraps has the system key and all shares in its memory, as with every
/// other KMS: the quorum is among the services, not among processes.
///
/// ```
/// use claviger::{Error, KeyManagementService};
/// use claviger_kms::KofNKms;
///
/// fn two_of_three(
///     aws: impl KeyManagementService,
///     hsm: impl KeyManagementService,
///     vault: impl KeyManagementService,
/// ) -> Result<KofNKms, Error> {
///     KofNKms::builder(2)
///         .member("aws", aws)
///         .member("hsm", hsm)
///         .member("vault", vault)
///         .asherah_compatible(false)
///         .build()
/// }
/// ```
#[derive(Debug)]
pub struct KofNKms {
    members: Members,
    k: u8,
    k_min: u8,
    shares_min: usize,
    is_asherah_compatible: bool,
    legacy: Vec<Member>,
}

/// What a [`KofNKms`] is made of.
#[derive(Debug)]
#[must_use]
pub struct KofNKmsBuilder {
    members: MembersBuilder,
    k: u8,
    previous_k: Vec<u8>,
    shares_min: Option<usize>,
    is_asherah_compatible: bool,
    legacy: Vec<String>,
}

impl KofNKms {
    /// Begins one without members, `k` of which must work together.
    pub fn builder(k: u8) -> KofNKmsBuilder {
        KofNKmsBuilder {
            members: MembersBuilder::new(),
            k,
            previous_k: Vec::new(),
            shares_min: None,
            is_asherah_compatible: true,
            legacy: Vec::new(),
        }
    }

    /// Wraps and unwraps a key by each member alone, all at once.
    ///
    /// # Cancel safety
    /// The calls are dropped where they stand.
    pub async fn check(&self, context: &CallContext) -> Vec<CopyCheck> {
        self.members.check(context).await
    }

    /// Reads an envelope of which enough members must open it; `None` if it is bare.
    fn parse(&self, wrapped: &[u8]) -> Result<Option<Envelope>, BackendError> {
        match Envelope::parse(wrapped).map_err(Malformed::refused)? {
            Some(envelope) if envelope.k < self.k_min => {
                Err(unconfigured(Downgrade { k: envelope.k, k_min: self.k_min }))
            }
            envelope => Ok(envelope),
        }
    }

    async fn open_bare(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        if self.legacy.is_empty() {
            return Err(unconfigured(Bare));
        }
        unwrap_bare(&self.legacy, wrapped, meta, Duration::ZERO, context).await
    }
}

/// What the configuration does not allow.
fn unconfigured(why: impl std::error::Error + Send + Sync + 'static) -> BackendError {
    BackendError::permanent(why).with_kind(FailureKind::Settings).not_asked()
}

impl KeyManagementService for KofNKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        if self.is_asherah_compatible {
            return Err(unconfigured(Incompatible));
        }
        let random = self.members.random();
        let wrapping_key = SecretKey::generate(&**random).map_err(BackendError::transient)?;
        let shares = shamir::split(&wrapping_key, self.k, self.members.count(), &**random)
            .map_err(BackendError::transient)?;
        let sealed = self.members.seal(&wrapping_key, key)?;
        let draft = Draft { kind: Kind::KOfN, k: self.k, sealed, copies_min: self.shares_min };
        self.members.wrap_shares(draft, &shares, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        match self.parse(wrapped)? {
            Some(envelope) => quorum::open(&self.members, &envelope, meta, context).await,
            None => self.open_bare(wrapped, meta, context).await,
        }
    }

    /// Tells whose shares an envelope names. What a member says is missing within its own is called
    /// `member/copy`.
    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        if let Some(envelope) = self.parse(wrapped)? {
            return self.members.inspect(&envelope);
        }
        if self.legacy.is_empty() {
            return Err(unconfigured(Bare));
        }
        self.members.inspect_bare(&self.legacy, wrapped)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        Some(self.members.lock_policy())
    }
}

impl KofNKmsBuilder {
    /// Adds a service by a name, 1 to 64 visible ASCII characters other than `"`, `\` and `/`; there
    /// may be 10.
    ///
    /// The name is stored in the envelopes: under another name the member does not find its shares.
    pub fn member(mut self, name: impl Into<String>, kms: impl KeyManagementService) -> Self {
        self.members.add(name, kms);
        self
    }

    /// Refuses to wrap, since no Asherah could read it (the default); what is there is read.
    pub const fn asherah_compatible(mut self, is_asherah_compatible: bool) -> Self {
        self.is_asherah_compatible = is_asherah_compatible;
        self
    }

    /// Makes it an error to wrap with fewer shares than these; `k` by default, so that losing members
    /// stops no writer. With more, a key outlives the loss of members before it was repaired.
    pub const fn min_shares(mut self, shares_min: usize) -> Self {
        self.shares_min = Some(shares_min);
        self
    }

    /// Reads envelopes of which this many shares, fewer than now, are enough: from before `k` was
    /// raised, until they are rewrapped. Those of which more are needed are always read.
    pub fn previous_k(mut self, k: u8) -> Self {
        self.previous_k.push(k);
        self
    }

    /// Reads what this member wrapped alone: from before the quorum, until it is rewrapped. Until then
    /// the quorum protects nothing from whoever has that member, and by it could put a key of his own
    /// into the store.
    pub fn legacy_member(mut self, name: impl Into<String>) -> Self {
        self.legacy.push(name.into());
        self
    }

    /// Takes the time from `clock`, to leave members alone that are down.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.members.clock = Arc::new(clock);
        self
    }

    /// Draws wrapping keys, shares and nonces from `random` instead of the operating system.
    pub fn random(mut self, random: impl SecureRandom) -> Self {
        self.members.random = Arc::new(random);
        self
    }

    /// Sets how the memory is locked in which wrapping keys lie for the time of a call; if possible, unless told. A
    /// factory whose policy requires locked memory takes no service that does not.
    pub const fn lock_policy(mut self, locks: LockPolicy) -> Self {
        self.members.locks = locks;
        self
    }

    /// Makes the service. Nobody is called.
    ///
    /// # Errors
    /// Permanent, of the kind [`Settings`](FailureKind::Settings), when `k` is less than 2 or more than the members, when there are too
    /// many of them, when names are used twice or cannot be used, when a legacy member is none of them,
    /// and when fewer shares than `k` or more than there are members should do.
    pub fn build(self) -> Result<KofNKms, BackendError> {
        let members = self.members.build()?;
        let (k, n) = (self.k, members.count());
        if !(2..=n).contains(&k) {
            return Err(invalid(format!("{k} of {n} members; it takes 2 at least and all of them at most")));
        }
        let shares_min = self.shares_min.unwrap_or(usize::from(k));
        if !(usize::from(k)..=usize::from(n)).contains(&shares_min) {
            return Err(invalid(format!("min_shares is {shares_min} for {k} of {n} members")));
        }
        if let Some(previous) = self.previous_k.iter().find(|previous| !(2..k).contains(*previous)) {
            return Err(invalid(format!("previous_k is {previous}, and k is {k}")));
        }
        let k_min = self.previous_k.iter().copied().min().unwrap_or(k);
        let find = |name: &String| {
            let member = members.iter().find(|member| **member.name() == **name);
            member.cloned().ok_or_else(|| invalid(format!("the legacy member {name:?} is not a member")))
        };
        let legacy = self.legacy.iter().map(find).collect::<Result<_, _>>()?;
        let is_asherah_compatible = self.is_asherah_compatible;
        Ok(KofNKms { members, k, k_min, shares_min, is_asherah_compatible, legacy })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a quorum's envelopes are not read by any Asherah; set asherah_compatible(false) to write them")]
struct Incompatible;

#[derive(Debug, thiserror::Error)]
#[error("not a quorum's envelope, and no legacy_member is set")]
struct Bare;

#[derive(Debug, thiserror::Error)]
#[error("{k} shares are enough for the envelope, and {k_min} are required")]
struct Downgrade {
    k: u8,
    k_min: u8,
}
