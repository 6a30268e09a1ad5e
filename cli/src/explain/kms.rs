//! What it means that a description cannot be used, and that a master key cannot be opened.

use std::io::ErrorKind;

use claviger::{BackendError, ErrorChain, FailureKind};
use claviger_kms::LocalKmsError;
use claviger_open::{OpenError, SpecError, SpecFault};

use crate::exit::{Exit, Failure};
use crate::explain::find;

pub(crate) fn spec(error: SpecError) -> Failure {
    match error.into_fault() {
        SpecFault::Exposed(message) => Failure::new(Exit::Permission, message),
        SpecFault::Unreadable { what, source, .. } => Failure::read(&what, &source),
        wrong => Failure::new(Exit::Config, wrong.to_string()),
    }
}

pub(crate) fn opening(error: OpenError) -> Failure {
    match error {
        OpenError::Spec(error) => spec(error),
        OpenError::MissingFeature { service, feature, .. } => missing(service, feature),
        OpenError::GuessableKey { file, reason, .. } => {
            let file = file.map(|file| format!(" {}", file.display())).unwrap_or_default();
            Failure::new(
                Exit::Config,
                format!(
                    "the master key{file} is one that anybody can guess ({reason}); make another with openssl rand -hex \
                     32, or for test data say --danger-known-key"
                ),
            )
        }
        OpenError::Service(error) => match find(&error) {
            Some(error) => local(error),
            None => service(&error),
        },
        OpenError::Build(error) => Failure::new(
            Exit::Config,
            format!("the options do not fit together: {}; see claviger --help", ErrorChain::new(&error)),
        ),
        other => Failure::internal(&other.to_string()),
    }
}

/// This binary was built without a feature.
pub(super) fn missing(service: &str, feature: &str) -> Failure {
    Failure::new(
        Exit::Config,
        format!(
            "this claviger was built without {service}; build one with its feature: cargo build --release -p \
             claviger-cli --features {feature}"
        ),
    )
}

fn service(error: &BackendError) -> Failure {
    let (exit, advice) = if error.is_transient() {
        (Exit::Unavailable, "check that it can be reached, and try again")
    } else {
        (Exit::Config, "check --kms")
    };
    Failure::new(exit, format!("cannot open the master key's service ({}); {advice}", ErrorChain::new(error)))
}

fn local(error: &LocalKmsError) -> Failure {
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
        LocalKmsError::Unusable { source, .. } if source.is_transient() => (Exit::Unavailable, "try again"),
        LocalKmsError::Unusable { source, .. } if source.kind() == Some(FailureKind::Settings) => {
            (Exit::Config, "anybody can guess it: restore it from a copy, or choose another with --kms")
        }
        _ => (Exit::Config, "choose another with --kms"),
    };
    Failure::new(exit, format!("{}; {advice}", ErrorChain::new(error)))
}
