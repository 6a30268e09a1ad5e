//! Several services, each of which unwraps alone.

use std::sync::Arc;
use std::time::Duration;

use claviger::{
    BackendError, CallContext, Clock, FailureKind, KeyManagementService, KeyMeta, LockPolicy, SecretKey,
    SecureRandom, WrapHealth, WrappedKey,
};

use crate::check::CopyCheck;
use crate::clv1::{Envelope, Kind, Malformed};
use crate::copies::first_of;
use crate::members::{Draft, Members, MembersBuilder, invalid, unwrap_bare};

/// Wraps system keys so that any one of several services unwraps them: to move from one to another,
/// or to outlive the loss of one.
///
/// # What is stored
/// By default ([`asherah_compatible`](AnyOfKmsBuilder::asherah_compatible)) what the first member
/// wraps, as it is; the other members are there for reading what they wrapped once. So a move to
/// another service is: put the new one first, rewrap the stored keys, take the old one away.
///
/// Else an envelope that begins with `CLV1` and names its members: the system key is sealed under a
/// wrapping key made for that envelope, and each member wraps a copy of the wrapping key. Members
/// that fail are left out and listed as missing.
///
/// # Unwrapping
/// The copies of a `CLV1` envelope are tried in the order of the configuration, the next one when one
/// fails or has not answered within [`hedge_after`](AnyOfKmsBuilder::hedge_after). Anything else is a
/// bare envelope, which says nothing of its maker: each member is asked in the same way.
///
/// # What a writer of the store can do
/// A copy is authenticated by the member that wrapped it, and all copies by the seal. Whichever copy opens
/// first, the result is the key that was wrapped; else that member failed. Names and order are not
/// authenticated, nor is it that no copy was taken away: exchanging or removing copies makes members fail, no
/// more. Names that are not configured are never asked. As with any KMS of this library, a whole
/// envelope of *another* system key may be put in its place, which then fails to open what it wrapped.
/// For a key of his own choice he must be able to wrap under a member's master key, and any one
/// member is enough: the members are as strong together as the weakest.
///
/// ```
/// use claviger::{BackendError, KeyManagementService};
/// use claviger_kms::AnyOfKms;
///
/// /// What is new is wrapped by the module; what AWS has wrapped is read until it is rewrapped.
/// fn moving(hsm: impl KeyManagementService, aws: impl KeyManagementService) -> Result<AnyOfKms, BackendError> {
///     AnyOfKms::builder().member("hsm", hsm).member("aws", aws).build()
/// }
///
/// /// Either can be lost.
/// fn both(hsm: impl KeyManagementService, aws: impl KeyManagementService) -> Result<AnyOfKms, BackendError> {
///     AnyOfKms::builder().member("hsm", hsm).member("aws", aws).asherah_compatible(false).build()
/// }
/// ```
#[derive(Debug)]
pub struct AnyOfKms {
    members: Members,
    is_asherah_compatible: bool,
    copies_min: usize,
    hedge_after: Duration,
}

/// What an [`AnyOfKms`] is made of.
#[derive(Debug)]
#[must_use]
pub struct AnyOfKmsBuilder {
    members: MembersBuilder,
    is_asherah_compatible: bool,
    copies_min: usize,
    hedge_after: Duration,
}

const HEDGE_AFTER: Duration = Duration::from_millis(300);

impl AnyOfKms {
    /// Begins one without members.
    pub fn builder() -> AnyOfKmsBuilder {
        AnyOfKmsBuilder {
            members: MembersBuilder::new(),
            is_asherah_compatible: true,
            copies_min: 1,
            hedge_after: HEDGE_AFTER,
        }
    }

    /// Wraps and unwraps a key by each member alone, all at once.
    ///
    /// # Cancel safety
    /// The calls are dropped where they stand.
    pub async fn check(&self, context: &CallContext) -> Vec<CopyCheck> {
        self.members.check(context).await
    }

    /// Unwraps by the first member that answers with the key that opens the seal.
    async fn open(
        &self,
        envelope: &Envelope,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let attempts: Vec<_> = self
            .members
            .with_copies(envelope)
            .map(|(member, copy)| {
                (Arc::clone(member.name()), async move |context: CallContext| {
                    let wrapping_key = member.unwrap(&copy.copy, meta, &context).await?;
                    self.members.open(&wrapping_key, &envelope.sealed)
                })
            })
            .collect();
        if attempts.is_empty() {
            return Err(BackendError::permanent(NoMember {
                named: envelope.members().map(str::to_owned).collect(),
                configured: self.members.names().map(str::to_owned).collect(),
            })
            .with_kind(FailureKind::Settings)
            .not_asked());
        }
        first_of(context, attempts, self.hedge_after).await.map_err(BackendError::from)
    }

    /// Unwraps by the first member that can.
    async fn open_bare(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        unwrap_bare(self.members.iter(), wrapped, meta, self.hedge_after, context).await
    }

