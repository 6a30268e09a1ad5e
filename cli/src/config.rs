//! Which keys to use: flags and variables before the configuration file, and that before the
//! defaults. Nothing is opened here but the configuration file.

use std::io::Read as _;
use std::num::NonZeroU64;
use std::path::Path;

use claviger::KeyId;
use claviger_kms::PrivateFile;
use claviger_metastore::FindingId;
use claviger_open::private;

use crate::args::{Options, SchemaStore};
use crate::exit::{Exit, Failure};
use crate::explain::kms::spec;
use crate::given::Given;
use crate::home::home;
use crate::kms::KmsChoice;
use crate::kms::text::{FROM, KMS, KmsGiven};
use crate::store::text::METASTORE;
use crate::store::{StoreChoice, Terms};
use crate::used::{Role, Used};

/// What the options come to.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) service: String,
    pub(crate) product: String,
    pub(crate) metastore: StoreChoice,
    /// The dangerous findings in spite of which the key store is used.
    pub(crate) accepted: Vec<FindingId>,
    /// Keys that a table keeps under another id, which it takes for theirs, serve decrypts.
    pub(crate) folded_ids: bool,
    pub(crate) kms: KmsChoice,
    /// The well-known test key serves as static master key.
    pub(crate) danger_known_key: bool,
    pub(crate) region_suffix: Option<String>,
    pub(crate) cache: NonZeroU64,
    /// The files that said so.
    sources: Vec<Used>,
}

impl Settings {
    /// Puts flags and variables, which are in `given`, over the configuration file.
    pub(crate) fn resolve(given: Options, config: Option<&Path>) -> Result<Self, Failure> {
        let file = config.map_or_else(|| Ok(Options::default()), read_config)?;
        Self::of(over(given, file), config)
    }

    fn of(options: Options, config: Option<&Path>) -> Result<Self, Failure> {
        let described =
            [options.metastore.as_ref().and_then(Given::file), options.kms.as_ref().and_then(KmsGiven::file)];
        let mut sources = Used::all(Role::Option, described.into_iter().flatten());
        sources.extend(config.map(|config| Used::new(Role::Config, config)));
        Ok(Self {
            sources,
            metastore: StoreChoice::resolve(
                options.metastore,
                options.danger_discard_keys.unwrap_or_default(),
            )?,
            accepted: options.accept_finding,
            folded_ids: options.folded_ids.unwrap_or_default(),
            kms: kms_choice(options.kms)?,
            danger_known_key: options.danger_known_key.unwrap_or_default(),
            service: options.service.unwrap_or_else(|| "claviger".to_owned()),
            product: options.product.unwrap_or_else(|| "default".to_owned()),
            region_suffix: options.region_suffix,
            cache: options.cache.unwrap_or(CACHE),
        })
    }

    /// On what terms the key store is used.
    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms { accepted: &self.accepted, folded_ids: self.folded_ids, read_only: false }
    }

    pub(crate) fn system_key_id(&self) -> KeyId {
        KeyId::of_system_key(&self.service, &self.product, self.region_suffix.as_deref())
    }
}

impl Settings {
    /// All files that say which keys are used, or hold them.
    pub(crate) fn files(&self) -> Vec<Used> {
        [self.sources.clone(), self.metastore.used(), self.kms.used()].concat()
    }
}

/// Which key store the `schema` commands are about, and which findings the user accepts. `memory:`
/// is none of those.
pub(crate) fn resolve_store(
    given: SchemaStore,
    accepted: Vec<FindingId>,
) -> Result<(StoreChoice, Vec<FindingId>), Failure> {
    resolve_store_and_kms(given, accepted, None).map(|(choice, accepted, _)| (choice, accepted))
}

/// The same, and what is said of the master key.
pub(crate) fn resolve_store_and_kms(
    given: SchemaStore,
    accepted: Vec<FindingId>,
    kms: Option<KmsGiven>,
) -> Result<(StoreChoice, Vec<FindingId>, Option<KmsGiven>), Failure> {
    let file = given.config.as_deref().map_or_else(|| Ok(Options::default()), read_config)?;
    let given = Options { metastore: given.metastore, accept_finding: accepted, kms, ..Options::default() };
    let options = over(given, file);
    let choice = StoreChoice::resolve(options.metastore, true)?;
    if choice.is_memory() {
        return Err(Failure::new(Exit::Config, "memory: has no schema; name another store with --metastore"));
    }
    Ok((choice, options.accept_finding, options.kms))
}

