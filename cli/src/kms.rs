//! Which master key is meant, and the way to it.

pub(crate) mod text;
pub(crate) mod watched;

use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_open::{Absent, KmsFile, KmsOptions, KmsSpec, Making, OpenKms};

use crate::exit::Failure;
use crate::explain;
use crate::folder::make_folder_of;
use crate::patience::CALL_WAIT;
use crate::used::{Role, Used};

/// A master key and who keeps it, not opened yet.
#[derive(Clone, Debug)]
pub(crate) struct KmsChoice {
    spec: KmsSpec,
    /// It is `master.key` in claviger's own folder.
    pub(crate) is_own: bool,
}

/// How a KMS is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) making: Making,
    /// The same for members' files.
    pub(crate) members: Making,
    pub(crate) absent: Absent,
    pub(crate) danger_known_key: bool,
}

impl KmsChoice {
    /// `master.key` in claviger's own folder.
    pub(crate) const fn own(path: PathBuf) -> Self {
        Self { spec: KmsSpec::Local(path), is_own: true }
    }

    pub(crate) async fn open(&self, opening: Opening) -> Result<OpenKms, Failure> {
        let making = match (opening.making, self.spec.file()) {
            (Making::IfMissing, Some(path)) if self.is_own => {
                make_folder_of(path)?;
                Making::IfMissing
            }
            (Making::Feigned, _) if self.is_own => Making::FeignedWithFolder,
            (making, _) => making,
        };
        let options = KmsOptions::new()
            .making(making)
            .making_members(opening.members)
            .absent(opening.absent)
            .danger_known_key(opening.danger_known_key);
        self.spec.open(&options).await.map_err(explain::kms::opening)
    }

    pub(crate) const fn spec(&self) -> &KmsSpec {
        &self.spec
    }

    /// How long a call to it may take.
    pub(crate) fn call_wait(&self) -> Duration {
        self.spec.call_deadline().unwrap_or(CALL_WAIT)
    }

    /// The file it is, if it is one and has no members.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.spec.file()
    }

    /// The files that hold master keys that claviger makes, its members' as well.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let files = self.spec.files().into_iter();
        files.filter(|(role, _)| *role == KmsFile::LocalKey).map(|(_, path)| path).collect()
    }

    /// All files that it is made of, and its members are: with keys, with secrets, with descriptions.
    pub(crate) fn used(&self) -> Vec<Used> {
        let used = |(role, path): (KmsFile, &Path)| {
            let role = match role {
                KmsFile::LocalKey | KmsFile::StaticKey => Role::MasterKey,
                KmsFile::Description => Role::Option,
                _ => Role::Secret,
            };
            Used::new(role, path)
        };
        self.spec.files().into_iter().map(used).collect()
    }
}

impl From<KmsSpec> for KmsChoice {
    fn from(spec: KmsSpec) -> Self {
        Self { spec, is_own: false }
    }
}