    /// Wraps by the first member alone.
    async fn wrap_bare(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let Some(first) = self.members.iter().next() else {
            return Err(BackendError::permanent("there is no member").with_kind(FailureKind::Settings));
        };
        let wrapped = first.wrap(key, meta, context).await?;
        // It would be taken for our own, whose members it does not name.
        if is_ours(wrapped.bytes()).map_err(BackendError::damaged)?.is_some() {
            return Err(BackendError::permanent(
                "the first member is an AnyOfKms of its own; give its members to this one",
            )
            .with_kind(FailureKind::Settings));
        }
        let missing = wrapped.missing_copies().iter().map(|copy| first.name_within(copy)).collect();
        Ok(wrapped.lacking(missing))
    }
}

/// Reads an envelope that any one member opens. Those of which several must open it are a member's.
fn is_ours(wrapped: &[u8]) -> Result<Option<Envelope>, Malformed> {
    Ok(Envelope::parse(wrapped)?.filter(|envelope| envelope.kind == Kind::AnyOf))
}

impl KeyManagementService for AnyOfKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        if self.is_asherah_compatible {
            return self.wrap_bare(key, meta, context).await;
        }
        let random = self.members.random();
        let wrapping_key = SecretKey::generate(&**random).map_err(BackendError::transient)?;
        let sealed = self.members.seal(&wrapping_key, key)?;
        let draft = Draft { kind: Kind::AnyOf, k: 1, sealed, copies_min: self.copies_min };
        self.members.wrap_shares(draft, std::iter::repeat(&wrapping_key), meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        match is_ours(wrapped).map_err(Malformed::refused)? {
            Some(envelope) => self.open(&envelope, meta, context).await,
            None => self.open_bare(wrapped, meta, context).await,
        }
    }

    /// Tells whose copies an envelope names; a bare one is taken for that of the first member that takes
    /// it for its own. Missing is what is not there of what would be written now: the first member's
    /// copy, or everybody's. What a member says is missing within its copy is called `member/copy`.
    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        let mut health = match is_ours(wrapped).map_err(Malformed::refused)? {
            Some(envelope) => self.members.inspect(&envelope)?,
            None => self.members.inspect_bare(self.members.iter(), wrapped)?,
        };
        if let (true, Some(first)) = (self.is_asherah_compatible, self.members.iter().next()) {
            health.missing.retain(|missing| first.has_made(missing));
        }
        Ok(health)
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        Some(self.members.lock_policy())
    }
}

impl AnyOfKmsBuilder {
    /// Adds a service by a name, 1 to 64 visible ASCII characters other than `"`, `\` and `/`. The
    /// first one wraps, or is asked first; there may be 10.
    ///
    /// The name is stored in `CLV1` envelopes: under another name the member does not find its copies.
    pub fn member(mut self, name: impl Into<String>, kms: impl KeyManagementService) -> Self {
        self.members.add(name, kms);
        self
    }

    /// Stores what the first member wraps and nothing else, as an Asherah could read it (the default);
    /// or an envelope with a copy by each member, which no Asherah reads.
    pub const fn asherah_compatible(mut self, is_asherah_compatible: bool) -> Self {
        self.is_asherah_compatible = is_asherah_compatible;
        self
    }

    /// Makes it an error to wrap with fewer copies than these; 1 by default.
    pub const fn min_copies(mut self, copies_min: usize) -> Self {
        self.copies_min = copies_min;
        self
    }

    /// Asks the next member when one has not answered for so long; 300 ms by default.
    pub const fn hedge_after(mut self, hedge_after: Duration) -> Self {
        self.hedge_after = hedge_after;
        self
    }

    /// Takes the time from `clock`, to leave members alone that are down.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.members.clock = Arc::new(clock);
        self
    }

    /// Draws wrapping keys and nonces from `random` instead of the operating system.
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
    /// Permanent, of the kind [`Settings`](FailureKind::Settings), when there are no members or too many, when names are used twice or
    /// cannot be used, and when more copies are asked for than are made.
    pub fn build(self) -> Result<AnyOfKms, BackendError> {
        let members = self.members.build()?;
        let copies_max = if self.is_asherah_compatible { 1 } else { members.iter().len() };
        if !(1..=copies_max).contains(&self.copies_min) {
            return Err(invalid(format!("min_copies is {}; {copies_max} will be made", self.copies_min)));
        }
        Ok(AnyOfKms {
            members,
            is_asherah_compatible: self.is_asherah_compatible,
            copies_min: self.copies_min,
            hedge_after: self.hedge_after,
        })
    }
}

/// The members that could unwrap an envelope are not configured.
#[derive(Debug, thiserror::Error)]
#[error("the envelope has copies by {named:?}; configured are {configured:?}")]
struct NoMember {
    named: Vec<String>,
    configured: Vec<String>,
}
