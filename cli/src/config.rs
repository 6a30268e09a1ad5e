//! Which keys to use: flags and variables before the configuration file, and that before the
//! defaults. Nothing is opened here but the configuration file.

use std::env;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use crate::args::Options;
use crate::exit::{Exit, Failure};

/// What the options come to.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) service: String,
    pub(crate) product: String,
    pub(crate) metastore: MetastoreChoice,
    pub(crate) kms: KmsChoice,
    pub(crate) region_suffix: Option<String>,
    pub(crate) cache: NonZeroU64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MetastoreChoice {
    /// `keys.db` in claviger's own folder.
    Embedded(PathBuf),
    Sqlite(PathBuf),
    Memory,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KmsChoice {
    /// `master.key` in claviger's own folder.
    Embedded(PathBuf),
    Local(PathBuf),
    Static {
        file: PathBuf,
        danger_known_key: bool,
    },
}

impl Settings {
    /// Puts flags and variables, which are in `given`, over the configuration file.
    pub(crate) fn resolve(given: Options, config: Option<&Path>) -> Result<Self, Failure> {
        let file = config.map_or_else(|| Ok(Options::default()), read_config)?;
        let options = over(given, file);
        Ok(Self {
            metastore: metastore_choice(
                options.metastore.as_deref(),
                options.danger_discard_keys.unwrap_or_default(),
            )?,
            kms: kms_choice(options.kms.as_deref(), options.danger_known_key.unwrap_or_default())?,
            service: options.service.unwrap_or_else(|| "claviger".to_owned()),
            product: options.product.unwrap_or_else(|| "default".to_owned()),
            region_suffix: options.region_suffix,
            cache: options.cache.unwrap_or(CACHE),
        })
    }
}

/// The one place where precedence is decided. Each field is named, so that a new one is not
/// forgotten.
fn over(first: Options, second: Options) -> Options {
    Options {
        service: first.service.or(second.service),
        product: first.product.or(second.product),
        metastore: first.metastore.or(second.metastore),
        kms: first.kms.or(second.kms),
        region_suffix: first.region_suffix.or(second.region_suffix),
        cache: first.cache.or(second.cache),
        danger_known_key: first.danger_known_key.or(second.danger_known_key),
        danger_discard_keys: first.danger_discard_keys.or(second.danger_discard_keys),
    }
}

fn read_config(path: &Path) -> Result<Options, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::read(&format!("the configuration file {shown}"), &error))?;
    toml::from_str(&text).map_err(|error| {
        // Only the message: the whole text of the error quotes the file's line, and there may be
        // a key in it that does not belong there.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Failure::new(
            Exit::Config,
            format!("{shown}:{line}: {}; correct the file", error.message().trim_end()),
        )
    })
}

fn metastore_choice(text: Option<&str>, danger_discard_keys: bool) -> Result<MetastoreChoice, Failure> {
    let wrong = |message: &str| Failure::new(Exit::Config, message);
    match text {
        None => Ok(MetastoreChoice::Embedded(home()?.join("keys.db"))),
        Some("memory:") if danger_discard_keys => Ok(MetastoreChoice::Memory),
        Some("memory:") => Err(wrong(
            "--metastore memory: forgets the keys when claviger ends, so that nothing encrypted with it can be \
             decrypted; name a file with sqlite:PATH, or say --danger-discard-keys for a trial",
        )),
        Some(text) => match text.strip_prefix("sqlite:") {
            Some("") => Err(wrong("--metastore sqlite: lacks its path; say sqlite:PATH")),
            Some(path) => Ok(MetastoreChoice::Sqlite(path.into())),
            None => Err(wrong("--metastore names no store that claviger knows; say sqlite:PATH or memory:")),
        },
    }
}

/// Reads the text of `--kms`. What is not understood is not repeated, since it may be a key.
fn kms_choice(text: Option<&str>, danger_known_key: bool) -> Result<KmsChoice, Failure> {
    let wrong = |message: &str| Err(Failure::new(Exit::Config, message));
    let Some(text) = text else { return Ok(KmsChoice::Embedded(home()?.join("master.key"))) };
    if let Some(path) = text.strip_prefix("local:") {
        return match path {
            "" => wrong("--kms local: lacks its path; say local:PATH"),
            path => Ok(KmsChoice::Local(path.into())),
        };
    }
    match text.strip_prefix("static:").map(|file| file.strip_prefix('@')) {
        Some(Some("")) => wrong("--kms static:@ lacks its file; say static:@FILE"),
        Some(Some(file)) => Ok(KmsChoice::Static { file: file.into(), danger_known_key }),
        Some(None) => wrong(
            "--kms static: takes no key, which every user of the machine would see in the process list; write its 64 \
             hex digits to a file that only you may read and say static:@FILE",
        ),
        None => wrong("--kms names no master key that claviger knows; say local:PATH or static:@FILE"),
    }
}

/// Claviger's own folder. Empty variables count as unset, as the XDG specification has it.
fn home() -> Result<PathBuf, Failure> {
    let variable =
        |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    variable("CLAVIGER_HOME")
        .or_else(|| {
            variable("XDG_DATA_HOME").filter(|path| path.is_absolute()).map(|data| data.join("claviger"))
        })
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/claviger")))
        .ok_or_else(|| {
            Failure::new(
                Exit::Config,
                "there is no home folder to keep keys in; set CLAVIGER_HOME to a folder",
            )
        })
}

const CACHE: NonZeroU64 = match NonZeroU64::new(50_000) {
    Some(keys) => keys,
    None => NonZeroU64::MIN,
};
