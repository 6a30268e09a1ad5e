//! The race for enough shares that fit together.

use claviger::{BackendError, CallContext, FailureClass, KeyMeta, SecretKey};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::shamir::{self, Share};
use crate::clv1::Envelope;
use crate::copies::CopyFailures;
use crate::members::Members;

/// Asks all members for their shares, and returns the key as soon as `k` of them open it.
///
/// # Cancel safety
/// All calls are dropped where they stand, as those are that are not needed any more.
pub(super) async fn open(
    members: &Members,
    envelope: &Envelope,
    meta: &KeyMeta,
    context: &CallContext,
) -> Result<SecretKey, BackendError> {
    let mut running: FuturesUnordered<_> = members
        .with_copies(envelope)
        .map(|(member, copy)| async move {
            (&**member.name(), copy.x, member.unwrap(&copy.copy, meta, context).await)
        })
        .collect();
    let mut shares = Shares { k: usize::from(envelope.k), came: Vec::new() };
    let mut failures = CopyFailures::default();
    while let Some((name, x, answer)) = running.next().await {
        match answer {
            Err(error) => failures.add(name, error),
            Ok(y) => {
                shares.came.push((name, Share { x, y }));
                if let Some((key, fitting)) = shares.open(members, envelope)? {
                    shares.tell_misfits(fitting);
                    return Ok(key);
                }
            }
        }
    }
    Err(shares.too_few(failures))
}

/// The shares that came, in the order they did.
struct Shares<'a> {
    k: usize,
    came: Vec<(&'a str, Share)>,
}

/// Some of the shares that came: bit `n` is set if the `n`-th is among them.
type Subset = u16;

impl Shares<'_> {
    /// Tries every subset of `k` in which the newest share is; the others were tried when it had not
    /// come yet.
    fn open(
        &self,
        members: &Members,
        envelope: &Envelope,
    ) -> Result<Option<(SecretKey, Subset)>, BackendError> {
        let Some(newest) = self.came.len().checked_sub(1) else { return Ok(None) };
        for earlier in 0..1 << newest {
            let subset: Subset = earlier | 1 << newest;
            if subset.count_ones() as usize != self.k {
                continue;
            }
            let Some(wrapping_key) = shamir::combine(self.of(subset)) else { continue };
            match members.open(&wrapping_key, &envelope.sealed) {
                Ok(key) => return Ok(Some((key, subset))),
                Err(error) if error.class() == FailureClass::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn of(&self, subset: Subset) -> impl Iterator<Item = &Share> + Clone {
        self.came
            .iter()
            .enumerate()
            .filter_map(move |(place, (_, share))| (subset >> place & 1 == 1).then_some(share))
    }

    /// Tells the operator of the shares that came and were passed over: `k` that fit open the envelope
    /// as soon as they are there, so the others do not. That enough of them made up for these hides that
    /// a member, or the envelope, is damaged.
    fn tell_misfits(&self, fitting: Subset) {
        for (place, (name, _)) in self.came.iter().enumerate() {
            if fitting >> place & 1 == 0 {
                CopyFailures::default().add(name, BackendError::damaged(Misfit));
            }
        }
    }

    /// Says why no subset opened the envelope. It may open later only if enough of the members that
    /// brought nothing may bring something then.
    fn too_few(self, failures: CopyFailures) -> BackendError {
        let later = failures.count(FailureClass::Transient);
        let is_damaged = self.came.len() >= self.k || failures.count(FailureClass::Damaged) > 0;
        let is_transient = later > 0 && self.came.len() + later >= self.k;
        let class = if is_transient {
            FailureClass::Transient
        } else if is_damaged {
            FailureClass::Damaged
        } else {
            FailureClass::Permanent
        };
        let kind = failures.kind();
        let was_asked = !self.came.is_empty() || failures.was_asked();
        let error = BackendError::new(class, TooFew { came: self.came.len(), k: self.k, failures });
        let error = error.with_kind(kind);
        if was_asked { error } else { error.not_asked() }
    }
}

/// A share is not the one that was made for the envelope.
#[derive(Debug, thiserror::Error)]
#[error("its share does not fit those of the others")]
struct Misfit;

/// No `k` shares opened the envelope.
#[derive(Debug, thiserror::Error)]
#[error("{came} shares came, no {k} of which open the envelope")]
struct TooFew {
    came: usize,
    k: usize,
    #[source]
    failures: CopyFailures,
}
