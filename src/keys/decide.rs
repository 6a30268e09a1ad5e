//! Which key encrypts and which decrypts: the tables T1 and T5 of the key life cycle, row by row.
//!
//! Facts in, a step out; the first row that matches decides. Nothing here knows a clock, a store or a task:
//! [`engine`](super::engine) gathers the facts and carries the steps out.

use crate::policy::RevokedDecrypt;

/// What a key is good for, whatever its age since the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    Fit,
    /// Fit, and near its end.
    Ending,
    Exhausted,
    Expired,
    /// Revoked, or its row is gone.
    Unusable,
}

/// How old what we know of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    Due,
    Stale,
    TooOld,
}

/// What T1 asks of the latest key that a keyring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatestFacts {
    pub(crate) fitness: Fitness,
    pub(crate) freshness: Freshness,
    /// It is expired or exhausted, and within what it may go on for when no other key can be had.
    pub(crate) is_in_grace: bool,
}

/// What T1 has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncryptStep {
    /// The cached key is used.
    Use,
    /// The cached key is used, and its rows are read again in the background.
    UseAndRefresh,
    /// The cached key is used, and replaced in the background.
    UseAndReplace,
    /// Something is waited for, `refresh_wait` at most; then [`after_wait_to_encrypt`].
    Wait(Awaited),
    /// A load is waited for up to the operation's deadline; only what it brings is used.
    Load,
}

/// What an encrypt waits for, with a key at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// That the overdue check of the key is made.
    Check,
    /// That the key, which is past its end, has a successor.
    Successor,
}

/// What T5 asks of the version that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionFacts {
    Cached {
        freshness: Freshness,
        /// It or its parent is known to be revoked.
        is_revoked: bool,
    },
    /// It was looked for and not found a moment ago.
    Missing,
    Absent,
}

/// What T5 has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecryptStep {
    /// The cached key is used, if it is [admitted](admit).
    Use,
    /// The cached key is used, if it is admitted, and its rows are read again in the background.
    UseAndRefresh,
    /// The overdue check is waited for, `refresh_wait` at most; then [`after_wait_to_decrypt`].
    Wait,
    /// A load is waited for up to the operation's deadline; what it brings is used, if it is admitted.
    Load,
    /// The key is not found.
    NotFound,
    /// The key is revoked, and the policy denies decrypting under it.
    Revoked,
}

/// How the way to the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    /// A breaker is open that the calls would go through.
    pub(crate) is_shut: bool,
    /// How a refresh of this key failed, or took too long, within the last second.
    pub(crate) trouble: Option<Failure>,
}

/// How something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It may pass by itself.
    Passing,
    Lasting,
}

/// What a wait brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Answered,
    /// The key's row or its parent's is gone.
    Gone,
    Failed(Failure),
    NoAnswer,
    /// It would have been in vain.
    NotAtAll,
}

/// What is done after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    UseAnswer,
    UseCached {
        /// The event is logged, and not only counted. Operations that did not wait come too often for that.
        is_logged: bool,
    },
    /// The failure is the operation's.
    Fail,
    /// As if no key were cached.
    Load,
}

/// Whether a key may decrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admittance {
    Granted,
    /// An event is raised.
    Warned,
    Denied,
}

/// T1: which key encrypts, by the latest one that the keyring holds.
pub(crate) const fn encrypt(latest: Option<LatestFacts>) -> EncryptStep {
    // | absent | single-flight load-or-create | the flight's |
    let Some(LatestFacts { fitness, freshness, is_in_grace }) = latest else { return EncryptStep::Load };
    match (fitness, freshness) {
        // | it or its parent known to be revoked | load-or-create | the new one; never the revoked one |
        (Fitness::Unusable, _) => EncryptStep::Load,
        // | it or its parent expired | load-or-create, waited for like a refresh | the new one, or the cached |
        // | wraps ≥ max_wraps_per_key | likewise | |
        (Fitness::Expired | Fitness::Exhausted, _) if is_in_grace => EncryptStep::Wait(Awaited::Successor),
        // | or later: error |
        (Fitness::Expired | Fitness::Exhausted, _) => EncryptStep::Load,
        // | age < 80 % of the interval | none | cached |
        (Fitness::Fit, Freshness::Fresh) => EncryptStep::Use,
        // From 95 % of its life on a valid key is replaced in the background.
        (Fitness::Ending, Freshness::Fresh) => EncryptStep::UseAndReplace,
        // | age < interval | start one background refresh | cached |
        (Fitness::Fit | Fitness::Ending, Freshness::Due) => EncryptStep::UseAndRefresh,
        // | older, age ≤ interval + max_stale_encrypt | a refresh, for refresh_wait | its key, or the cached |
        (Fitness::Fit | Fitness::Ending, Freshness::Stale) => EncryptStep::Wait(Awaited::Check),
        // | older still | as if absent |
        (Fitness::Fit | Fitness::Ending, Freshness::TooOld) => EncryptStep::Load,
    }
}

