//! Shamir's secret sharing over GF(256), of a key.
//!
//! The field, the polynomials and their interpolation are those of `vsss-rs`. Its generator of
//! randomness cannot fail, and ours can; so the coefficients are drawn here, all of them in one draw.

use claviger::{RandomError, SecretKey, SecureRandom};
use vsss_rs::{DefaultShare, Gf256, IdentifierGf256, Polynomial as _, ReadableShareSet as _};
use zeroize::Zeroizing;

use crate::clv1::MEMBERS_MAX;

const KEY_BYTES: usize = 32;

/// A point of the polynomial; or, in a polynomial, the crate's pair of a coefficient (as its
/// identifier) and the value at 0 (as the first one's value).
type Point = DefaultShare<IdentifierGf256, IdentifierGf256>;

/// What a member holds of a key: the values at `x` of its bytes' polynomials.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) x: u8,
    pub(super) y: SecretKey,
}

/// Splits `secret` into `n` shares at 1 to `n`. Any `k` of them give it back, and fewer say nothing
/// of it.
pub(super) fn split(
    secret: &SecretKey,
    k: u8,
    n: u8,
    random: &dyn SecureRandom,
) -> Result<Vec<SecretKey>, RandomError> {
    let mut drawn = Zeroizing::new(vec![0; KEY_BYTES * usize::from(k.saturating_sub(1))]);
    random.fill(&mut drawn)?;
    (1..=n)
        .map(|x| {
            SecretKey::try_init(|share| {
                for (place, (value, secret)) in share.iter_mut().zip(secret.expose_secret()).enumerate() {
                    // Any byte is a coefficient, 0 too: else the shares would tell of the secret.
                    let coefficients = drawn.chunks_exact(KEY_BYTES).filter_map(|row| row.get(place));
                    *value = evaluate(*secret, coefficients, k, x);
                }
                Ok(())
            })
        })
        .collect()
}

fn evaluate<'a>(secret: u8, coefficients: impl Iterator<Item = &'a u8>, k: u8, x: u8) -> u8 {
    let mut polynomial = Zeroizing::new([Point::default(); MEMBERS_MAX]);
    let [first, others @ ..] = &mut *polynomial;
    first.value = element(secret);
    for (point, coefficient) in others.iter_mut().zip(coefficients) {
        point.identifier = element(*coefficient);
    }
    let mut value = IdentifierGf256::ZERO;
    polynomial.evaluate_in_place(&element(x), usize::from(k), &mut value);
    value.0.0
}

/// Returns what the shares have at 0; `None` if they are fewer than two, or two lie at one place. It
/// is the secret if they are at least as many as `k` was, and no other ones.
pub(super) fn combine<'a>(shares: impl Iterator<Item = &'a Share> + Clone) -> Option<SecretKey> {
    let combined = SecretKey::try_init(|secret| {
        let mut points = Zeroizing::new(Vec::with_capacity(MEMBERS_MAX));
        for (place, byte) in secret.iter_mut().enumerate() {
            points.clear();
            points.extend(shares.clone().filter_map(|share| {
                let y = share.y.expose_secret().get(place)?;
                Some(Point { identifier: element(share.x), value: element(*y) })
            }));
            *byte = points.combine()?.0.0;
        }
        Ok::<(), vsss_rs::Error>(())
    });
    combined.ok()
}

const fn element(byte: u8) -> IdentifierGf256 {
    IdentifierGf256(Gf256(byte))
}

#[cfg(test)]
mod tests;
