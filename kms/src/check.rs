//! Whether a service can do its work now, and how long it takes.

use std::time::Duration;

use claviger::{
    BackendError, CallContext, Clock, Created, KeyId, KeyManagementService, KeyMeta, SecretKey, SystemClock,
    SystemRandom,
};

/// How a service, or one of its copies, did when it was tried.
#[derive(Debug)]
#[non_exhaustive]
pub struct CopyCheck {
    /// The service's name for the copy: a region, a member.
    pub name: String,
    /// How long a wrap took, or why there was none.
    pub wrap: Result<Duration, BackendError>,
    /// How long it took to unwrap what was wrapped, or why it could not be. `None` if there was
    /// nothing to unwrap.
    pub unwrap: Option<Result<Duration, BackendError>>,
}

impl CopyCheck {
    /// Returns `true` if both calls did their work.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.wrap.is_ok() && matches!(self.unwrap, Some(Ok(_)))
    }
}

/// Wraps and unwraps a key that is made for this, and thrown away.
///
/// A service that keeps several copies may do so while one of them fails; its own `check` tries
/// each. The wrap may take half the time that `context` leaves.
pub async fn check(
    name: impl Into<String>,
    kms: &impl KeyManagementService,
    context: &CallContext,
) -> CopyCheck {
    let name = name.into();
    let clock = SystemClock::new();
    let meta = KeyMeta::new(KeyId::new("_SK_check_claviger"), Created::MIN);
    let key = match SecretKey::generate(&SystemRandom::new()) {
        Ok(key) => key,
        Err(error) => return CopyCheck { name, wrap: Err(BackendError::transient(error)), unwrap: None },
    };
    let begun = clock.monotonic();
    let wrapped = match kms.wrap_key(&key, &meta, &context.share(2)).await {
        Ok(wrapped) => wrapped,
        Err(error) => return CopyCheck { name, wrap: Err(error), unwrap: None },
    };
    let between = clock.monotonic();
    let unwrapped = kms.unwrap_key(wrapped.bytes(), &meta, context).await;
    let unwrap = unwrapped.and_then(|unwrapped| {
        if unwrapped.expose_secret() == key.expose_secret() {
            Ok(clock.monotonic().saturating_sub(between))
        } else {
            Err(BackendError::damaged(AnotherKey))
        }
    });
    CopyCheck { name, wrap: Ok(between.saturating_sub(begun)), unwrap: Some(unwrap) }
}

/// What was unwrapped is not what was wrapped.
#[derive(Debug)]
struct AnotherKey;

impl std::fmt::Display for AnotherKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another key was unwrapped than was wrapped")
    }
}

impl std::error::Error for AnotherKey {}
