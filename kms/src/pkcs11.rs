//! A hardware security module, by its PKCS#11 library.

mod error;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod mechanisms;
mod pool;
mod token;
mod wrap;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use claviger::{BackendError, CallContext, KeyManagementService, KeyMeta, SecretKey, WrapHealth, WrappedKey};
use secrecy::SecretString;

use error::Pkcs11Error;
use format::{LABEL_BYTES_MAX, Method, Wrapped};
pub use mechanisms::Pkcs11Mechanism;
use pool::Pool;
use token::Token;

/// Wraps system keys under an AES key that never leaves a hardware security module.
///
/// The module is spoken to by the PKCS#11 library of its maker, which is loaded into this process.
/// The token is found by its label, since slots are numbered anew at will, and in it the one AES-256
/// key of a label, which must not be extractable and must be sensitive. For instance:
///
/// ```text
/// softhsm2-util --init-token --free --label claviger
/// pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label claviger --login \
///     --keygen --key-type AES:32 --label system-keys-1 --sensitive
/// # AWS CloudHSM
/// key generate-symmetric aes --label system-keys-1 --key-length-bytes 32 \
///     --attributes token=true extractable=false encrypt=true decrypt=true wrap=true unwrap=true
/// # nShield
/// generatekey pkcs11 type=AES size=256 plainname=system-keys-1 protect=softcard
/// ```
///
/// # How keys are wrapped
/// With **AES-KWP** (NIST SP 800-38F, RFC 5649), else with **AES-GCM** (NIST SP 800-38D). Which one
/// works with this token and this key is tried out by [`open`](Pkcs11KmsBuilder::open), unless
/// [`mechanism`](Pkcs11KmsBuilder::mechanism) says; what either has wrapped is unwrapped always.
///
/// - AES-KWP is asked for as `CKM_AES_KEY_WRAP_PAD`, as `SoftHSM` calls it, and by the names that Luna
///   and CloudHSM have for it; not as `CKM_AES_KEY_WRAP_KWP`, which the `cryptoki` crate cannot say
///   yet, so that nShield gets AES-GCM. A token that encrypts with it is made to encrypt. Of one
///   that only wraps keys with it (`SoftHSM`, CloudHSM), a system key is an object of a session for
///   the one call, private, and destroyed after it, also after errors; the token must allow that.
/// - AES-GCM has a random 96-bit IV of the operating system's. A token that insists on an IV of its
///   own (CloudHSM) writes it over ours, and that is what is stored.
/// - A token that can do neither, as `YubiHSM` 2, does not serve.
///
/// All this is tested on `SoftHSM` 2.6; of other tokens it is what their makers' documents say.
///
/// What is stored is `P11`, a version, the mechanism, the label of the key, and what the token
/// made: some 50 bytes, or 70 with AES-GCM. No Asherah reads it. With AES-GCM all of it is
/// authenticated; with AES-KWP what comes before is checked byte for byte.
///
/// # Rotation of the master key
/// Make a key of another label, name it as the key here, and the old one with
/// [`previous_key`](Pkcs11KmsBuilder::previous_key): it goes on to unwrap, and wraps no more.
///
/// # Threads, deadlines and outages
/// Calls run on threads that this KMS owns, one for each session, and wait for them in a bounded
/// queue. A call that is dropped before its turn is not made; the answer to a call that is dropped
/// later is wiped. A module that hangs keeps the thread of that call until it returns, and its
/// caller has a transient error at the deadline; when all threads hang so, all calls end at the
/// deadline or are refused at once. When this is dropped, the threads end with the call that they
/// are in; dropping waits for that, half a second at most, for a process had better not end while
/// a module works in it. What then hangs still is left behind.
///
/// When the token was removed, reset or restarted, the next call finds its slot by label again,
/// opens a session, logs in, finds the keys and tries once more. **A PIN that was refused is never
/// tried again**, since tokens lock themselves: all further calls that would need a login fail for
/// good, until the KMS is opened anew. A supervisor that starts the service over and over tries it
/// each time.
///
/// A module is initialised once in a process (`C_Initialize`) and never finalised. It is its maker's
/// code in this process, and takes it along when it crashes. After a fork the child says so in its
/// errors; it opens a KMS of its own.
///
/// # Copies of keys
/// What passes through here is wiped. What cannot be: the memory of the PKCS#11 library itself, and
/// with a token that only wraps keys, one copy that the `cryptoki` crate makes when it reads
/// `CKA_VALUE`.
#[derive(Debug)]
pub struct Pkcs11Kms {
    pool: Pool,
    method: Method,
}

/// Says which token and key a [`Pkcs11Kms`] wraps with.
#[derive(Debug)]
#[must_use]
pub struct Pkcs11KmsBuilder {
    module: PathBuf,
    token_label: String,
    keys: Vec<String>,
    pin: Option<SecretString>,
    sessions: usize,
    mechanism: Pkcs11Mechanism,
    takes_extractable_keys: bool,
}

/// By the standard.
const TOKEN_LABEL_BYTES_MAX: usize = 32;
const SESSIONS: usize = 4;
const SESSIONS_MAX: usize = 256;
/// Loading a module, and the first login over a network, take longer than a call.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

impl Pkcs11Kms {
    /// Begins with the path of the PKCS#11 library, the label of the token, and that of the key
    /// (`CKA_LABEL`).
    pub fn builder(
        module: impl Into<PathBuf>,
        token_label: impl Into<String>,
        key_label: impl Into<String>,
    ) -> Pkcs11KmsBuilder {
        Pkcs11KmsBuilder {
            module: module.into(),
            token_label: token_label.into(),
            keys: vec![key_label.into()],
            pin: None,
            sessions: SESSIONS,
            mechanism: Pkcs11Mechanism::default(),
            takes_extractable_keys: false,
        }
    }

