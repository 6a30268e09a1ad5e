//! Opens the master key, or the way to it.

use std::error::Error as _;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use claviger::{
    BackendError, BoxedKms, CallContext, KeyManagementService, KeyMeta, LockPolicy, SecretKey, WrapHealth,
    WrappedKey,
};
#[cfg(feature = "any-of")]
use claviger_kms::AnyOfKms;
#[cfg(feature = "aws")]
use claviger_kms::AwsKms;
#[cfg(feature = "k-of-n")]
use claviger_kms::KofNKms;
use claviger_kms::{CopyCheck, LocalKms, LocalKmsError};

use crate::BoxFuture;
use crate::environment::Environment;
use crate::error::OpenError;
#[cfg(feature = "any-of")]
use crate::kms::AnyOfSpec;
use crate::kms::KmsSpec;
#[cfg(feature = "k-of-n")]
use crate::kms::KofNSpec;

/// An open KMS of any kind, and the check of its copies.
#[derive(Clone, Debug)]
pub struct OpenKms {
    kms: BoxedKms,
    copies: Arc<dyn Copies>,
}

/// How a KMS is opened.
#[derive(Clone, Debug)]
#[must_use]
pub struct KmsOptions {
    environment: Environment,
    making: Making,
    members: Making,
    absent: Absent,
    danger_known_key: bool,
    locks: LockPolicy,
}

/// What becomes of a local master key's file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Making {
    /// It is made.
    IfMissing,
    /// It is taken for one that wrapped nothing yet, where it could be made: its calls fail.
    Feigned,
    /// The same, where its folder would be made too.
    FeignedWithFolder,
    /// Opening fails.
    Never,
}

/// What becomes of a member that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Absent {
    /// If that may pass, or its file is gone, a member whose calls fail; else the others do not serve either.
    Failure,
    /// A member whose calls fail.
    Member,
}

impl KmsOptions {
    /// Secrets come from the process's environment, and nothing is made.
    pub const fn new() -> Self {
        Self {
            environment: Environment::of_process(),
            making: Making::Never,
            members: Making::Never,
            absent: Absent::Failure,
            danger_known_key: false,
            locks: LockPolicy::Prefer,
        }
    }

    /// Takes secrets that are in variables from here.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Says what becomes of a local master key's file that is not there.
    pub const fn making(mut self, making: Making) -> Self {
        self.making = making;
        self
    }

    /// Says the same of members' files. One that is made anew where it was lost looks as if it had its copies.
    pub const fn making_members(mut self, making: Making) -> Self {
        self.members = making;
        self
    }

    /// Says what becomes of a member that cannot be opened.
    pub const fn absent(mut self, absent: Absent) -> Self {
        self.absent = absent;
        self
    }

    /// Says how the memory is locked in which a KMS holds keys itself; if possible, unless told. A factory whose
    /// policy requires locked memory takes no other.
    pub const fn lock_policy(mut self, locks: LockPolicy) -> Self {
        self.locks = locks;
        self
    }

    /// Takes a static master key that anybody can guess: for test data.
    pub const fn danger_known_key(mut self, is_taken: bool) -> Self {
        self.danger_known_key = is_taken;
        self
    }
}

impl Default for KmsOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl KmsSpec {
    /// Opens it. A service is asked whether it is there; one that needs no server is asked nothing.
    ///
    /// # Errors
    /// [`OpenError`], which says why: no secret is in it.
    ///
    /// # Cancel safety
    /// A master key's file that was to be made is there and whole, or is not.
    pub async fn open(&self, options: &KmsOptions) -> Result<OpenKms, OpenError> {
        match self {
            Self::Local(path) => local(path, options),
            Self::Static(key) => key
                .0
                .open(&options.environment, options.danger_known_key, options.locks)
                .map(|kms| OpenKms::one("static", kms)),
            #[cfg(feature = "aws")]
            Self::Aws(spec) => Ok(OpenKms::several(spec.open(options.locks).await?)),
            #[cfg(feature = "pkcs11")]
            Self::Pkcs11(spec) => {
                Ok(OpenKms::one("pkcs11", BoxedKms::new(spec.open(&options.environment).await?)))
            }
            #[cfg(feature = "vault")]
            Self::Vault(spec) => {
                Ok(OpenKms::one("vault", BoxedKms::new(spec.open(&options.environment).await?)))
            }
            #[cfg(feature = "any-of")]
            Self::AnyOf(spec) => any_of(spec, options).await,
            #[cfg(feature = "k-of-n")]
            Self::KofN(spec) => k_of_n(spec, options).await,
            #[cfg(not(feature = "aws"))]
            Self::Aws(_) => Err(OpenError::MissingFeature { service: "AWS KMS", feature: "aws" }),
            #[cfg(not(feature = "pkcs11"))]
            Self::Pkcs11(_) => Err(OpenError::MissingFeature { service: "PKCS#11", feature: "pkcs11" }),
            #[cfg(not(feature = "vault"))]
            Self::Vault(_) => Err(OpenError::MissingFeature { service: "Vault", feature: "vault" }),
            #[cfg(not(feature = "any-of"))]
            Self::AnyOf(_) => Err(OpenError::MissingFeature { service: "any-of", feature: "any-of" }),
            #[cfg(not(feature = "k-of-n"))]
            Self::KofN(_) => Err(OpenError::MissingFeature { service: "k-of-n", feature: "k-of-n" }),
        }
    }
}

impl OpenKms {
    fn one(name: &'static str, kms: BoxedKms) -> Self {
        Self { copies: Arc::new(One { name, kms: kms.clone() }), kms }
    }

