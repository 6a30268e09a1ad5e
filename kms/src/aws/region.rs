//! One region: its master key, and the three requests that are made of it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use bytes::Bytes;
use claviger::{BackendError, KeyMeta, SecretKey};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use crate::aws::envelope::RegionCopy;
use crate::aws::error::{AwsKmsError, AwsKmsFault, INCORRECT_KEY, INVALID_CIPHERTEXT};
use crate::copies::Keeper;

pub(super) struct Region {
    pub(super) keeper: Keeper,
    pub(super) client: Client,
    /// What wraps here: an ARN, an id or an alias.
    pub(super) key: String,
    /// What may still unwrap here.
    pub(super) previous: Vec<String>,
}

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
    pub(super) const fn name(&self) -> &Arc<str> {
        self.keeper.name()
    }

    /// What is stored of a data key that was wrapped here.
    pub(super) fn copy(&self, wrapped: &[u8]) -> RegionCopy<'_> {
        RegionCopy::new(self.name(), &self.key, wrapped)
    }

    /// GenerateDataKey: draws a data key and wraps it under this region's key.
    pub(super) async fn generate(&self, context: Context) -> Result<DataKey, BackendError> {
        const OPERATION: &str = "GenerateDataKey";
        let request = self.client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
        let request = self.send(OPERATION, request.set_encryption_context(context).send());
        let answer = self.keeper.call(async { Ok(request.await?) }).await?;
        let secret = answer.plaintext.and_then(secret_of);
        let wrapped = answer.ciphertext_blob.map(Blob::into_inner);
        let (Some(secret), Some(wrapped)) = (secret, wrapped) else {
            return Err(self.incomplete(OPERATION));
        };
        Ok(DataKey { secret, wrapped })
    }

    /// Encrypt: wraps a data key under this region's key.
    pub(super) async fn encrypt(&self, data_key: Bytes, context: Context) -> Result<Vec<u8>, BackendError> {
        const OPERATION: &str = "Encrypt";
        let request = self.client.encrypt().key_id(&self.key).set_encryption_context(context);
        let request = request.plaintext(Blob::from_maybe_shared(data_key));
        let request = self.send(OPERATION, request.send());
        let answer = self.keeper.call(async { Ok(request.await?) }).await?;
        answer.ciphertext_blob.map(Blob::into_inner).ok_or_else(|| self.incomplete(OPERATION))
    }

    /// Decrypt: unwraps a data key with the configured key; with one of the previous keys only when
    /// KMS says that it was wrapped under another.
    pub(super) async fn decrypt(&self, kek: &[u8], contexts: &Contexts) -> Result<SecretKey, BackendError> {
        let mut answer = self.decrypt_with(&self.key, kek, contexts).await?;
        for key in &self.previous {
            match answer {
                Err(error) if error.is(INCORRECT_KEY) => {
                    answer = self.decrypt_with(key, kek, contexts).await?;
                }
                _ => break,
            }
        }
        secret_of(answer?).ok_or_else(|| AwsKmsFault::NotADataKey.into())
    }

    async fn decrypt_with(&self, key: &str, kek: &[u8], contexts: &Contexts) -> Decrypted {
        match self.ask_to_decrypt(key, kek, contexts.bound.clone()).await {
            Ok(Err(error)) if contexts.or_none && error.is(INVALID_CIPHERTEXT) => {
                self.ask_to_decrypt(key, kek, None).await
            }
            answer => answer,
        }
    }

    async fn ask_to_decrypt(&self, key: &str, kek: &[u8], context: Context) -> Decrypted {
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
        match self.keeper.call(request).await? {
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

/// What became of a call of Decrypt: the plaintext, or that KMS does not take the ciphertext; no
/// answer, or another refusal, is an error of its own.
type Decrypted = Result<Result<Blob, AwsKmsError>, BackendError>;

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
