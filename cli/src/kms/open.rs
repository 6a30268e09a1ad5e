//! Opens the master key, or the way to it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use claviger::{
    BackendError, BoxedKms, Error, ErrorChain, KeyManagementService, KeyMeta, SecretKey, StaticKms,
    WrapHealth, WrappedKey,
};
#[cfg(feature = "aws")]
use claviger_kms::AwsKms;
use claviger_kms::{AnyOfKms, CopyCheck, KofNKms, LocalKms, LocalKmsError};

use crate::exit::{Exit, Failure};
use crate::kms::KmsChoice;
use crate::kms::key_file;
use crate::kms::several::{AnyOfChoice, KofNChoice};
use crate::open::{folder_of, make_folder_of};

/// An open KMS of any kind.
#[derive(Clone, Debug)]
pub(crate) enum OpenKms {
    /// One that keeps one copy, and what it is called.
    One(&'static str, BoxedKms),
    #[cfg(feature = "aws")]
    Aws(AwsKms),
    AnyOf(Arc<AnyOfKms>),
    KofN(Arc<KofNKms>),
}

/// How a KMS is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) making: Making,
    /// The same for members' files. One that is made anew where it was lost looks as if it had its copies.
    pub(crate) members: Making,
    pub(crate) absent: Absent,
    pub(crate) danger_known_key: bool,
}

/// What becomes of a master key's file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    IfMissing,
    /// It is taken for one that wrapped nothing yet, where it could be made: its calls fail.
    Feigned,
    Never,
}

/// What becomes of a member that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// If that may pass, or its file is gone, a member whose calls fail; else the others do not serve either.
    Failure,
    /// A member whose calls fail.
    Member,
}

/// Why a KMS could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// By what we were told, or what is on this machine.
    Here(Failure),
    Local(LocalKmsError),
    Service(BackendError),
}

impl OpenError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Here(failure) => failure,
            Self::Local(error) => master_key_failure(&error),
            Self::Service(error) => failed(&error),
        }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        Self::Service(error)
    }
}

impl OpenKms {
    pub(crate) async fn open(choice: &KmsChoice, opening: Opening) -> Result<Self, Failure> {
        Self::try_open(choice, opening).await.map_err(OpenError::into_failure)
    }

    async fn try_open(choice: &KmsChoice, opening: Opening) -> Result<Self, OpenError> {
        match choice {
            KmsChoice::Embedded(path) | KmsChoice::Local(path) => {
                let is_own = matches!(choice, KmsChoice::Embedded(_));
                match opening.making {
                    Making::IfMissing if is_own => make_folder_of(path)?,
                    Making::Feigned if !is_own && !folder_of(path).is_dir() => {
                        return local(path, Making::Never);
                    }
                    _ => {}
                }
                local(path, opening.making)
            }
            KmsChoice::Static(file) => Ok(static_key(file, opening.danger_known_key)?),
            #[cfg(feature = "aws")]
            KmsChoice::Aws(choice) => Ok(Self::Aws(choice.open().await?)),
            #[cfg(feature = "pkcs11")]
            KmsChoice::Pkcs11(choice) => Ok(Self::One("pkcs11", BoxedKms::new(choice.open().await?))),
            #[cfg(feature = "vault")]
            KmsChoice::Vault(choice) => Ok(Self::One("vault", BoxedKms::new(choice.open().await?))),
            KmsChoice::AnyOf(choice) => Ok(any_of(choice, opening).await?),
            KmsChoice::KofN(choice) => Ok(k_of_n(choice, opening).await?),
            #[cfg(not(feature = "aws"))]
            KmsChoice::Aws(_) => Err(missing("AWS KMS", "aws").into()),
            #[cfg(not(feature = "pkcs11"))]
            KmsChoice::Pkcs11(_) => Err(missing("PKCS#11", "pkcs11").into()),
            #[cfg(not(feature = "vault"))]
            KmsChoice::Vault(_) => Err(missing("Vault", "vault").into()),
        }
    }

    pub(crate) fn boxed(&self) -> BoxedKms {
        match self {
            Self::One(_, kms) => kms.clone(),
            #[cfg(feature = "aws")]
            Self::Aws(kms) => BoxedKms::new(kms.clone()),
            Self::AnyOf(kms) => BoxedKms::new(Arc::clone(kms)),
            Self::KofN(kms) => BoxedKms::new(Arc::clone(kms)),
        }
    }

    /// Tries each region or member.
    pub(crate) async fn check(&self) -> Vec<CopyCheck> {
        match self {
            Self::One(name, kms) => vec![claviger_kms::check(*name, kms).await],
            #[cfg(feature = "aws")]
            Self::Aws(kms) => kms.check().await,
            Self::AnyOf(kms) => kms.check().await,
            Self::KofN(kms) => kms.check().await,
        }
    }
}

/// Opens a member. One that is down or lost must not keep the others from serving.
async fn open_member(choice: &KmsChoice, opening: Opening) -> Result<BoxedKms, Failure> {
    let takes_any = opening.absent == Absent::Member;
    let absent =
        match Box::pin(OpenKms::try_open(choice, Opening { making: opening.members, ..opening })).await {
            Ok(kms) => return Ok(kms.boxed()),
            Err(OpenError::Service(error)) if error.is_transient() || takes_any => error,
            Err(OpenError::Local(error)) if matches!(error, LocalKmsError::NotFound { .. }) || takes_any => {
                BackendError::permanent(error)
            }
            Err(error) => return Err(error.into_failure()),
        };
    Ok(BoxedKms::new(Unopened(absent)))
}

