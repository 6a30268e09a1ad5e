//! A static master key: 64 hex digits, in a file or wherever secrets are.

use std::error::Error as _;
use std::path::Path;

use base16ct::mixed;
use claviger::{BackendError, BoxedKms, FailureKind, LockPolicy, SecretKey, StaticKms};
use secrecy::ExposeSecret as _;

use crate::environment::Environment;
use crate::error::{OpenError, SpecError};
use crate::private;
use crate::secret::SecretSource;

/// Where a static master key is.
#[derive(Clone, Debug)]
pub(crate) enum StaticKey {
    Hex(SecretSource),
    /// The 32 characters that Asherah ships for tests. Everybody knows them.
    AsherahsTestKey,
}

impl StaticKey {
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Hex(source) => source.file(),
            Self::AsherahsTestKey => None,
        }
    }

    pub(super) const fn has_secret(&self) -> bool {
        matches!(self, Self::Hex(SecretSource::Here(_)))
    }

    pub(super) fn open(
        &self,
        environment: &Environment,
        danger_known_key: bool,
        locks: LockPolicy,
    ) -> Result<BoxedKms, OpenError> {
        let key = match self {
            Self::Hex(SecretSource::File(path)) => read(path)?,
            Self::Hex(source) => {
                let digits = source.reveal(environment, "the static master key", "its file")?;
                decode(digits.expose_secret().as_bytes()).map_err(|why| {
                    SpecError::wrong(&format!("the static master key is not 64 hex digits: it {why}"))
                })?
            }
            Self::AsherahsTestKey => SecretKey::try_init(|key| {
                key.copy_from_slice(ASHERAHS_TEST_KEY);
                Ok::<_, SpecError>(())
            })?,
        };
        let kms = match StaticKms::with_lock_policy(&key, locks) {
            Err(error) if danger_known_key && is_guessable(&error) => StaticKms::danger_any_key(&key),
            made => made,
        };
        kms.map(BoxedKms::new).map_err(|error| match error.source() {
            Some(reason) if is_guessable(&error) => {
                OpenError::GuessableKey { file: self.file().map(Path::to_owned), reason: reason.to_string() }
            }
            _ => OpenError::Service(error),
        })
    }
}

fn is_guessable(error: &BackendError) -> bool {
    error.kind() == Some(FailureKind::Settings)
}

/// Reads 64 hex digits. What else is in the file is told by its kind, and not repeated.
fn read(path: &Path) -> Result<SecretKey, SpecError> {
    let bytes = private::read(path, "the master key", FILE_BYTES_MAX, "change the key")?;
    decode(&bytes).map_err(|why| {
        let shown = path.display();
        SpecError::wrong(&format!("the master key {shown} is not 64 hex digits: it {why}"))
    })
}

fn decode(bytes: &[u8]) -> Result<SecretKey, String> {
    if bytes.len() == KEY_BYTES && !bytes.is_ascii() {
        return Err("is a raw key of 32 bytes; write it as xxd -p -c 64 does".to_owned());
    }
    let text = private::line(bytes)?;
    SecretKey::try_init(|key| match mixed::decode(text, key) {
        Ok(decoded) if decoded.len() == KEY_BYTES => Ok(()),
        _ => Err(fault(text)),
    })
}

/// Says what a text is that is no key.
fn fault(text: &str) -> String {
    let is_base64 = |letter: u8| letter.is_ascii_alphanumeric() || b"+/-_=".contains(&letter);
    let is_quoted = |quote: char| text.starts_with(quote) && text.ends_with(quote);
    let told = match text {
        _ if text.starts_with(LOCAL) => "is a master key that claviger made; say local:PATH",
        _ if is_quoted('"') || is_quoted('\'') => "stands in quotes; leave them out",
        _ if text.starts_with("0x") || text.starts_with("0X") => "begins with 0x; leave it out",
        _ if text.bytes().all(|letter| letter.is_ascii_hexdigit()) => {
            return format!("has {} of them; write all 64", text.len());
        }
        _ if text.len() == KEY_BYTES => "is a text of 32 characters; write it as xxd -p -c 64 does",
        _ if matches!(text.len(), 43 | 44) && text.bytes().all(is_base64) => {
            "looks like Base64; write the bytes that it stands for as xxd -p -c 64 does"
        }
        _ => "has other characters; write it anew, such as by openssl rand -hex 32",
    };
    told.to_owned()
}

const KEY_BYTES: usize = 32;

const ASHERAHS_TEST_KEY: &[u8; KEY_BYTES] = b"thisIsAStaticMasterKeyForTesting";

/// What a file that `local:` names begins with.
const LOCAL: &str = "claviger-master-key-";

/// The digits and some white space, also in UTF-16.
const FILE_BYTES_MAX: usize = 256;
