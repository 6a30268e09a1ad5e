//! Checks the master key, and wraps system keys anew.

mod print;

use claviger::{
    BackendError, CallContext, Rewrap, RewrapOptions, RewrapReport, repair_system_keys, rewrap_system_keys,
};
use claviger_kms::CopyCheck;
use claviger_open::{Absent, Making, OpenKms};

use crate::args::{Kms, KmsKeys, KmsRenew};
use crate::commands::kms::print::{Held, checks, report};
use crate::config::{Checked, Settings, resolve_check, resolve_from};
use crate::exit::{Exit, Failure};
use crate::explain;
use crate::kms::{KmsChoice, Opening};
use crate::open::{announce, announce_due, limits};
use crate::print::Printer;
use crate::tell::tell;
use crate::{files, runtime};

pub(super) fn run(command: Kms, printer: Printer) -> Result<Exit, Failure> {
    match command {
        Kms::Check(keys) => check(keys, printer),
        Kms::Repair(given) => renew(given, &Work::Repair, RewrapOptions::new(), printer),
        Kms::Rewrap(given) => {
            let from = given.from.map(resolve_from).transpose()?.map(Box::new);
            let how = RewrapOptions::new().revoke(given.revoke);
            let how = given.created_up_to.into_iter().fold(how, RewrapOptions::created_up_to);
            renew(given.renew, &Work::Rewrap(from), how, printer)
        }
    }
}

/// What is done about system keys.
enum Work {
    Repair,
    /// From this master key to that of `--kms`; else all, by that of `--kms` itself.
    Rewrap(Option<Box<KmsChoice>>),
}

fn check(keys: KmsKeys, printer: Printer) -> Result<Exit, Failure> {
    let (all, format) = (keys.all, keys.format);
    let (options, config) = keys.into_options();
    let checked = resolve_check(options, config.as_deref())?;
    let (choice, danger_known_key) = match &checked {
        Checked::Kms { choice, danger_known_key } => (choice, *danger_known_key),
        Checked::WithStore(settings) => (&settings.kms, settings.danger_known_key),
    };
    files::check_printing(&match &checked {
        Checked::Kms { choice, .. } => choice.used(),
        Checked::WithStore(settings) => settings.files(),
    })?;
    let never = Making::Never;
    let opening = Opening { making: never, members: never, absent: Absent::Member, danger_known_key };
    let (copies, held) = runtime::start()?.block_on(async {
        let kms = choice.open(opening).await?;
        let held = match &checked {
            Checked::Kms { .. } => None,
            Checked::WithStore(settings) => unwrap_held(settings, &kms, all).await?,
        };
        // A wrap and an unwrap.
        let context = CallContext::within(choice.call_wait() * 2);
        Ok::<_, Failure>((kms.check(&context).await, held))
    })?;
    checks(&copies, held.as_ref(), format, printer)?;
    let keys = held.iter().flat_map(|held| of_report(&held.report, &Work::Repair));
    Ok(worst(copies.iter().flat_map(failures).map(of_failure).chain(keys)))
}

