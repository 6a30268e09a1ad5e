//! A KMS that is one key given by the caller.

use claviger_memory::LockPolicy;

use crate::context::CallContext;
use crate::error::{BackendError, FailureKind};
use crate::kms::key_wrap::KeyWrap;
use crate::kms::{KeyManagementService, WrapHealth, WrappedKey};
use crate::random::{SecureRandom, SystemRandom};
use crate::record::KeyMeta;
use crate::secret::{KEY_BYTES, SecretKey};

/// Wraps system keys under a master key that the caller supplies, as Asherah's static KMS does:
/// AES-256-GCM, `ciphertext ‖ tag ‖ nonce`.
///
/// Whoever reads the caller's configuration reads everything, so it is for tests and for
/// deployments whose secret store is good enough to be the root of trust. The master key lies in
/// protected memory.
#[derive(Debug)]
pub struct StaticKms {
    master_key: KeyWrap,
    random: Box<dyn SecureRandom>,
}

/// The master key of Asherah's documentation and tests, which anybody knows.
const KNOWN_TEST_KEY: &[u8; KEY_BYTES] = b"thisIsAStaticMasterKeyForTesting";

impl StaticKms {
    /// Wraps under `master_key`, which lies in memory that is locked if that is possible.
    ///
    /// # Errors
    /// Permanent, of the kind [`Settings`](FailureKind::Settings), when the key is the well-known test key or one
    /// byte repeated; transient when protected memory cannot be had.
    pub fn new(master_key: &SecretKey) -> Result<Self, BackendError> {
        Self::with_lock_policy(master_key, LockPolicy::Prefer)
    }

    /// Wraps under `master_key`, whose memory is locked as told: a factory whose policy requires locked memory
    /// takes no other KMS than one that does, too.
    ///
    /// # Errors
    /// As [`new`](Self::new); transient, too, when the memory cannot be locked and must be.
    pub fn with_lock_policy(master_key: &SecretKey, locks: LockPolicy) -> Result<Self, BackendError> {
        let bytes = master_key.expose_secret();
        if bytes == KNOWN_TEST_KEY {
            return Err(guessed("the static master key is the well-known test key"));
        }
        if bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(guessed("the static master key is one byte repeated"));
        }
        Self::under(master_key, locks)
    }

    /// Wraps under `master_key`, were it the well-known test key: for tests and for reading test
    /// data.
    ///
    /// # Errors
    /// Transient when protected memory cannot be had.
    pub fn danger_any_key(master_key: &SecretKey) -> Result<Self, BackendError> {
        Self::under(master_key, LockPolicy::Prefer)
    }

    fn under(master_key: &SecretKey, locks: LockPolicy) -> Result<Self, BackendError> {
        Ok(Self { master_key: KeyWrap::new(master_key, locks)?, random: Box::new(SystemRandom::new()) })
    }

    /// Draws nonces from `random` instead of the operating system.
    #[must_use]
    pub fn random(mut self, random: impl SecureRandom) -> Self {
        self.random = Box::new(random);
        self
    }
}

fn guessed(reason: &'static str) -> BackendError {
    BackendError::permanent(reason).with_kind(FailureKind::Settings).not_asked()
}

impl KeyManagementService for StaticKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        Ok(WrappedKey::new(self.master_key.seal(key, &*self.random)?))
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.master_key.open(wrapped)
    }

    fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Ok(WrapHealth::new(vec!["static".to_owned()], Vec::new()))
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        Some(self.master_key.lock_policy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_anybody_could_guess_are_refused() {
        let key = |bytes: [u8; KEY_BYTES]| {
            SecretKey::try_init(|room| {
                room.copy_from_slice(&bytes);
                Ok::<_, BackendError>(())
            })
            .unwrap()
        };
        for guessed in [*KNOWN_TEST_KEY, [0; KEY_BYTES], [7; KEY_BYTES]] {
            let refused = StaticKms::new(&key(guessed)).unwrap_err();
            assert_eq!(refused.kind(), Some(FailureKind::Settings));
            assert!(StaticKms::danger_any_key(&key(guessed)).is_ok());
        }
        let mut nearly = [7; KEY_BYTES];
        nearly[KEY_BYTES - 1] = 8;
        assert!(StaticKms::new(&key(nearly)).is_ok());
    }
}