/// A master key that is to be checked.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Checked {
    Kms {
        choice: KmsChoice,
        danger_known_key: bool,
    },
    /// With the key store that was given, or that goes with the default master key.
    WithStore(Settings),
}

/// Which master key is to be checked. The default key store is not that of any other master key.
pub(crate) fn resolve_check(given: Options, config: Option<&Path>) -> Result<Checked, Failure> {
    let file = config.map_or_else(|| Ok(Options::default()), read_config)?;
    let options = over(given, file);
    if options.metastore.is_some() || options.kms.is_none() {
        return Settings::of(options, config).map(Checked::WithStore);
    }
    let danger_known_key = options.danger_known_key.unwrap_or_default();
    Ok(Checked::Kms { choice: kms_choice(options.kms)?, danger_known_key })
}

/// Which master key `--from` means: in the words of `--kms`, or the one of another configuration file,
/// where alone some can be described.
pub(crate) fn resolve_from(given: KmsGiven) -> Result<KmsChoice, Failure> {
    let Some(path) = given.config() else { return given.resolve(&FROM).map(KmsChoice::from) };
    let lacks = || {
        Failure::new(Exit::Config, format!("{} says no kms; name another file with --from", path.display()))
    };
    read_config(path)?.kms.ok_or_else(lacks)?.resolve(&KMS).map(KmsChoice::from)
}

pub(crate) fn kms_choice(given: Option<KmsGiven>) -> Result<KmsChoice, Failure> {
    match given {
        Some(given) => given.resolve(&KMS).map(KmsChoice::from),
        None => Ok(KmsChoice::own(home()?.join("master.key"))),
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
        folded_ids: first.folded_ids.or(second.folded_ids),
        kms: first.kms.or(second.kms),
        region_suffix: first.region_suffix.or(second.region_suffix),
        cache: first.cache.or(second.cache),
        danger_known_key: first.danger_known_key.or(second.danger_known_key),
        danger_discard_keys: first.danger_discard_keys.or(second.danger_discard_keys),
    }
}

fn read_config(path: &Path) -> Result<Options, Failure> {
    let shown = format!("the configuration file {}", path.display());
    let mut file = PrivateFile::open(path).map_err(|error| Failure::read(&shown, &error))?;
    private::check_author(&file, &shown).map_err(spec)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| Failure::read(&shown, &error))?;
    let options = parse(path, &bytes, &shown)?;
    if options.metastore.as_ref().is_some_and(|given| given.has_secret(&METASTORE)) {
        private::check(&file, &format!("{shown} holds a password and"), "change it").map_err(spec)?;
    }
    if options.kms.as_ref().is_some_and(KmsGiven::has_secret) {
        private::check(&file, &format!("{shown} holds a secret and"), "change it").map_err(spec)?;
    }
    Ok(options)
}

fn parse(path: &Path, bytes: &[u8], shown: &str) -> Result<Options, Failure> {
    let text = private::text(bytes).map_err(|why| Failure::new(Exit::Config, format!("{shown} {why}")))?;
    let place = |at: Option<usize>| {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        format!("{}:{}", path.display(), before.matches('\n').count() + 1)
    };
    let mut options: Options = toml::from_str(text).map_err(|error| {
        // Only the message: the whole text of the error quotes the file's line, and there may be
        // a key in it that does not belong there.
        let message = format!("{}; correct the file", error.message().trim_end());
        Failure::new(Exit::Config, message).at(&place(error.span().map(|span| span.start)))
    })?;
    let read = options.kms.map(KmsGiven::read_table).transpose();
    options.kms = read.map_err(|wrong| {
        let place = place(wrong.at());
        spec(wrong).at(&format!("{place}: kms"))
    })?;
    Ok(options)
}

/// Reads the text of a configuration file, for fuzz targets: what it comes to, or the program's message.
#[cfg(fuzzing)]
pub fn fuzz(text: &[u8]) -> Result<String, String> {
    let path = Path::new("claviger.toml");
    let settings =
        parse(path, text, "the configuration file").and_then(|options| Settings::of(options, Some(path)));
    settings.map(|settings| format!("{settings:?}")).map_err(|failure| failure.message().to_owned())
}

const CACHE: NonZeroU64 = match NonZeroU64::new(50_000) {
    Some(keys) => keys,
    None => NonZeroU64::MIN,
};