/// T1: whether there is any use in waiting. "Nothing is waited for when the breaker is open, or when a refresh
/// failed or took longer than `refresh_wait` less than 1 s ago."
pub(crate) const fn is_worth_waiting(awaited: Awaited, way: WayOut) -> bool {
    match (awaited, way) {
        (_, WayOut { is_shut: true, .. }) => false,
        (_, WayOut { trouble: None, .. }) => true,
        // What will not pass fails the operation, so it is asked for again each time.
        (Awaited::Successor, WayOut { trouble: Some(Failure::Lasting), .. }) => true,
        (Awaited::Check | Awaited::Successor, WayOut { trouble: Some(_), .. }) => false,
    }
}

/// T1: what is done after a wait. What the load learned on its way counts: `is_unusable` is asked then.
pub(crate) const fn after_wait_to_encrypt(awaited: Awaited, waited: Waited, is_unusable: bool) -> Next {
    match (awaited, waited) {
        // | what the store says is latest and valid, also if it is another key than the cached one |
        (_, Waited::Answered) => Next::UseAnswer,
        // | on a permanent one (denied INSERT): error |
        (Awaited::Successor, Waited::Gone | Waited::Failed(Failure::Lasting)) => Next::Fail,
        // | never the revoked one, whatever fails |
        (_, Waited::Gone | Waited::Failed(_)) if is_unusable => Next::Fail,
        (_, Waited::NoAnswer | Waited::NotAtAll) if is_unusable => Next::Load,
        // | the refresh fails or takes longer | the event `stale` | cached |
        // | on a transient failure or no answer within refresh_wait | event `expired_key_used` | the cached one |
        (_, Waited::Gone | Waited::Failed(_) | Waited::NoAnswer) => Next::UseCached { is_logged: true },
        (_, Waited::NotAtAll) => Next::UseCached { is_logged: false },
    }
}

/// T5, from its third row on: which key decrypts. The rows before, of malformed and foreign records, are the
/// session's; those after, of a load, the loader's.
pub(crate) const fn decrypt(version: VersionFacts, policy: RevokedDecrypt) -> DecryptStep {
    match version {
        // | key or its SK known revoked, policy Deny | KeyRevoked |
        VersionFacts::Cached { is_revoked: true, .. } if matches!(policy, RevokedDecrypt::Deny) => {
            DecryptStep::Revoked
        }
        VersionFacts::Cached { freshness, .. } => match freshness {
            // | key cached, age < 80 % of the interval | use |
            Freshness::Fresh => DecryptStep::Use,
            // | cached, age < interval | use; one background refresh |
            Freshness::Due => DecryptStep::UseAndRefresh,
            // | cached, older | wait for the refresh as in T1 |
            Freshness::Stale => DecryptStep::Wait,
            // | older still | as if not cached |
            Freshness::TooOld => DecryptStep::Load,
        },
        // | row missing | KeyNotFound, cached as missing for 1 s |
        VersionFacts::Missing => DecryptStep::NotFound,
        // | not cached | single flight per (id, created) |
        VersionFacts::Absent => DecryptStep::Load,
    }
}

/// T5: what is done after a wait.
pub(crate) const fn after_wait_to_decrypt(waited: Waited) -> Next {
    match waited {
        Waited::Answered => Next::UseAnswer,
        // | its row or its SK's row gone | KeyNotFound |
        Waited::Gone => Next::Fail,
        // | failure or no answer | use while age ≤ interval + max_stale_decrypt |
        Waited::Failed(_) | Waited::NoAnswer => Next::UseCached { is_logged: true },
        Waited::NotAtAll => Next::UseCached { is_logged: false },
    }
}

/// T5: whether a key may decrypt that is at hand, and, asked again, whether one that was loaded may. "Deny:
/// `KeyRevoked`; Warn: warn and go on; Allow, the default: go on. Expired keys decrypt."
pub(crate) const fn admit(is_revoked: bool, policy: RevokedDecrypt) -> Admittance {
    match policy {
        RevokedDecrypt::Warn if is_revoked => Admittance::Warned,
        RevokedDecrypt::Deny if is_revoked => Admittance::Denied,
        RevokedDecrypt::Allow | RevokedDecrypt::Warn | RevokedDecrypt::Deny => Admittance::Granted,
    }
}

#[cfg(test)]
mod tests;
