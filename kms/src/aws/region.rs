//! One region: its master key, and the three requests that are made of it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use bytes::Bytes;
use claviger::backend::Breaker;
use claviger::{BackendError, CallContext, Clock, KeyMeta, SecretKey};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::aws::envelope::{KEK_BYTES, RegionCopy};
use crate::aws::error::{AwsKmsError, AwsKmsFault, INCORRECT_KEY, INVALID_CIPHERTEXT};
use crate::copies::CopyHolder;

pub(super) struct Region {
    holder: CopyHolder,
    client: Client,
    /// What wraps here: an ARN, an id or an alias.
    key: String,
    /// What may still unwrap here.
    previous: Vec<String>,
    /// Open while the region is asked last, since another answered long before it. Not the holder's,
    /// which would leave out a region that is slow when a key is wrapped for all.
    late: Breaker,
}

/// How long a region that was late is asked last, but for one call.
const LATE_FOR: Duration = Duration::from_secs(1);

/// A data key in the clear, and as a region wrapped it.
pub(super) struct DataKey {
    pub(super) secret: SecretKey,
    pub(super) wrapped: Vec<u8>,
}

/// What KMS binds a data key to.
pub(super) type Context = Option<HashMap<String, String>>;

/// Which encryption contexts a data key may have been wrapped with.
#[derive(Clone, Debug)]
pub(super) struct Contexts {
    /// The one that is asked for first.
    pub(super) bound: Context,
    /// Whether one that was wrapped with none is taken, too.
    pub(super) or_none: bool,
}

/// The names in the encryption context: `claviger-key-id`, the system key's id, and
/// `claviger-created`, its creation in Unix seconds.
pub(super) fn context_of(meta: &KeyMeta) -> Context {
    Some(HashMap::from([
        ("claviger-key-id".to_owned(), meta.id().as_str().to_owned()),
        ("claviger-created".to_owned(), meta.created().to_string()),
    ]))
}

impl Region {
    pub(super) const fn new(holder: CopyHolder, client: Client, key: String, previous: Vec<String>) -> Self {
        Self { holder, client, key, previous, late: Breaker::new(1, LATE_FOR) }
    }

    /// The same region, of which nothing is known yet.
    pub(super) fn afresh(&self) -> Self {
        Self::new(self.holder.afresh(), self.client.clone(), self.key.clone(), self.previous.clone())
    }

    /// Returns `true` if the region takes its place in the order of trial, or comes last.
    pub(super) fn is_in_time(&self, now: Duration) -> bool {
        self.late.admit(now).is_ok()
    }

    /// Makes a call, and notes if it was dropped without an answer after the time in which there
    /// should have been one: another region was quicker, or nobody waited any longer.
    pub(super) async fn watched<T>(
        &self,
        call: impl Future<Output = T>,
        in_time: Duration,
        clock: &dyn Clock,
    ) -> T {
        let mut watch = Watch { late: Some(&self.late), since: Instant::now(), in_time, clock };
        let answer = call.await;
        watch.late = None;
        self.late.succeeded();
        answer
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        self.holder.name()
    }

