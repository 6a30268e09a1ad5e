//! The services that others are made of, each with its name.

use std::sync::Arc;
use std::time::Duration;

use claviger::backend::KeyWrap;
use claviger::{
    BackendError, BoxedKms, CallContext, Clock, FailureKind, KeyManagementService, KeyMeta, LockPolicy,
    SecretKey, SecureRandom, SystemClock, SystemRandom, WrapHealth, WrappedKey,
};
use futures_util::future::join_all;

use crate::check::{CopyCheck, check};
use crate::clv1::{Envelope, Kind, MEMBERS_MAX, MemberCopy, is_name};
use crate::copies::{CopyFailures, CopyHolder, all_of, first_of_unlabelled};

/// What metrics call the calls of a member.
const WRAP: &str = "wrap_key";
const UNWRAP: &str = "unwrap_key";

/// One service, and how it is called: within its deadline, and seldom while it is down.
#[derive(Clone, Debug)]
pub(crate) struct Member(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    holder: CopyHolder,
    kms: BoxedKms,
}

impl Member {
    pub(crate) fn name(&self) -> &Arc<str> {
        self.0.holder.name()
    }

    /// Names a copy of this member's own, so that it is told from the others'.
    pub(crate) fn name_within(&self, copy: &str) -> String {
        format!("{}/{copy}", self.name())
    }

    /// Returns `true` if a copy is this member's, or one of those within it.
    #[cfg(feature = "any-of")]
    pub(crate) fn has_made(&self, copy: &str) -> bool {
        let rest = copy.strip_prefix(&**self.name());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Wraps, also when the member is taken to be down: keys are made seldom, and a copy that is missing
    /// costs an operator more than this a call.
    pub(crate) async fn wrap(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.0.holder.call_anyway(WRAP, context, self.0.kms.wrap_key(key, meta, context)).await
    }

    /// Unwraps.
    ///
    /// # Cancel safety
    /// The call is dropped, unless it probes whether the member is up again: a probe runs to its end. Else a
    /// slow member would never be found to be up.
    pub(crate) async fn unwrap(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let Inner { holder, kms } = &*self.0;
        if !holder.is_down() {
            return holder.call(UNWRAP, context, kms.unwrap_key(wrapped, meta, context)).await;
        }
        let (member, wrapped, meta, context) = (self.clone(), wrapped.to_vec(), meta.clone(), *context);
        let probe = tokio::spawn(async move {
            let Inner { holder, kms } = &*member.0;
            holder.call(UNWRAP, &context, kms.unwrap_key(&wrapped, &meta, &context)).await
        });
        probe.await.unwrap_or_else(|error| Err(BackendError::transient(error)))
    }

    pub(crate) fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.kms.inspect(wrapped)
    }
}

/// A member as [`check`] asks it: within its deadline, and also when it is taken to be down.
#[derive(Debug)]
struct Checked(Member);

impl KeyManagementService for Checked {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let Inner { holder, kms } = &*self.0.0;
        holder.call_anyway(WRAP, context, kms.wrap_key(key, meta, context)).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let Inner { holder, kms } = &*self.0.0;
        holder.call_anyway(UNWRAP, context, kms.unwrap_key(wrapped, meta, context)).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.inspect(wrapped)
    }
}

/// What the builders of both services collect.
#[derive(Debug)]
pub(crate) struct MembersBuilder {
    members: Vec<(String, BoxedKms)>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn SecureRandom>,
    pub(crate) locks: LockPolicy,
}

impl MembersBuilder {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom::new()),
            locks: LockPolicy::Prefer,
        }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, kms: impl KeyManagementService) {
        self.members.push((name.into(), BoxedKms::new(kms)));
    }

    pub(crate) fn build(self) -> Result<Members, BackendError> {
        if !(1..=MEMBERS_MAX).contains(&self.members.len()) {
            return Err(invalid(format!(
                "there are {} members; there may be 1 to {MEMBERS_MAX}",
                self.members.len()
            )));
        }
        for (place, (name, _)) in self.members.iter().enumerate() {
            if !is_name(name) {
                return Err(invalid(format!(
                    "a member is called {name:?}; a name is 1 to 64 visible ASCII characters other than \" \\ /"
                )));
            }
            if self.members.iter().take(place).any(|(earlier, _)| earlier == name) {
                return Err(invalid(format!("two members are called {name:?}")));
            }
        }
        let members = self.members.into_iter().map(|(name, kms)| {
            let holder = CopyHolder::new(name, Arc::clone(&self.clock));
            Member(Arc::new(Inner { holder, kms }))
        });
        Ok(Members { members: members.collect(), random: self.random, locks: self.locks })
    }
}

pub(crate) fn invalid(reason: impl Into<String>) -> BackendError {
    BackendError::permanent(reason.into()).with_kind(FailureKind::Settings).not_asked()
}

/// Unwraps what does not say whose it is: by the first of these members that can.
///
/// # Cancel safety
/// The calls are dropped where they stand.
pub(crate) async fn unwrap_bare<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    wrapped: &'a [u8],
    meta: &'a KeyMeta,
    hedge_after: Duration,
    context: &CallContext,
) -> Result<SecretKey, BackendError> {
    // Collected before they are awaited, or the compiler does not see that they are `Send`.
    let attempts: Vec<_> = members
        .into_iter()
        .map(|member| {
            let unwrap = async move |context: CallContext| member.unwrap(wrapped, meta, &context).await;
            (Arc::clone(member.name()), unwrap)
        })
        .collect();
    Ok(first_of_unlabelled(context, attempts, hedge_after).await?)
}