/// Unwraps the system keys of the key store, and changes nothing.
async fn unwrap_held(settings: &Settings, kms: &OpenKms, all: bool) -> Result<Option<Held>, Failure> {
    let choice = &settings.metastore;
    let store = match choice.open_existing(settings.terms().to_read()).await? {
        Some(store) => store,
        None if choice.is_own && choice.file().is_some_and(|path| !path.exists()) => {
            tell(format_args!("there is no key store at {choice}, so that no system keys were looked at"));
            return Ok(None);
        }
        None => return Err(no_store(settings)),
    };
    let which = which(RewrapOptions::new(), settings, all).dry_run(true);
    let checked = repair_system_keys(store.admin(), &kms.kms(), &which).await;
    store.close().await;
    let report = checked.map_err(|error| explain::failure(&error))?;
    Ok(Some(Held { store: choice.to_string(), report }))
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

fn renew(given: KmsRenew, work: &Work, how: RewrapOptions, printer: Printer) -> Result<Exit, Failure> {
    let KmsRenew { keys, dry_run } = given;
    let (all, format) = (keys.all, keys.format);
    let (options, config) = keys.into_options();
    let settings = Settings::resolve(options, config.as_deref())?;
    let from = match work {
        Work::Rewrap(Some(from)) => from.used(),
        _ => Vec::new(),
    };
    files::check_printing(&[settings.files(), from].concat())?;
    let which = which(how, &settings, all).dry_run(dry_run);
    let renewed = runtime::start()?.block_on(renew_in(&settings, work, which, dry_run))?;
    if renewed.keys.is_empty() && renewed.damaged.is_empty() {
        let message = format!(
            "there are no system keys of {} in the key store {}; check --service, --product and --metastore, or say \
             --all",
            if all { "anybody" } else { "this service and product" },
            settings.metastore
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    let exit = worst(of_report(&renewed, work));
    report(&Held { store: settings.metastore.to_string(), report: renewed }, format, printer)?;
    Ok(exit)
}

fn which(how: RewrapOptions, settings: &Settings, all: bool) -> RewrapOptions {
    let which = how.limits(limits(&settings.kms));
    if all { which } else { which.only([settings.system_key_id()]) }
}

fn no_store(settings: &Settings) -> Failure {
    let message = format!("there is no key store at {}; check --metastore", settings.metastore);
    Failure::new(Exit::NotFound, message)
}

async fn renew_in(
    settings: &Settings,
    work: &Work,
    which: RewrapOptions,
    dry_run: bool,
) -> Result<RewrapReport, Failure> {
    let found = settings.metastore.open_existing(settings.terms()).await?;
    let store = found.ok_or_else(|| no_store(settings))?;
    let never = Making::Never;
    let danger_known_key = settings.danger_known_key;
    let opening = Opening { making: never, members: never, absent: Absent::Failure, danger_known_key };
    let from = match work {
        Work::Rewrap(Some(from)) => Some(from.open(opening).await?),
        _ => None,
    };
    let missing: Vec<_> = settings.kms.files().into_iter().filter(|path| !path.exists()).collect();
    let kms = settings.kms.open(making_what_is_new(work, opening, dry_run)).await?;
    if dry_run && matches!(work, Work::Rewrap(_)) {
        announce_due(&missing);
    }
    announce(&missing);
    let to = kms.kms();
    let renewed = match work {
        Work::Repair => repair_system_keys(store.admin(), &to, &which).await,
        Work::Rewrap(_) => match from {
            Some(from) => rewrap_system_keys(store.admin(), &from.kms(), &to, &which).await,
            None => rewrap_system_keys(store.admin(), &to, &to, &which.even_if_up_to_date(true)).await,
        },
    };
    store.close().await;
    renewed.map_err(|error| explain::failure(&error))
}

/// A master key to move to may be new, and so may a member: after this all keys have its copy.
fn making_what_is_new(work: &Work, opening: Opening, dry_run: bool) -> Opening {
    let making = if dry_run { Making::Feigned } else { Making::IfMissing };
    match work {
        Work::Rewrap(Some(_)) => Opening { making, members: making, ..opening },
        Work::Rewrap(None) => Opening { members: making, ..opening },
        Work::Repair => opening,
    }
}

fn of_report(report: &RewrapReport, work: &Work) -> Vec<Exit> {
    let damaged = report.damaged.iter().map(|_| Exit::Dangerous);
    report.keys.iter().map(|(_, done)| of_outcome(done, work)).chain(damaged).collect()
}

fn of_outcome(done: &Rewrap, work: &Work) -> Exit {
    match done {
        Rewrap::UpToDate | Rewrap::LeftOut | Rewrap::Gone => Exit::Done,
        Rewrap::Rewrapped { missing } if missing.is_empty() => Exit::Done,
        Rewrap::Rewrapped { .. } => Exit::Unavailable,
        // Nothing was repaired, and something needs to be.
        Rewrap::Due { .. } if matches!(work, Work::Repair) => Exit::Dangerous,
        Rewrap::Due { .. } => Exit::Done,
        Rewrap::Failed(error) if error.is_retryable() => Exit::Unavailable,
        _ => Exit::Dangerous,
    }
}
