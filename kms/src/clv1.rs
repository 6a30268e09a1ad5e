//! The envelope that several services keep a system key in.
//!
//! `CLV1`, then compact JSON: `{"kind":"k-of-n","k":2,"sealed":"…","copies":[{"member":"aws","x":1,
//! "copy":"…"},…]}`. The system key is sealed under a wrapping key made for this one envelope, and each
//! copy holds a share of that key (of `any-of`, where `k` is 1, the key itself), as its member wrapped it.
//! So the seal binds the copies to each other: what the members answer opens it, or is no answer.
//! Nothing else is authenticated; a reader of an envelope takes neither names nor `k` on trust.

use claviger::BackendError;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    /// How many copies open it.
    pub(crate) k: u8,
    #[serde(with = "base64")]
    pub(crate) sealed: Vec<u8>,
    pub(crate) copies: Vec<MemberCopy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[serde(rename = "any-of")]
    AnyOf,
    #[serde(rename = "k-of-n")]
    KOfN,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberCopy {
    pub(crate) member: String,
    /// Where the share lies on the polynomial: the member's place when it was wrapped, from 1.
    pub(crate) x: u8,
    #[serde(with = "base64")]
    pub(crate) copy: Vec<u8>,
}

/// The most members there may be. Of 10 shares there are at most 252 subsets of any one size, so
/// that all can be tried.
pub(crate) const MEMBERS_MAX: usize = 10;

/// Base64 of this many bytes, and the rest of a key record, fit into the 65 535 bytes of a `TEXT`.
const ENVELOPE_BYTES_MAX: usize = 48_000;

const NAME_BYTES_MAX: usize = 64;

/// The brace keeps the chance that bytes wrapped at random begin like this to one in 2^40.
const START: &[u8] = b"CLV1{";
const PREFIX: &[u8] = b"CLV1";

/// What begins as an envelope is not one that was ever written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the CLV1 envelope is over {ENVELOPE_BYTES_MAX} bytes long")]
    TooLong,
    #[error("the CLV1 envelope is not as it is written")]
    Form,
    #[error("the CLV1 envelope contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Malformed {
    /// The error of a call that was given it, and has asked nobody yet.
    pub(crate) fn refused(self) -> BackendError {
        BackendError::damaged(self).not_asked()
    }
}

impl Envelope {
    /// Reads an envelope; `None` if the bytes are none.
    ///
    /// It is taken only as [`to_bytes`](Self::to_bytes) writes it, to the byte, so that one envelope
    /// has one form.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        if !bytes.starts_with(START) {
            return Ok(None);
        }
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let json = bytes.get(PREFIX.len()..).unwrap_or_default();
        // The parser's error may show what it stopped at.
        let envelope: Self = serde_json::from_slice(json).map_err(|_error| Malformed::Form)?;
        if envelope.to_bytes()? != bytes {
            return Err(Malformed::Form);
        }
        envelope.check()?;
        Ok(Some(envelope))
    }

    /// Writes the envelope.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = PREFIX.to_vec();
        serde_json::to_writer(&mut bytes, self).map_err(|_error| Malformed::Form)?;
        if bytes.len() > ENVELOPE_BYTES_MAX { Err(Malformed::TooLong) } else { Ok(bytes) }
    }

    pub(crate) fn copy_of(&self, member: &str) -> Option<&MemberCopy> {
        self.copies.iter().find(|copy| copy.member == member)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        self.copies.iter().map(|copy| copy.member.as_str())
    }

    fn check(&self) -> Result<(), Malformed> {
        let contradicts = |what| Err(Malformed::Contradiction(what));
        if (self.kind == Kind::AnyOf) != (self.k == 1) {
            return contradicts("its kind and its k");
        }
        if self.k == 0 || self.copies.len() < usize::from(self.k) {
            return contradicts("it has fewer copies than open it");
        }
        if self.copies.len() > MEMBERS_MAX {
            return contradicts("it has more copies than there may be members");
        }
        for (place, copy) in self.copies.iter().enumerate() {
            let earlier = self.copies.iter().take(place);
            if copy.x == 0 || earlier.clone().any(|other| other.x == copy.x) {
                return contradicts("two shares lie at one place, or one at that of the key");
            }
            if !is_name(&copy.member) || earlier.clone().any(|other| other.member == copy.member) {
                return contradicts("its members' names");
            }
        }
        Ok(())
    }
}

/// Returns `true` if a member may be called so: short, visible, the same in JSON, and apart from the copies
/// within a member, `member/copy`.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/'))
}

mod base64 {
    use base64_simd::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode_to_string(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        STANDARD.decode_to_vec(text).map_err(|_error| D::Error::custom("no base64"))
    }
}

#[cfg(test)]
mod tests;