/// The members in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Members {
    members: Vec<Member>,
    random: Arc<dyn SecureRandom>,
    locks: LockPolicy,
}

impl Members {
    /// Seals a key under a wrapping key that the members keep.
    pub(crate) fn seal(&self, wrapping_key: &SecretKey, key: &SecretKey) -> Result<Vec<u8>, BackendError> {
        Ok(KeyWrap::new(wrapping_key, self.locks)?.seal(key, &*self.random)?.to_vec())
    }

    /// Opens what [`seal`](Self::seal) made; damaged if it was made under another key.
    pub(crate) fn open(&self, wrapping_key: &SecretKey, sealed: &[u8]) -> Result<SecretKey, BackendError> {
        KeyWrap::new(wrapping_key, self.locks)?.open(sealed)
    }

    /// Returns how memory is locked: by the one of all that locks it least.
    pub(crate) fn lock_policy(&self) -> LockPolicy {
        let members = self.members.iter().filter_map(|member| member.0.kms.lock_policy());
        members.fold(self.locks, |weakest, locks| match (weakest, locks) {
            (LockPolicy::Require, other) | (other, LockPolicy::Require) => other,
            (LockPolicy::Off, _) | (_, LockPolicy::Off) => LockPolicy::Off,
            (other, _) => other,
        })
    }

    pub(crate) const fn random(&self) -> &Arc<dyn SecureRandom> {
        &self.random
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.iter()
    }

    /// Returns how many there are.
    #[cfg(feature = "k-of-n")]
    pub(crate) fn count(&self) -> u8 {
        // There are no more than MEMBERS_MAX.
        u8::try_from(self.members.len()).unwrap_or(u8::MAX)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &**member.name())
    }

    /// Returns each member that has a copy in the envelope, with it. Members that the configuration
    /// does not know are passed over: whoever writes the store must not choose them.
    pub(crate) fn with_copies<'a>(
        &'a self,
        envelope: &'a Envelope,
    ) -> impl Iterator<Item = (&'a Member, &'a MemberCopy)> {
        self.members.iter().filter_map(|member| Some((member, envelope.copy_of(member.name())?)))
    }

    /// Has each member wrap its share, all at once, and writes the envelope of those that did.
    pub(crate) async fn wrap_shares(
        &self,
        draft: Draft,
        shares: impl IntoIterator<Item = &SecretKey>,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let attempts: Vec<_> = (1..)
            .zip(self.members.iter().zip(shares))
            .map(|(x, (member, share))| {
                (Arc::clone(member.name()), async move {
                    Ok((member, x, member.wrap(share, meta, context).await?))
                })
            })
            .collect();
        let (made, failures) = all_of(attempts).await;
        if made.len() < draft.copies_min {
            return Err(if made.is_empty() { failures.into() } else { failures.beside_answers() });
        }
        let mut missing = failures.names();
        let mut copies = Vec::with_capacity(made.len());
        for (name, (member, x, wrapped)) in made {
            missing.extend(wrapped.missing_copies().iter().map(|copy| member.name_within(copy)));
            copies.push(MemberCopy { member: name.to_string(), x, copy: wrapped.bytes().to_vec() });
        }
        let envelope = Envelope { kind: draft.kind, k: draft.k, sealed: draft.sealed, copies };
        let bytes = envelope.to_bytes().map_err(BackendError::permanent)?;
        Ok(WrappedKey::new(bytes).lacking(missing))
    }

    /// Tells which members have a copy; and which have none, though they are configured, or one that
    /// they do not take for theirs, or that lacks copies of its own.
    pub(crate) fn inspect(&self, envelope: &Envelope) -> Result<WrapHealth, BackendError> {
        let is_strange = |name: &&str| self.names().all(|configured| configured != *name);
        let mut present: Vec<String> = envelope.members().filter(is_strange).map(str::to_owned).collect();
        let mut missing = Vec::new();
        for member in &self.members {
            let name = member.name();
            let Some(copy) = envelope.copy_of(name) else {
                missing.push(name.to_string());
                continue;
            };
            match member.inspect(&copy.copy) {
                Ok(health) => {
                    present.push(name.to_string());
                    missing.extend(health.missing.iter().map(|copy| member.name_within(copy)));
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => missing.push(name.to_string()),
            }
        }
        Ok(WrapHealth::new(present, missing))
    }

    /// Takes a bare envelope for that of the first of `makers` that takes it for its own: then the
    /// others' copies are missing, and what the maker says is missing in it.
    pub(crate) fn inspect_bare<'a>(
        &self,
        makers: impl IntoIterator<Item = &'a Member>,
        wrapped: &[u8],
    ) -> Result<WrapHealth, BackendError> {
        let mut failures = CopyFailures::default();
        for maker in makers {
            match maker.inspect(wrapped) {
                Ok(health) => {
                    let others = self.names().filter(|name| **name != **maker.name());
                    let mut missing: Vec<String> = others.map(str::to_owned).collect();
                    missing.extend(health.missing.iter().map(|copy| maker.name_within(copy)));
                    return Ok(WrapHealth::new(vec![maker.name().to_string()], missing));
                }
                Err(error) => failures.note(maker.name(), error),
            }
        }
        Err(failures.into())
    }

    /// Tries each member, all at once.
    pub(crate) async fn check(&self, context: &CallContext) -> Vec<CopyCheck> {
        let checks = self
            .members
            .iter()
            .map(|member| async move { check(&**member.name(), &Checked(member.clone()), context).await });
        join_all(checks).await
    }
}

/// An envelope whose copies are still to be made.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) k: u8,
    pub(crate) sealed: Vec<u8>,
    /// With fewer copies it is not written.
    pub(crate) copies_min: usize,
}