    /// What is stored of a data key that was wrapped here.
    pub(super) fn copy(&self, wrapped: &[u8]) -> RegionCopy<'_> {
        RegionCopy::new(self.name(), &self.key, wrapped)
    }

    /// GenerateDataKey: draws a data key and wraps it under this region's key.
    pub(super) async fn generate(
        &self,
        context: Context,
        call: CallContext,
    ) -> Result<DataKey, BackendError> {
        const OPERATION: &str = "GenerateDataKey";
        let request = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let request = self.send(OPERATION, request.set_encryption_context(context).send());
        let answer = self.holder.call(OPERATION, &call, async { Ok(request.await?) }).await?;
        let secret = answer.plaintext.and_then(secret_of);
        let (Some(secret), Some(wrapped)) = (secret, wrapped_of(answer.ciphertext_blob)) else {
            return Err(self.incomplete(OPERATION));
        };
        Ok(DataKey { secret, wrapped })
    }

    /// Encrypt: wraps a data key under this region's key.
    pub(super) async fn encrypt(
        &self,
        data_key: Bytes,
        context: Context,
        call: CallContext,
    ) -> Result<Vec<u8>, BackendError> {
        const OPERATION: &str = "Encrypt";
        let request = self.client.encrypt().key_id(&self.key).set_encryption_context(context);
        let request = request.plaintext(Blob::from_maybe_shared(data_key));
        let request = self.send(OPERATION, request.send());
        let answer = self.holder.call(OPERATION, &call, async { Ok(request.await?) }).await?;
        wrapped_of(answer.ciphertext_blob).ok_or_else(|| self.incomplete(OPERATION))
    }

    /// Decrypt: unwraps a data key with the configured key; with one of the previous keys only when
    /// KMS says that it was wrapped under another.
    pub(super) async fn decrypt(
        &self,
        kek: &[u8],
        contexts: &Contexts,
        call: CallContext,
    ) -> Result<SecretKey, BackendError> {
        let mut answer = self.decrypt_with(&self.key, kek, contexts, &call).await?;
        for key in &self.previous {
            match answer {
                Err(error) if error.is(INCORRECT_KEY) => {
                    answer = self.decrypt_with(key, kek, contexts, &call).await?;
                }
                _ => break,
            }
        }
        secret_of(answer?).ok_or_else(|| AwsKmsFault::NotADataKey.into())
    }

    async fn decrypt_with(
        &self,
        key: &str,
        kek: &[u8],
        contexts: &Contexts,
        call: &CallContext,
    ) -> Decrypted {
        match self.ask_to_decrypt(key, kek, contexts.bound.clone(), call).await {
            Ok(Err(error)) if contexts.or_none && error.is(INVALID_CIPHERTEXT) => {
                self.ask_to_decrypt(key, kek, None, call).await
            }
            answer => answer,
        }
    }

    async fn ask_to_decrypt(&self, key: &str, kek: &[u8], context: Context, call: &CallContext) -> Decrypted {
        const OPERATION: &str = "Decrypt";
        let request = self.client.decrypt().key_id(key).set_encryption_context(context);
        let request = self.send(OPERATION, request.ciphertext_blob(Blob::new(kek)).send());
        let request = async {
            match request.await {
                Ok(answer) => Ok(Ok(answer.plaintext)),
                Err(error) if error.is(INCORRECT_KEY) || error.is(INVALID_CIPHERTEXT) => Ok(Err(error)),
                Err(error) => Err(error.into()),
            }
        };
        match self.holder.call(OPERATION, call, request).await? {
            Ok(plaintext) => Ok(Ok(plaintext.ok_or_else(|| self.incomplete(OPERATION))?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Boxed, since the SDK's futures nest so deeply that a few around them exceed the compiler's limit.
    fn send<'a, T, E>(
        &'a self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E>>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, AwsKmsError>>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let answer =
            async move { request.await.map_err(|error| AwsKmsError::new(self.name(), operation, &error)) };
        answer.boxed()
    }

    fn incomplete(&self, operation: &'static str) -> BackendError {
        AwsKmsFault::AnswerIncomplete { region: Arc::clone(self.name()), operation }.into()
    }
}

/// A call that has not been answered yet.
struct Watch<'a> {
    late: Option<&'a Breaker>,
    since: Instant,
    in_time: Duration,
    clock: &'a dyn Clock,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(late) = self.late.filter(|_| self.since.elapsed() >= self.in_time) {
            late.failed(self.clock.monotonic());
        }
    }
}

/// What became of a call of Decrypt: the plaintext, or that KMS does not take the ciphertext; no
/// answer, or another refusal, is an error of its own.
type Decrypted = Result<Result<Blob, AwsKmsError>, BackendError>;

/// Takes what can be unwrapped again out of an answer.
fn wrapped_of(ciphertext: Option<Blob>) -> Option<Vec<u8>> {
    ciphertext.map(Blob::into_inner).filter(|kek| KEK_BYTES.contains(&kek.len()))
}

/// Takes a data key out of the SDK's buffer, which is wiped.
fn secret_of(plaintext: Blob) -> Option<SecretKey> {
    let plaintext = Zeroizing::new(plaintext.into_inner());
    SecretKey::try_init(|key| {
        let bytes: &[u8; 32] = plaintext.first_chunk().filter(|_| plaintext.len() == key.len()).ok_or(())?;
        key.copy_from_slice(bytes);
        Ok::<(), ()>(())
    })
    .ok()
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("name", self.name())
            .field("key", &self.key)
            .field("previous", &self.previous)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use aws_sdk_kms::config::BehaviorVersion;
    use claviger::testing::FixedClock;

    use super::*;

    const IN_TIME: Duration = Duration::from_millis(300);

    fn region(clock: &FixedClock) -> Region {
        let client = Client::from_conf(
            aws_sdk_kms::Config::builder().behavior_version(BehaviorVersion::latest()).build(),
        );
        Region::new(CopyHolder::new("r", Arc::new(clock.clone())), client, "key".into(), Vec::new())
    }

    async fn drop_after(region: &Region, time: Duration, clock: &FixedClock) {
        let call = region.watched(pending::<()>(), IN_TIME, clock);
        assert!(tokio::time::timeout(time, call).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn s3_11_a_region_that_was_late_takes_its_place_once_a_second() {
        let clock = FixedClock::new(1_700_000_000);
        let region = region(&clock);
        let in_time = || region.is_in_time(clock.monotonic());
        drop_after(&region, IN_TIME / 2, &clock).await;
        assert!(in_time(), "who is dropped early is not late");
        drop_after(&region, IN_TIME, &clock).await;
        for _ in 0..5 {
            assert!(!in_time());
            clock.advance(LATE_FOR);
            assert!(in_time());
            assert!(!in_time(), "one call at a time");
        }
        region.watched(ready(()), IN_TIME, &clock).await;
        assert!(in_time() && in_time());
    }
}