    /// Returns the mechanism that wraps keys: never [`Pkcs11Mechanism::Auto`].
    #[must_use]
    pub const fn mechanism(&self) -> Pkcs11Mechanism {
        match self.method {
            Method::AesKwp => Pkcs11Mechanism::AesKwp,
            Method::AesGcm => Pkcs11Mechanism::AesGcm,
        }
    }
}

impl Pkcs11KmsBuilder {
    /// Logs in with this PIN, as the user `CKU_USER`. For CloudHSM it is `user:password`.
    pub fn pin(mut self, pin: SecretString) -> Self {
        self.pin = Some(pin);
        self
    }

    /// Has so many sessions, and as many threads; 4 by default.
    pub const fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = sessions;
        self
    }

    /// Wraps with this mechanism.
    pub const fn mechanism(mut self, mechanism: Pkcs11Mechanism) -> Self {
        self.mechanism = mechanism;
        self
    }

    /// Names a key that may still unwrap what it wrapped; it never wraps. Said for each of several.
    pub fn previous_key(mut self, label: impl Into<String>) -> Self {
        self.keys.push(label.into());
        self
    }

    /// Takes keys that the token would give out, wrapped or in the clear: then it protects little.
    pub const fn danger_extractable_key(mut self, allowed: bool) -> Self {
        self.takes_extractable_keys = allowed;
        self
    }

    /// Connects to the token, and tries out the mechanism with a key that is thrown away. All this
    /// has 30 seconds.
    ///
    /// # Errors
    /// Permanent: a configuration that cannot serve, a module that cannot be loaded, a refused PIN,
    /// a key that is missing, not unique or not fit, no mechanism. Transient: no such token, a
    /// device in trouble, no answer in time.
    ///
    /// # Cancel safety
    /// What was begun is undone, at the latest when the module returns.
    pub async fn open(self) -> Result<Pkcs11Kms, BackendError> {
        Ok(self.try_open().await?)
    }

    async fn try_open(self) -> Result<Pkcs11Kms, Pkcs11Error> {
        self.check()?;
        let token = Token {
            module: self.module,
            label: self.token_label,
            pin: self.pin.ok_or(Pkcs11Error::Config("there is no PIN"))?,
            keys: self.keys,
            takes_extractable_keys: self.takes_extractable_keys,
            pin_refused: OnceLock::new(),
            was_complete: AtomicBool::new(false),
        };
        let pool = Pool::new(token, self.sessions).map_err(Pkcs11Error::Thread)?;
        let mechanism = self.mechanism;
        let context = CallContext::within(OPEN_DEADLINE);
        let method = pool.call(&context, move |connection| connection.choose(mechanism)).await?;
        Ok(Pkcs11Kms { pool, method })
    }

    fn check(&self) -> Result<(), Pkcs11Error> {
        let token = &self.token_label;
        let reason = if token.is_empty() || token.len() > TOKEN_LABEL_BYTES_MAX || token.contains('\0') {
            "the label of a token has 1 to 32 bytes, none of them zero"
        } else if self.keys.iter().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
            "the label of a key has 1 to 255 bytes"
        } else if self
            .keys
            .iter()
            .enumerate()
            .any(|(n, label)| self.keys.iter().skip(n + 1).any(|l| l == label))
        {
            "the label of a key is named twice"
        } else if !(1..=SESSIONS_MAX).contains(&self.sessions) {
            "there are 1 to 256 sessions"
        } else {
            return Ok(());
        };
        Err(Pkcs11Error::Config(reason))
    }
}

impl KeyManagementService for Pkcs11Kms {
    /// Wraps under the key in use.
    ///
    /// # Cancel safety
    /// A call that has not begun is not made; the answer of one that has is dropped.
    async fn wrap_key(
        &self,
        key: &SecretKey,
        _meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let method = self.method;
        let key = copy(key);
        let wrapped = self.pool.call(context, move |connection| connection.wrap(method, &key)).await?;
        Ok(WrappedKey::new(wrapped.into_bytes()))
    }

    /// Unwraps by the key that the wrapped key names, if it was configured.
    ///
    /// # Cancel safety
    /// As of `wrap_key`; a key that nobody waits for is wiped.
    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        _meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let usual = self.method;
        let wrapped = Wrapped::parse(wrapped).map_err(refused)?;
        if !self.pool.token().keys.contains(&wrapped.label) {
            return Err(refused(Pkcs11Error::UnknownKey(wrapped.label)));
        }
        Ok(self.pool.call(context, move |connection| connection.unwrap(usual, &wrapped)).await?)
    }

    /// Names the key that wrapped it. A key that was not configured is no copy.
    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        let wrapped = Wrapped::parse(wrapped).map_err(refused)?;
        let keys = &self.pool.token().keys;
        Ok(if keys.contains(&wrapped.label) {
            WrapHealth::new(vec![wrapped.label], Vec::new())
        } else {
            WrapHealth::new(Vec::new(), keys.first().cloned().into_iter().collect())
        })
    }
}

/// The error of a call that has not asked the token yet.
fn refused(fault: Pkcs11Error) -> BackendError {
    BackendError::from(fault).not_asked()
}

/// A key for another thread to work with: the caller may take its own away meanwhile.
fn copy(key: &SecretKey) -> SecretKey {
    let Ok(copy) = SecretKey::try_init(|bytes| {
        *bytes = *key.expose_secret();
        Ok::<_, std::convert::Infallible>(())
    });
    copy
}
