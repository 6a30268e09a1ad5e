//! The master key of one machine, in a file that only its owner can read.

mod file;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;

use std::io;
use std::path::{Path, PathBuf};

use claviger::{
    BackendError, CallContext, FailureClass, FailureKind, KeyManagementService, KeyMeta, LockPolicy,
    RandomError, SecretKey, StaticKms, WrapHealth, WrappedKey,
};

/// Wraps system keys under a master key that lies in a file of this machine.
///
/// It is for one machine in earnest: a laptop, a single server, an appliance. Whoever can read the
/// file can decrypt everything, and **whoever loses it has lost everything**: keep a copy of the
/// file in a safe place. Records are wrapped as [`StaticKms`] wraps them, so the 64 hex digits of
/// the file can serve there, and in Asherah's static KMS, as well.
///
/// # The file
/// One line of text, `claviger-master-key-v1 <64 hex digits> <CRC-32>`. The sum tells a file that
/// was cut or damaged from a key that is simply another one.
///
/// A file that is not its owner's alone, as [`PrivateFile`](crate::PrivateFile) says, is refused. So is a
/// pipe. A file is never repaired or replaced. Links to it are followed, since a volume of Kubernetes has
/// them. When the file is made, no link is followed.
///
/// # Durability
/// [`open_or_create`](Self::open_or_create) writes a new key to a temporary file beside `path`
/// (mode 0600, created with `O_EXCL`), syncs it, and only then gives it its name, without ever
/// replacing a file that has it. So no reader sees half a key, and of any number of processes that
/// come first at once all go on with the same key. A creator that crashes leaves at most a
/// temporary file that nobody reads. Before any key is used, by whoever opens it, the file and its
/// folder are synced: its creator may have crashed, or be at that point still. Where that cannot be
/// had, the key is used all the same: on file systems that sync no folders, and in a folder that may
/// not be read. A folder made just before is its maker's to sync.
///
/// # Blocking
/// The constructors do file I/O on the calling thread, some milliseconds with the syncs; inside an
/// async service call them at start-up or in `spawn_blocking`. After that the file is not touched.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let kms = claviger_kms::LocalKms::open_or_create(folder.join("master.key"))?;
/// assert!(kms.is_new());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LocalKms {
    inner: StaticKms,
    is_new: bool,
}

/// How a [`LocalKms`] is opened.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LocalKmsBuilder {
    locks: LockPolicy,
}

impl LocalKms {
    /// Begins with memory that is locked if that is possible.
    pub const fn builder() -> LocalKmsBuilder {
        LocalKmsBuilder { locks: LockPolicy::Prefer }
    }

    /// Opens the master key at `path`, which must exist.
    ///
    /// # Errors
    /// As [`LocalKmsBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().open(path)
    }

    /// Opens the master key at `path`, or makes one if there is none. The folder must exist.
    ///
    /// # Errors
    /// As [`LocalKmsBuilder::open_or_create`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder().open_or_create(path)
    }

    /// Returns `true` if this call made the master key, so that a program can say so once and remind
    /// its user to keep a copy.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }
}

impl LocalKmsBuilder {
    /// Sets how the memory is locked that the master key lies in. A factory whose policy requires locked memory
    /// takes no service that does not.
    pub const fn lock_policy(mut self, locks: LockPolicy) -> Self {
        self.locks = locks;
        self
    }

    /// Opens the master key at `path`, which must exist.
    ///
    /// # Errors
    /// The source is a [`LocalKmsError`]: [`NotFound`](LocalKmsError::NotFound) when there is none, and the other
    /// variants when it cannot be trusted, read or used.
    pub fn open(self, path: impl AsRef<Path>) -> Result<LocalKms, BackendError> {
        let path = path.as_ref();
        Ok(self.under(path, &file::read(path)?, false)?)
    }

    /// Opens the master key at `path`, or makes one if there is none. The folder must exist.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and [`LocalKmsError::Random`] when no key can be generated.
    /// [`LocalKmsError::NotFound`] means that the folder is missing, or that the file vanished at
    /// this moment.
    pub fn open_or_create(self, path: impl AsRef<Path>) -> Result<LocalKms, BackendError> {
        let path = path.as_ref();
        match file::read(path) {
            Err(LocalKmsError::NotFound { .. }) => {
                let is_new = file::create(path)?;
                // Read back whoever's key it is: what serves is what the next process will find.
                Ok(self.under(path, &file::read(path)?, is_new)?)
            }
            found => Ok(self.under(path, &found?, false)?),
        }
    }

    fn under(self, path: &Path, master_key: &SecretKey, is_new: bool) -> Result<LocalKms, LocalKmsError> {
        let unusable = |source| LocalKmsError::Unusable { path: path.to_owned(), source };
        let inner = StaticKms::with_lock_policy(master_key, self.locks).map_err(unusable)?;
        Ok(LocalKms { inner, is_new })
    }
}

impl KeyManagementService for LocalKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.inner.wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.inner.unwrap_key(wrapped, meta, context).await
    }

    fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Ok(WrapHealth::new(vec!["local".to_owned()], Vec::new()))
    }

    fn lock_policy(&self) -> Option<LockPolicy> {
        self.inner.lock_policy()
    }
}

/// Why a master-key file does not serve. It never shows what the file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalKmsError {
    /// There is no such file, or not its folder.
    #[error("master-key file {path} does not exist")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else than its owner could read or replace the file.
    #[error("master-key file {path} is not safe: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The file is cut, damaged, or something else.
    #[error("master-key file {path} holds no claviger master key: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as that can be told, and what to do.
        reason: &'static str,
    },
    /// The file or its folder cannot be read, written or synced.
    #[error("cannot {operation} master-key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A new master key could not be generated.
    #[error("cannot generate a master key")]
    Random(#[from] RandomError),
    /// The file holds a key that anybody could guess, or the key finds no protected memory.
    #[error("master key of {path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BackendError,
    },
}

impl From<LocalKmsError> for BackendError {
    fn from(error: LocalKmsError) -> Self {
        let (class, kind) = match &error {
            LocalKmsError::NotFound { .. } => (FailureClass::Permanent, Some(FailureKind::NoSuchKey)),
            LocalKmsError::Refused { .. } => (FailureClass::Permanent, Some(FailureKind::Settings)),
            LocalKmsError::Malformed { .. } => (FailureClass::Damaged, None),
            LocalKmsError::Io { .. } => (FailureClass::Permanent, Some(FailureKind::Device)),
            LocalKmsError::Random(_) => (FailureClass::Transient, None),
            LocalKmsError::Unusable { source, .. } => (source.class(), source.kind()),
        };
        Self::new(class, error).with_kind(kind).not_asked()
    }
}
