//! Checks the master key, and wraps system keys anew.

mod print;

use claviger::{BackendError, KeyId, Rewrap, RewrapOptions, RewrapReport};
use claviger_kms::CopyCheck;

use crate::args::{Kms, KmsCheck, KmsKeys};
use crate::config::{Settings, resolve_from, resolve_kms};
use crate::exit::{Exit, Failure};
use crate::kms::KmsChoice;
use crate::kms::commands::print::{checks, report};
use crate::kms::open::{Absent, Making, OpenKms, Opening};
use crate::open::{announce, limits};
use crate::print::print;
use crate::store::backend::{Admission, Backend};

pub(crate) fn run(command: Kms) -> Result<Exit, Failure> {
    match command {
        Kms::Check(given) => check(given),
        Kms::Repair(keys) => renew(keys, &Work::Repair),
        Kms::Rewrap(given) => {
            let from = given.from.map(resolve_from).transpose()?.map(Box::new);
            renew(given.keys, &Work::Rewrap(from))
        }
    }
}

/// What is done about system keys.
enum Work {
    Repair,
    /// From this master key to that of `--kms`; else all, by that of `--kms` itself.
    Rewrap(Option<Box<KmsChoice>>),
}

fn check(given: KmsCheck) -> Result<Exit, Failure> {
    let format = given.format;
    let (options, config) = given.into_options();
    let (choice, danger_known_key) = resolve_kms(options, config.as_deref())?;
    let never = Making::Never;
    let opening = Opening { making: never, members: never, absent: Absent::Member, danger_known_key };
    let checked = crate::runtime()?.block_on(async {
        let kms = OpenKms::open(&choice, opening).await?;
        Ok::<_, Failure>(kms.check().await)
    })?;
    print(&checks(&checked, format)?)?;
    Ok(worst(checked.iter().flat_map(failures).map(of_failure)))
}

/// What went wrong with a copy.
fn failures(check: &CopyCheck) -> impl Iterator<Item = &BackendError> {
    let unwrap = check.unwrap.as_ref().and_then(|unwrap| unwrap.as_ref().err());
    check.wrap.as_ref().err().into_iter().chain(unwrap)
}

fn of_failure(error: &BackendError) -> Exit {
    if error.is_transient() { Exit::Unavailable } else { Exit::Dangerous }
}

/// What can lose keys counts more than what passes by itself.
fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let rank = |exit: &Exit| match exit {
        Exit::Done => 0,
        Exit::Unavailable => 1,
        _ => 2,
    };
    exits.into_iter().max_by_key(rank).unwrap_or(Exit::Done)
}

fn renew(keys: KmsKeys, work: &Work) -> Result<Exit, Failure> {
    let (all, dry_run, format) = (keys.all, keys.dry_run, keys.kms.format);
    let (options, config) = keys.into_options();
    let settings = Settings::resolve(options, config.as_deref())?;
    if let Some(path) = settings.metastore.file().filter(|path| !path.exists()) {
        let message = format!("there is no key store at {}; check --metastore", path.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let mut which = RewrapOptions::new().dry_run(dry_run).limits(limits());
    if !all {
        which = which.only([settings.system_key_id()]);
    }
    let renewed = crate::runtime()?.block_on(renew_in(&settings, work, which, dry_run))?;
    if renewed.keys.is_empty() && renewed.damaged.is_empty() {
        let message = format!(
            "there are no system keys of {} in the key store {}; check --service, --product and --metastore, or say \
             --all",
            if all { "anybody" } else { "this service and product" },
            settings.metastore
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    print(&report(&settings.metastore, &renewed, format)?)?;
    let damaged = renewed.damaged.iter().map(|_| Exit::Dangerous);
    Ok(worst(renewed.keys.iter().map(|(_, done)| of_outcome(done, work)).chain(damaged)))
}

async fn renew_in(
    settings: &Settings,
    work: &Work,
    which: RewrapOptions,
    dry_run: bool,
) -> Result<RewrapReport, Failure> {
    let never = Making::Never;
    let danger_known_key = settings.danger_known_key;
    let opening = Opening { making: never, members: never, absent: Absent::Failure, danger_known_key };
    let from = match work {
        Work::Rewrap(Some(from)) => Some(OpenKms::open(from, opening).await?),
        _ => None,
    };
    let missing: Vec<_> = settings.kms.files().into_iter().filter(|path| !path.exists()).collect();
    let kms = OpenKms::open(&settings.kms, making_what_is_new(work, opening, dry_run)).await?;
    announce(&missing);
    // Rows are listed here, each by its own id.
    let admission = Admission::Checked { accepted: &settings.accepted, folded_ids: false };
    let store = Backend::open(&settings.metastore, admission).await?;
    let to = kms.boxed();
    let renewed = match work {
        Work::Repair => store.repair(&to, &which).await,
        Work::Rewrap(_) => match from {
            Some(from) => store.rewrap(&from.boxed(), &to, &which).await,
            None => store.rewrap(&to, &to, &which.even_if_up_to_date(true)).await,
        },
    };
    store.close().await;
    renewed.map_err(|error| Failure::crypt(&error))
}

/// A master key to move to may be new, and so may a member: after this all keys have its copy.
fn making_what_is_new(work: &Work, opening: Opening, dry_run: bool) -> Opening {
    match work {
        Work::Rewrap(from) if !dry_run => {
            let making = if from.is_some() { Making::IfMissing } else { Making::Never };
            Opening { making, members: Making::IfMissing, ..opening }
        }
        _ => opening,
    }
}

impl Settings {
    fn system_key_id(&self) -> KeyId {
        let Self { service, product, .. } = self;
        let suffix = self.region_suffix.as_ref().map(|suffix| format!("_{suffix}")).unwrap_or_default();
        KeyId::new(format!("_SK_{service}_{product}{suffix}"))
    }
}

fn of_outcome(done: &Rewrap, work: &Work) -> Exit {
    match done {
        Rewrap::UpToDate | Rewrap::Gone => Exit::Done,
        Rewrap::Rewrapped { missing } if missing.is_empty() => Exit::Done,
        Rewrap::Rewrapped { .. } => Exit::Unavailable,
        // Nothing was repaired, and something needs to be.
        Rewrap::Due { .. } if matches!(work, Work::Repair) => Exit::Dangerous,
        Rewrap::Due { .. } => Exit::Done,
        Rewrap::Failed(error) if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Dangerous,
    }
}
