//! A wrapped system key as every Asherah stores it: sealed under a data key, which each region has
//! wrapped.
//!
//! ```json
//! {"encryptedKey":"…","kmsKeks":[{"region":"us-east-1","arn":"arn:aws:kms:…","encryptedKek":"…"}]}
//! ```
//!
//! Fields are written in this order with no white space, binary ones in standard base64 with padding.
//! The first copy is that of the region that made the data key; the others follow as configured. So
//! they stand in what Asherah writes, mostly: it appends them as they come. Readers take them in any
//! order.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use base64_simd::STANDARD;
use serde::{Deserialize, Serialize};

use crate::aws::error::AwsKmsFault;
use crate::object;

/// Far above what sixteen regions need; a store that keeps records in 64 KiB of text holds less.
pub(super) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// How long KMS's ciphertexts are.
pub(super) const KEK_BYTES: RangeInclusive<usize> = 1..=6144;

const REGIONS_SHOWN: usize = 16;
const REGION_CHARS_SHOWN: usize = 32;

/// What is stored.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(rename = "encryptedKey", borrow)]
    encrypted_key: Cow<'a, str>,
    #[serde(rename = "kmsKeks", borrow, deserialize_with = "object::list")]
    copies: Vec<RegionCopy<'a>>,
}

/// The data key as one region's master key wrapped it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegionCopy<'a> {
    #[serde(borrow)]
    pub(super) region: Cow<'a, str>,
    /// For people to read, and for other Asherahs: never what a key is unwrapped with.
    #[serde(borrow)]
    arn: Cow<'a, str>,
    #[serde(rename = "encryptedKek", borrow)]
    encrypted_kek: Cow<'a, str>,
}

impl<'a> Envelope<'a> {
    pub(super) fn new(encrypted_key: &[u8], copies: Vec<RegionCopy<'a>>) -> Self {
        Self { encrypted_key: STANDARD.encode_to_string(encrypted_key).into(), copies }
    }

    /// Writes what [`read`](Self::read) reads, or nothing.
    pub(super) fn write(&self) -> Result<Vec<u8>, AwsKmsFault> {
        #[expect(clippy::map_err_ignore, reason = "text in memory has no reason not to be written")]
        let stored =
            serde_json::to_vec(self).map_err(|_| AwsKmsFault::EnvelopeMalformed("it cannot be written"))?;
        check_length(&stored)?;
        Ok(stored)
    }

    /// Reads what any Asherah wrote: fields in any order, unknown ones left out of account.
    pub(super) fn read(stored: &'a [u8]) -> Result<Self, AwsKmsFault> {
        check_length(stored)?;
        // Why not is left out: serde's errors quote what they do not like.
        #[expect(clippy::map_err_ignore, reason = "it may quote what is stored")]
        let envelope: Self = object::from_slice(stored)
            .map_err(|_| AwsKmsFault::EnvelopeMalformed("it is not the JSON of one"))?;
        if envelope.copies.is_empty() {
            return Err(AwsKmsFault::EnvelopeMalformed("it holds no copies"));
        }
        Ok(envelope)
    }

    /// Returns the sealed system key.
    pub(super) fn encrypted_key(&self) -> Result<Vec<u8>, AwsKmsFault> {
        decode(&self.encrypted_key).ok_or(AwsKmsFault::EnvelopeMalformed("its encryptedKey is not base64"))
    }

    pub(super) fn copies(&self) -> &[RegionCopy<'a>] {
        &self.copies
    }

    /// Names the regions to an operator: some of them, and nothing that a terminal would obey.
    pub(super) fn regions_shown(&self) -> Vec<String> {
        let shown = |copy: &RegionCopy<'_>| {
            copy.region.chars().take(REGION_CHARS_SHOWN).flat_map(char::escape_default).collect()
        };
        self.copies.iter().take(REGIONS_SHOWN).map(shown).collect()
    }
}

impl<'a> RegionCopy<'a> {
    pub(super) fn new(region: &'a str, arn: &'a str, encrypted_kek: &[u8]) -> Self {
        let encrypted_kek = STANDARD.encode_to_string(encrypted_kek).into();
        Self { region: region.into(), arn: arn.into(), encrypted_kek }
    }

    /// Returns the wrapped data key, if it can be one.
    pub(super) fn encrypted_kek(&self) -> Result<Vec<u8>, AwsKmsFault> {
        decode(&self.encrypted_kek)
            .filter(|kek| KEK_BYTES.contains(&kek.len()))
            .ok_or(AwsKmsFault::CopyMalformed)
    }
}

const fn check_length(stored: &[u8]) -> Result<(), AwsKmsFault> {
    match stored.len() {
        0..=ENVELOPE_BYTES_MAX => Ok(()),
        bytes => Err(AwsKmsFault::EnvelopeTooLong { bytes }),
    }
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    STANDARD.decode_to_vec(base64).ok()
}

#[cfg(test)]
mod tests;