    #[cfg(any(feature = "aws", feature = "any-of", feature = "k-of-n"))]
    fn several<K: KeyManagementService + Copies>(kms: K) -> Self {
        let kms = Arc::new(kms);
        Self { kms: BoxedKms::new(Arc::clone(&kms)), copies: kms }
    }

    /// Returns it for a factory.
    #[must_use]
    pub fn kms(&self) -> BoxedKms {
        self.kms.clone()
    }

    /// Tries each region or member: wraps a key made up for it, and unwraps what it got. The wrap may take half
    /// the time that `context` leaves.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn check(&self, context: &CallContext) -> Vec<CopyCheck> {
        self.copies.check(context).await
    }
}

/// What the check of a KMS's copies has in common, whatever it is.
trait Copies: fmt::Debug + Send + Sync + 'static {
    fn check<'a>(&'a self, context: &'a CallContext) -> BoxFuture<'a, Vec<CopyCheck>>;
}

/// One that keeps one copy, and what it is called.
#[derive(Debug)]
struct One {
    name: &'static str,
    kms: BoxedKms,
}

impl Copies for One {
    fn check<'a>(&'a self, context: &'a CallContext) -> BoxFuture<'a, Vec<CopyCheck>> {
        Box::pin(async { vec![claviger_kms::check(self.name, &self.kms, context).await] })
    }
}

#[cfg(feature = "aws")]
impl Copies for AwsKms {
    fn check<'a>(&'a self, context: &'a CallContext) -> BoxFuture<'a, Vec<CopyCheck>> {
        Box::pin(Self::check(self, context))
    }
}

#[cfg(feature = "any-of")]
impl Copies for AnyOfKms {
    fn check<'a>(&'a self, context: &'a CallContext) -> BoxFuture<'a, Vec<CopyCheck>> {
        Box::pin(Self::check(self, context))
    }
}

#[cfg(feature = "k-of-n")]
impl Copies for KofNKms {
    fn check<'a>(&'a self, context: &'a CallContext) -> BoxFuture<'a, Vec<CopyCheck>> {
        Box::pin(Self::check(self, context))
    }
}

fn local(path: &Path, options: &KmsOptions) -> Result<OpenKms, OpenError> {
    let (making, builder) = (options.making, LocalKms::builder().lock_policy(options.locks));
    let opened = match making {
        Making::IfMissing => builder.open_or_create(path),
        Making::Feigned | Making::FeignedWithFolder | Making::Never => builder.open(path),
    };
    let is_feigned = match making {
        Making::Feigned => folder_of(path).is_dir(),
        Making::FeignedWithFolder => true,
        Making::IfMissing | Making::Never => false,
    };
    match opened {
        Ok(kms) => Ok(OpenKms::one("local", BoxedKms::new(kms))),
        Err(error) if is_feigned && is_lost(&error) => {
            Ok(OpenKms::one("local", BoxedKms::new(Unopened(error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The folder that a file is in, by a name that can be opened.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns `true` if the file of a local master key is not there.
fn is_lost(error: &BackendError) -> bool {
    let local = error.source().and_then(|source| source.downcast_ref());
    matches!(local, Some(LocalKmsError::NotFound { .. }))
}

/// Opens a member. One that is down or lost must not keep the others from serving.
#[cfg(any(feature = "any-of", feature = "k-of-n"))]
async fn open_member(spec: &KmsSpec, options: &KmsOptions) -> Result<BoxedKms, OpenError> {
    let takes_any = options.absent == Absent::Member;
    let options = options.clone().making(options.members);
    let absent = match Box::pin(spec.open(&options)).await {
        Ok(kms) => return Ok(kms.kms()),
        Err(OpenError::Service(error)) if error.is_transient() || is_lost(&error) || takes_any => error,
        Err(error) => return Err(error),
    };
    Ok(BoxedKms::new(Unopened(absent)))
}

/// Answers every call with the reason why it was not opened.
#[derive(Debug)]
struct Unopened(BackendError);

impl KeyManagementService for Unopened {
    async fn wrap_key(
        &self,
        _key: &SecretKey,
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        Err(self.0.clone())
    }

    async fn unwrap_key(
        &self,
        _wrapped: &[u8],
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        Err(self.0.clone())
    }

    fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Err(self.0.clone())
    }
}

#[cfg(feature = "any-of")]
async fn any_of(spec: &AnyOfSpec, options: &KmsOptions) -> Result<OpenKms, OpenError> {
    let mut builder = AnyOfKms::builder().lock_policy(options.locks);
    for member in &spec.members {
        builder = builder.member(&member.name, open_member(&member.kms, options).await?);
    }
    if let Some(compatible) = spec.asherah_compatible {
        builder = builder.asherah_compatible(compatible);
    }
    if let Some(copies) = spec.min_copies {
        builder = builder.min_copies(copies);
    }
    if let Some(time) = spec.hedge_after {
        builder = builder.hedge_after(time);
    }
    builder.build().map(OpenKms::several).map_err(OpenError::Build)
}

#[cfg(feature = "k-of-n")]
async fn k_of_n(spec: &KofNSpec, options: &KmsOptions) -> Result<OpenKms, OpenError> {
    let mut builder = KofNKms::builder(spec.k).lock_policy(options.locks);
    for member in &spec.members {
        builder = builder.member(&member.name, open_member(&member.kms, options).await?);
    }
    for name in &spec.legacy_members {
        builder = builder.legacy_member(name);
    }
    if let Some(compatible) = spec.asherah_compatible {
        builder = builder.asherah_compatible(compatible);
    }
    if let Some(shares) = spec.min_shares {
        builder = builder.min_shares(shares);
    }
    if let Some(k) = spec.previous_k {
        builder = builder.previous_k(k);
    }
    builder.build().map(OpenKms::several).map_err(OpenError::Build)
}
