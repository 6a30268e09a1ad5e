use std::sync::Mutex;

use claviger::testing::{FailingRandom, SeededRandom};
use claviger::{RandomError, SystemRandom};
use proptest::prelude::*;

use super::*;

fn key(bytes: [u8; 32]) -> SecretKey {
    let Ok(key) = SecretKey::try_init(|key| {
        *key = bytes;
        Ok::<(), std::convert::Infallible>(())
    });
    key
}

/// Hands out these bytes, once.
#[derive(Debug)]
struct Script(Mutex<Vec<u8>>);

impl Script {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Mutex::new(bytes.into()))
    }
}

impl SecureRandom for Script {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let script = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(script.len(), bytes.len(), "one draw of all coefficients");
        bytes.copy_from_slice(&script);
        Ok(())
    }
}

/// Multiplies in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, as on paper.
fn times(a: u8, b: u8) -> u8 {
    let mut product = 0_u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            product ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product >> bit & 1 == 1 {
            product ^= 0x11b << (bit - 8);
        }
    }
    u8::try_from(product).unwrap()
}

/// `c0 + c1 x + c2 x^2 + …`, power by power.
fn polynomial_at(coefficients: &[u8], x: u8) -> u8 {
    let mut power = 1;
    let mut sum = 0;
    for coefficient in coefficients {
        sum ^= times(*coefficient, power);
        power = times(power, x);
    }
    sum
}

#[test]
fn shares_are_the_values_of_the_polynomials_computed_by_hand() {
    // AES's own example: {57} · {83} = {c1}.
    assert_eq!(times(0x57, 0x83), 0xc1);
    for k in 2..=10_u8 {
        let secret: [u8; 32] = std::array::from_fn(|place| u8::try_from(place * 7 + 3).unwrap());
        let drawn: Vec<u8> =
            (0..32 * usize::from(k - 1)).map(|i| u8::try_from(i * 31 % 256).unwrap()).collect();
        let shares = split(&key(secret), k, 10, &Script::new(drawn.clone())).unwrap();
        assert_eq!(shares.len(), 10);
        for (x, share) in (1..).zip(&shares) {
            for (place, value) in share.expose_secret().iter().enumerate() {
                let mut coefficients = vec![secret[place]];
                coefficients.extend(drawn.chunks(32).map(|row| row[place]));
                assert_eq!(*value, polynomial_at(&coefficients, x), "k {k}, x {x}, byte {place}");
            }
        }
    }
}

#[test]
fn shares_of_a_known_answer() {
    // f(x) = {42} + {a5} x + {3c} x^2 in each byte, worked out apart from this program.
    let drawn = [[0xa5; 32], [0x3c; 32]].concat();
    let shares = split(&key([0x42; 32]), 3, 5, &Script::new(drawn)).unwrap();
    for (share, known) in shares.iter().zip([0xdb, 0xe3, 0x7a, 0x0d, 0x94]) {
        assert_eq!(share.expose_secret(), &[known; 32]);
    }
}

fn subsets(n: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..1_u16 << n).map(move |mask| (1..=n).filter(|x| mask >> (x - 1) & 1 == 1).collect())
}

fn shares_at(xs: &[u8], shares: &[SecretKey]) -> Vec<Share> {
    xs.iter().map(|x| Share { x: *x, y: key(*shares[usize::from(*x) - 1].expose_secret()) }).collect()
}

#[test]
fn every_subset_of_k_or_more_gives_the_secret_and_no_smaller_one_does() {
    let secret = SecretKey::generate(&SystemRandom::new()).unwrap();
    for n in 2..=7_u8 {
        for k in 2..=n {
            let shares = split(&secret, k, n, &SystemRandom::new()).unwrap();
            for subset in subsets(n) {
                let combined = combine(shares_at(&subset, &shares).iter());
                let is_secret =
                    combined.as_ref().is_some_and(|key| key.expose_secret() == secret.expose_secret());
                assert_eq!(is_secret, subset.len() >= usize::from(k), "{subset:?}, {k} of {n}");
                assert_eq!(combined.is_none(), subset.len() < 2);
            }
        }
    }
}

#[test]
fn two_shares_at_one_place_are_no_secret() {
    let share = || Share { x: 1, y: key([7; 32]) };
    assert!(combine([share(), share()].iter()).is_none());
    assert!(combine([share(), Share { x: 0, y: key([7; 32]) }].iter()).is_none());
}

