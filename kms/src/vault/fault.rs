//! What goes wrong with Vault, and whether it passes.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use claviger::{BackendError, FailureClass, FailureKind};

/// What went wrong with Vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultTransitError {
    /// The configuration cannot work.
    #[error("Vault is configured wrongly: {0}")]
    Config(&'static str),
    /// A file that the configuration names cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that the configuration names does not hold what it should.
    #[error("{path} holds no {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// What is stored was not wrapped by a transit engine, was changed since, or is no key.
    #[error("what is stored is no key wrapped by transit: {0}")]
    Stored(&'static str),
    /// The server's certificate is not trusted, or there is no TLS that both speak.
    #[error("TLS with Vault failed")]
    Tls(#[source] Box<dyn StdError + Send + Sync>),
    /// There is no connection, or it broke.
    #[error("Vault is out of reach")]
    Network(#[source] Box<dyn StdError + Send + Sync>),
    /// The deadline is over.
    #[error("Vault gave no answer within {0:?}")]
    NoAnswer(Duration),
    /// Vault answered with an error.
    #[error("Vault answered {operation} with {status}{message}{hint}")]
    Refused {
        /// What it was asked for.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said: nothing, or after a colon.
        message: String,
        /// What may help: nothing, or in brackets.
        hint: &'static str,
    },
    /// A standby redirected to where keys and tokens do not go.
    #[error("Vault answered {operation} with a redirect that {reason}")]
    Redirected {
        /// What it was asked for.
        operation: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Vault, or something in front of it, answered with what makes no sense.
    #[error("the answer to {operation} {reason}")]
    Malformed {
        /// What was asked for.
        operation: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What Vault is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Wrap,
    Unwrap,
    Rewrap,
    Login,
    LookUp,
    Renew,
}

impl Operation {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Wrap => "encrypt",
            Self::Unwrap => "decrypt",
            Self::Rewrap => "rewrap",
            Self::Login => "login",
            Self::LookUp => "lookup-self",
            Self::Renew => "renew-self",
        }
    }

    pub(super) const fn malformed(self, reason: &'static str) -> VaultTransitError {
        VaultTransitError::Malformed { operation: self.name(), reason }
    }
}

impl VaultTransitError {
    /// Makes an error of what Vault answered, with what it said in words.
    pub(super) fn refused(operation: Operation, status: u16, said: &str) -> Self {
        let message = if said.is_empty() { String::new() } else { format!(": {said}") };
        Self::Refused { operation: operation.name(), status, hint: hint(operation, status, said), message }
    }

    fn class(&self) -> FailureClass {
        match self {
            Self::Stored(_) => FailureClass::Damaged,
            Self::Network(_) | Self::NoAnswer(_) => FailureClass::Transient,
            Self::Refused { operation, status, message, .. } => class_of(operation, *status, message),
            Self::Config(_)
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Tls(_)
            | Self::Redirected { .. }
            | Self::Malformed { .. } => FailureClass::Permanent,
        }
    }

    fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Config(_) | Self::File { .. } | Self::Content { .. } => Some(FailureKind::Settings),
            Self::Tls(_) => Some(FailureKind::Tls),
            Self::Network(_) | Self::NoAnswer(_) => Some(FailureKind::Unreachable),
            // Of a ciphertext it says what is wrong with 400 or 500, too.
            Self::Refused { .. } if self.class() == FailureClass::Damaged => None,
            Self::Refused { operation, status, message, .. } => kind_of(operation, *status, message),
            Self::Stored(_) | Self::Redirected { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// Says what an answer is about.
fn kind_of(operation: &str, status: u16, said: &str) -> Option<FailureKind> {
    let logs_in = operation == Operation::Login.name();
    Some(match status {
        400 | 401 | 403 if logs_in => FailureKind::Unauthenticated,
        401 => FailureKind::Unauthenticated,
        403 => FailureKind::Denied,
        400 | 404 if said.contains(NO_KEY) => FailureKind::NoSuchKey,
        // Nothing is mounted there, in this namespace.
        404 => FailureKind::Settings,
        429 => FailureKind::Busy,
        408 | 412 | 425 | 472..=474 | 500..=599 => FailureKind::Unreachable,
        _ => return None,
    })
}

const NO_KEY: &str = "encryption key not found";

/// Says what a status means for the next call.
///
/// See <https://developer.hashicorp.com/vault/api-docs#http-status-codes>, and for 429 to 474
/// <https://developer.hashicorp.com/vault/api-docs/system/health>: some load balancers answer with
/// what they were told of a node's health.
fn class_of(operation: &str, status: u16, said: &str) -> FailureClass {
    let opens = operation == Operation::Unwrap.name() || operation == Operation::Rewrap.name();
    match status {
        400 | 500 if opens && is_damage(said) => FailureClass::Damaged,
        408 | 412 | 425 | 429 | 472..=474 => FailureClass::Transient,
        // Not initialised: it waits for an operator.
        501 => FailureClass::Permanent,
        500..=599 => FailureClass::Transient,
        _ => FailureClass::Permanent,
    }
}

/// Returns `true` if Vault found the ciphertext altered, or made by another key. Of a version that it
/// does not know it says `invalid ciphertext`, too; but it may be the one that is behind: a standby,
/// or a Vault that was restored.
fn is_damage(said: &str) -> bool {
    let signs = [
        "invalid ciphertext",
        "unable to decrypt",
        "message authentication failed",
        // Answered with 500, as nothing else that is wrong with a ciphertext is.
        "failed to RSA decrypt",
    ];
    signs.iter().any(|sign| said.contains(sign)) && !said.contains(TOO_NEW)
}

const TOO_NEW: &str = "version is too new";

fn hint(operation: Operation, status: u16, said: &str) -> &'static str {
    let signs = [
        ("too old", " (the key's min_decryption_version forbids this version)"),
        (TOO_NEW, " (the version was altered, or this Vault is behind the one that wrapped)"),
        ("missing 'context'", " (the transit key is derived, which is not supported)"),
        (NO_KEY, " (there is no transit key of this name)"),
    ];
    if let Some((_, hint)) = signs.iter().find(|(sign, _)| said.contains(sign)) {
        return hint;
    }
    match (operation, status) {
        (Operation::Login, 400 | 403) => " (the role or its secret is refused)",
        (_, 403) => " (the token is gone, or its policy lacks update on this path)",
        (_, 404) => " (nothing is mounted there, in this namespace)",
        (_, 501) => " (Vault is not initialised)",
        (_, 503) => " (Vault is sealed, or being maintained)",
        _ => "",
    }
}

impl From<VaultTransitError> for BackendError {
    fn from(error: VaultTransitError) -> Self {
        let (class, kind) = (error.class(), error.kind());
        Self::new(class, error).with_kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(operation: Operation, status: u16, said: &str) -> FailureClass {
        BackendError::from(VaultTransitError::refused(operation, status, said)).class()
    }

    #[test]
    fn statuses_have_their_classes() {
        for status in [408, 412, 425, 429, 472, 473, 474, 500, 502, 503, 504, 530] {
            assert_eq!(class(Operation::Wrap, status, ""), FailureClass::Transient, "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 405, 413, 423, 501] {
            assert_eq!(class(Operation::Unwrap, status, ""), FailureClass::Permanent, "{status}");
        }
    }

    #[test]
    fn answers_have_their_kinds() {
        use FailureKind as Kind;
        for (operation, status, said, kind) in [
            (Operation::Login, 400, "invalid role or secret ID", Some(Kind::Unauthenticated)),
            (Operation::Login, 403, "permission denied", Some(Kind::Unauthenticated)),
            (Operation::Unwrap, 403, "permission denied", Some(Kind::Denied)),
            (Operation::Unwrap, 400, "encryption key not found", Some(Kind::NoSuchKey)),
            (Operation::Wrap, 404, "no handler for route", Some(Kind::Settings)),
            (Operation::Wrap, 429, "", Some(Kind::Busy)),
            (Operation::Wrap, 503, "Vault is sealed", Some(Kind::Unreachable)),
            (Operation::Unwrap, 500, "failed to RSA decrypt the ciphertext", None),
            (Operation::Unwrap, 400, "invalid ciphertext: no prefix", None),
            (Operation::Wrap, 400, "missing 'context'", None),
        ] {
            let error = BackendError::from(VaultTransitError::refused(operation, status, said));
            assert_eq!(error.kind(), kind, "{status} {said}");
        }
    }

    #[test]
    fn damage_is_what_vault_says_of_a_ciphertext() {
        for (status, said) in [
            (400, "invalid ciphertext: unable to decrypt"),
            (400, "invalid ciphertext: no prefix"),
            (400, "cipher: message authentication failed"),
            (500, "failed to RSA decrypt the ciphertext: crypto/rsa: decryption error"),
        ] {
            assert_eq!(class(Operation::Unwrap, status, said), FailureClass::Damaged, "{said}");
            assert_eq!(class(Operation::Rewrap, status, said), FailureClass::Damaged, "{said}");
            assert_ne!(class(Operation::Wrap, status, said), FailureClass::Damaged, "{said}");
        }
        for said in [
            "ciphertext or signature version is disallowed by policy (too old)",
            "invalid ciphertext: version is too new",
            "missing 'context' for key derivation; the key was created using a derived key",
            "encryption key not found",
        ] {
            assert_eq!(class(Operation::Unwrap, 400, said), FailureClass::Permanent, "{said}");
            let shown = VaultTransitError::refused(Operation::Unwrap, 400, said).to_string();
            assert!(shown.ends_with(')') && shown.contains(said), "{shown}");
        }
    }
}
