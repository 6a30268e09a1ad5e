//! Which keys to use: flags and variables before the configuration file, and that before the
//! defaults. Nothing is opened here but the configuration file.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use claviger_metastore::FindingId;

use crate::args::{Options, SchemaStore};
use crate::exit::{Exit, Failure};
use crate::private;
use crate::store::StoreChoice;
use crate::store::text::StoreText;

/// What the options come to.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) service: String,
    pub(crate) product: String,
    pub(crate) metastore: StoreChoice,
    /// The dangerous findings in spite of which the key store is used.
    pub(crate) accepted: Vec<FindingId>,
    pub(crate) kms: KmsChoice,
    pub(crate) region_suffix: Option<String>,
    pub(crate) cache: NonZeroU64,
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
            metastore: StoreChoice::resolve(
                options.metastore,
                options.danger_discard_keys.unwrap_or_default(),
            )?,
            accepted: options.accept_finding,
            kms: kms_choice(options.kms.as_deref(), options.danger_known_key.unwrap_or_default())?,
            service: options.service.unwrap_or_else(|| "claviger".to_owned()),
            product: options.product.unwrap_or_else(|| "default".to_owned()),
            region_suffix: options.region_suffix,
            cache: options.cache.unwrap_or(CACHE),
        })
    }
}

/// Which key store the `schema` commands are about, and which findings the user accepts. `memory:`
/// is none of those.
pub(crate) fn resolve_store(
    given: SchemaStore,
    accepted: Vec<FindingId>,
) -> Result<(StoreChoice, Vec<FindingId>), Failure> {
    let file = given.config.as_deref().map_or_else(|| Ok(Options::default()), read_config)?;
    let given = Options { metastore: given.metastore, accept_finding: accepted, ..Options::default() };
    let options = over(given, file);
    match StoreChoice::resolve(options.metastore, true)? {
        StoreChoice::Memory => {
            Err(Failure::new(Exit::Config, "memory: has no schema; name another store with --metastore"))
        }
        choice => Ok((choice, options.accept_finding)),
    }
}

/// The one place where precedence is decided. Each field is named, so that a new one is not
/// forgotten.
fn over(first: Options, second: Options) -> Options {
    Options {
        service: first.service.or(second.service),
        product: first.product.or(second.product),
        metastore: first.metastore.or(second.metastore),
        accept_finding: if first.accept_finding.is_empty() {
            second.accept_finding
        } else {
            first.accept_finding
        },
        kms: first.kms.or(second.kms),
        region_suffix: first.region_suffix.or(second.region_suffix),
        cache: first.cache.or(second.cache),
        danger_known_key: first.danger_known_key.or(second.danger_known_key),
        danger_discard_keys: first.danger_discard_keys.or(second.danger_discard_keys),
    }
}

fn read_config(path: &Path) -> Result<Options, Failure> {
    let shown = format!("the configuration file {}", path.display());
    let read = || -> io::Result<(u32, String)> {
        let mut file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((mode, text))
    };
    let (mode, text) = read().map_err(|error| Failure::read(&shown, &error))?;
    let options: Options = toml::from_str(&text).map_err(|error| {
        // Only the message: the whole text of the error quotes the file's line, and there may be
        // a key in it that does not belong there.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let (path, message) = (path.display(), error.message().trim_end());
        Failure::new(Exit::Config, format!("{path}:{line}: {message}; correct the file"))
    })?;
    if options.metastore.as_ref().is_some_and(StoreText::has_password) {
        private::check_mode(mode, &format!("{shown} holds a password and"), "change it")?;
    }
    Ok(options)
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
pub(crate) fn home() -> Result<PathBuf, Failure> {
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