/// Not statistics, all of it: over all coefficients there are, `k - 1` shares take every value they can
/// take exactly once, whatever the secret is. So they say nothing of it.
#[test]
fn k_minus_one_shares_are_independent_of_the_secret_exactly() {
    for secret in [0x00, 0x01, 0x5a, 0xff] {
        for x in 0..5 {
            let mut seen = [0_u32; 256];
            for row in all_bytes().chunks(32) {
                let shares = split(&key([secret; 32]), 2, 5, &Script::new(row)).unwrap();
                shares[x].expose_secret().iter().for_each(|byte| seen[usize::from(*byte)] += 1);
            }
            assert!(seen.iter().all(|times| *times == 1), "secret {secret}, share {x}");
        }
    }
    for (secret, [a, b]) in [(0x00, [0, 1]), (0x5a, [1, 4]), (0xff, [0, 4])] {
        let mut seen = vec![0_u32; 256 * 256];
        for first in all_bytes() {
            for row in all_bytes().chunks(32) {
                let drawn = [&[first; 32], row].concat();
                let shares = split(&key([secret; 32]), 3, 5, &Script::new(drawn)).unwrap();
                for (one, other) in shares[a].expose_secret().iter().zip(shares[b].expose_secret()) {
                    seen[usize::from(*one) * 256 + usize::from(*other)] += 1;
                }
            }
        }
        assert!(seen.iter().all(|times| *times == 1), "secret {secret}, shares {a} and {b}");
    }
}

fn all_bytes() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

/// As drawn by a generator: 128 KiB of one share, of a fixed secret, are as uniform as noise is. With
/// 255 degrees of freedom chi-square is 255 on average, 22.6 its standard deviation.
#[test]
fn shares_of_a_fixed_secret_look_like_noise() {
    const SPLITS: u32 = 4096;
    let random = SeededRandom::new(11);
    let secret = key([0; 32]);
    let mut seen = vec![[0_u32; 256]; 5];
    for _ in 0..SPLITS {
        let shares = split(&secret, 3, 5, &random).unwrap();
        for (seen, share) in seen.iter_mut().zip(&shares) {
            share.expose_secret().iter().for_each(|byte| seen[usize::from(*byte)] += 1);
        }
    }
    let expected = f64::from(SPLITS * 32) / 256.0;
    for seen in seen {
        let chi_square: f64 =
            seen.iter().map(|times| (f64::from(*times) - expected).powi(2) / expected).sum();
        assert!((150.0..400.0).contains(&chi_square), "{chi_square}");
    }
}

#[test]
fn a_failed_draw_is_an_error_and_there_is_one_draw() {
    let secret = key([1; 32]);
    assert!(split(&secret, 3, 5, &FailingRandom::new(SystemRandom::new(), 1)).is_err());
    assert!(split(&secret, 3, 5, &FailingRandom::new(SystemRandom::new(), 2)).is_ok());
}

proptest! {
    #[test]
    fn any_k_shares_in_any_order_give_the_secret(
        secret in any::<[u8; 32]>(),
        (k, n) in (2..=10_u8).prop_flat_map(|n| (2..=n, Just(n))),
        order in Just((0..10_u8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let shares = split(&key(secret), k, n, &SystemRandom::new()).unwrap();
        let chosen: Vec<u8> = order.iter().filter(|x| **x < n).take(k.into()).map(|x| x + 1).collect();
        let combined = combine(shares_at(&chosen, &shares).iter()).unwrap();
        prop_assert!(*combined.expose_secret() == secret);
    }

    #[test]
    fn one_wrong_byte_in_any_share_gives_another_key(
        secret in any::<[u8; 32]>(), wrong in 0..3_usize, place in 0..32_usize, flip in 1..=u8::MAX,
    ) {
        let shares = split(&key(secret), 3, 3, &SystemRandom::new()).unwrap();
        let mut forged = shares_at(&[1, 2, 3], &shares);
        let mut bytes = *forged[wrong].y.expose_secret();
        bytes[place] ^= flip;
        forged[wrong].y = key(bytes);
        let combined = combine(forged.iter()).unwrap();
        let differing = combined.expose_secret().iter().zip(secret).filter(|(a, b)| **a != *b).count();
        prop_assert_eq!(differing, 1);
    }
}