/// Answers every call with the reason why it was not opened.
#[derive(Debug)]
struct Unopened(BackendError);

impl KeyManagementService for Unopened {
    async fn wrap_key(&self, _key: &SecretKey, _meta: &KeyMeta) -> Result<WrappedKey, BackendError> {
        Err(self.0.clone())
    }

    async fn unwrap_key(&self, _wrapped: &[u8], _meta: &KeyMeta) -> Result<SecretKey, BackendError> {
        Err(self.0.clone())
    }

    async fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Err(self.0.clone())
    }
}

async fn any_of(choice: &AnyOfChoice, opening: Opening) -> Result<OpenKms, Failure> {
    let mut builder = AnyOfKms::builder();
    for member in &choice.members {
        builder = builder.member(&member.name, open_member(&member.kms, opening).await?);
    }
    if let Some(compatible) = choice.asherah_compatible {
        builder = builder.asherah_compatible(compatible);
    }
    if let Some(copies) = choice.min_copies {
        builder = builder.min_copies(copies);
    }
    if let Some(time) = choice.hedge_after {
        builder = builder.hedge_after(time);
    }
    if let Some(time) = choice.call_deadline {
        builder = builder.call_deadline(time);
    }
    builder.build().map(|kms| OpenKms::AnyOf(Arc::new(kms))).map_err(|error| Failure::crypt(&error))
}

async fn k_of_n(choice: &KofNChoice, opening: Opening) -> Result<OpenKms, Failure> {
    let mut builder = KofNKms::builder(choice.k);
    for member in &choice.members {
        builder = builder.member(&member.name, open_member(&member.kms, opening).await?);
    }
    for name in &choice.legacy_members {
        builder = builder.legacy_member(name);
    }
    if let Some(compatible) = choice.asherah_compatible {
        builder = builder.asherah_compatible(compatible);
    }
    if let Some(shares) = choice.min_shares {
        builder = builder.min_shares(shares);
    }
    if let Some(k) = choice.previous_k {
        builder = builder.previous_k(k);
    }
    if let Some(time) = choice.call_deadline {
        builder = builder.call_deadline(time);
    }
    builder.build().map(|kms| OpenKms::KofN(Arc::new(kms))).map_err(|error| Failure::crypt(&error))
}

#[cfg(not(all(feature = "aws", feature = "pkcs11", feature = "vault")))]
fn missing(service: &str, feature: &str) -> Failure {
    Failure::new(
        Exit::Config,
        format!(
            "this claviger was built without {service}; build one with its feature: cargo build --release -p \
             claviger-cli --features {feature}"
        ),
    )
}

/// What it means that a service cannot be opened.
fn failed(error: &BackendError) -> Failure {
    let (exit, advice) = if error.is_transient() {
        (Exit::Unavailable, "check that it can be reached, and try again")
    } else {
        (Exit::Config, "check --kms")
    };
    Failure::new(exit, format!("cannot open the master key's service ({}); {advice}", ErrorChain::new(error)))
}

fn local(path: &Path, making: Making) -> Result<OpenKms, OpenError> {
    let opened = match making {
        Making::IfMissing => LocalKms::open_or_create(path),
        Making::Feigned | Making::Never => LocalKms::open(path),
    };
    match opened {
        Ok(kms) => Ok(OpenKms::One("local", BoxedKms::new(kms))),
        Err(error @ LocalKmsError::NotFound { .. }) if making == Making::Feigned => {
            Ok(OpenKms::One("local", BoxedKms::new(Unopened(BackendError::permanent(error)))))
        }
        Err(error) => Err(OpenError::Local(error)),
    }
}

fn master_key_failure(error: &LocalKmsError) -> Failure {
    let (exit, advice) = match error {
        LocalKmsError::NotFound { .. } => (Exit::NotFound, "make its folder, or check --kms"),
        LocalKmsError::Refused { .. } => (Exit::Permission, "see to it and run it again"),
        LocalKmsError::Malformed { .. } => {
            let advice = "restore it from a copy, or check --kms: a file of 64 hex digits is static:@FILE";
            (Exit::NotFound, advice)
        }
        LocalKmsError::Io { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => (Exit::Permission, "check who may read it"),
            ErrorKind::ReadOnlyFilesystem => (Exit::CannotCreate, "choose a folder you may write to"),
            _ => (Exit::Io, "check the device it is on"),
        },
        LocalKmsError::Random(_) => (Exit::Unavailable, "try again"),
        LocalKmsError::Unusable { source, .. } if source.is_retryable() => (Exit::Unavailable, "try again"),
        LocalKmsError::Unusable { source: Error::InvalidConfig { .. }, .. } => {
            (Exit::Config, "anybody can guess it: restore it from a copy, or choose another with --kms")
        }
        _ => (Exit::Config, "choose another with --kms"),
    };
    Failure::new(exit, format!("{}; {advice}", ErrorChain::new(error)))
}

fn static_key(file: &Path, danger_known_key: bool) -> Result<OpenKms, Failure> {
    let key = key_file::read(file)?;
    let kms = if danger_known_key { StaticKms::danger_any_key(&key) } else { StaticKms::new(&key) };
    kms.map(|kms| OpenKms::One("static", BoxedKms::new(kms))).map_err(|error| match error {
        Error::InvalidConfig { reason } => Failure::new(
            Exit::Config,
            format!(
                "the master key {} is one that anybody can guess ({reason}); make another with openssl rand -hex 32, or \
                 for test data say --danger-known-key",
                file.display()
            ),
        ),
        error => Failure::crypt(&error),
    })
}
