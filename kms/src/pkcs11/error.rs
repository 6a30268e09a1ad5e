//! What goes wrong with a token, and what each return code of PKCS#11 means for the caller.

use std::path::PathBuf;
use std::time::Duration;

use claviger::{BackendError, FailureClass, FailureKind, RandomError};
use cryptoki::error::{Error as CryptokiError, RvError};

/// Why a token did not serve. It never shows a PIN or a key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Pkcs11Error {
    #[error("PKCS#11 configuration: {0}")]
    Config(&'static str),
    #[error("thread for the token cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("PKCS#11 module {path} cannot be loaded")]
    Module { path: PathBuf, source: CryptokiError },
    #[error("there is no token with the label {0:?}")]
    TokenNotFound(String),
    #[error("several tokens have the label {0:?}")]
    SeveralTokens(String),
    #[error("token has no secret key with the label {0:?}")]
    KeyNotFound(String),
    #[error("token no longer has a secret key with the label {0:?}")]
    TokenIncomplete(String),
    #[error("token has several secret keys with the label {0:?}")]
    SeveralKeys(String),
    #[error("key {label:?} is refused: {reason}")]
    KeyRefused { label: String, reason: &'static str },
    #[error("token refused the PIN ({0}); it is not tried again until this KMS is opened anew")]
    PinRefused(RvError),
    #[error("token has no mechanism to wrap keys with: {0}")]
    NoMechanism(&'static str),
    #[error("token answered {answer} instead of what {mechanism} makes")]
    BadAnswer { mechanism: &'static str, answer: &'static str },
    #[error("PKCS#11 call failed")]
    Call(#[source] CryptokiError),
    #[error("random number generator failed")]
    Random(#[from] RandomError),
    #[error("not a key wrapped by this KMS, or damaged")]
    Malformed,
    #[error("key was wrapped under {0:?}, which is not configured")]
    UnknownKey(String),
    #[error("wrapped key is damaged or forged")]
    Tampered(#[source] Box<Self>),
    #[error("what was unwrapped is no key of this library")]
    NoKeyInIt,
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("too many calls wait for the token")]
    QueueFull,
    #[error("call to the token was given up")]
    GivenUp,
    #[error("KMS was opened before this process was forked; open it anew here")]
    Forked,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The session, the login or the token is gone: connect anew, and try once more.
    Disconnected,
    /// It may go well later.
    Transient,
    /// The device is in trouble, or what was to be unwrapped is forged: the code does not say.
    Unclear,
    /// It will not go well later.
    Permanent,
    /// What was to be unwrapped is not what was wrapped.
    Damaged,
}

impl Pkcs11Error {
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Call(CryptokiError::Pkcs11(code, _)) => meaning(*code),
            // A token that is not there may be plugged in, or be on its way back from a restart.
            Self::TokenNotFound(_)
            | Self::TokenIncomplete(_)
            | Self::Thread(_)
            | Self::Random(_)
            | Self::NoAnswer(_)
            | Self::QueueFull
            | Self::GivenUp => Meaning::Transient,
            Self::Config(_)
            | Self::Module { .. }
            | Self::SeveralTokens(_)
            | Self::KeyNotFound(_)
            | Self::SeveralKeys(_)
            | Self::KeyRefused { .. }
            | Self::PinRefused(_)
            | Self::NoMechanism(_)
            | Self::BadAnswer { .. }
            | Self::Call(_)
            | Self::UnknownKey(_)
            | Self::Forked => Meaning::Permanent,
            Self::Malformed | Self::Tampered(_) | Self::NoKeyInIt => Meaning::Damaged,
        }
    }
}

impl From<CryptokiError> for Pkcs11Error {
    fn from(error: CryptokiError) -> Self {
        Self::Call(error)
    }
}

impl From<Pkcs11Error> for BackendError {
    fn from(error: Pkcs11Error) -> Self {
        let class = match error.meaning() {
            Meaning::Disconnected | Meaning::Transient | Meaning::Unclear => FailureClass::Transient,
            Meaning::Permanent => FailureClass::Permanent,
            Meaning::Damaged => FailureClass::Damaged,
        };
        let kind = error.kind();
        Self::new(class, error).with_kind(kind)
    }
}

impl Pkcs11Error {
    fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Call(CryptokiError::Pkcs11(code, _)) => kind(*code),
            Self::PinRefused(_) => Some(FailureKind::Unauthenticated),
            Self::KeyNotFound(_) | Self::UnknownKey(_) => Some(FailureKind::NoSuchKey),
            Self::Config(_)
            | Self::Module { .. }
            | Self::SeveralTokens(_)
            | Self::SeveralKeys(_)
            | Self::KeyRefused { .. }
            | Self::NoMechanism(_) => Some(FailureKind::Settings),
            Self::TokenNotFound(_) | Self::TokenIncomplete(_) | Self::NoAnswer(_) => {
                Some(FailureKind::Unreachable)
            }
            Self::QueueFull => Some(FailureKind::Busy),
            Self::Thread(_)
            | Self::BadAnswer { .. }
            | Self::Call(_)
            | Self::Random(_)
            | Self::Malformed
            | Self::Tampered(_)
            | Self::NoKeyInIt
            | Self::GivenUp
            | Self::Forked => None,
        }
    }
}

/// What a return code is about, if it is about anything that somebody can see to.
const fn kind(code: RvError) -> Option<FailureKind> {
    use RvError as Rv;
    Some(match code {
        code if is_about_the_pin(code) => FailureKind::Unauthenticated,
        Rv::UserNotLoggedIn | Rv::UserPinNotInitialized => FailureKind::Unauthenticated,
        Rv::ActionProhibited
        | Rv::KeyFunctionNotPermitted
        | Rv::KeyUnextractable
        | Rv::KeyNotWrappable
        | Rv::AttributeSensitive => FailureKind::Denied,
        Rv::DeviceRemoved | Rv::TokenNotPresent | Rv::TokenNotRecognized | Rv::SlotIdInvalid => {
            FailureKind::Unreachable
        }
        Rv::SessionCount | Rv::HostMemory | Rv::DeviceMemory => FailureKind::Busy,
        Rv::DeviceError => FailureKind::Device,
        Rv::MechanismInvalid | Rv::MechanismParamInvalid | Rv::KeySizeRange | Rv::KeyTypeInconsistent => {
            FailureKind::Settings
        }
        Rv::TokenWriteProtected => FailureKind::ReadOnly,
        _ => return None,
    })
}

/// Returns `true` if a login that fails so may have cost one of the tries that a token allows, or
/// would fail in the same way again.
pub(super) const fn is_about_the_pin(code: RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::PinTooWeak
    )
}

/// `CKR_AEAD_DECRYPT_FAILED` of PKCS#11 3.0, which the crate has no name for.
const AEAD_DECRYPT_FAILED: RvError = RvError::UnknownErrorCode(0x35);

/// The table of return codes, by section 5.1 of PKCS#11 3.0. What a vendor made up is unclear.
fn meaning(code: RvError) -> Meaning {
    use RvError as Rv;
    match code {
        Rv::SessionHandleInvalid
        | Rv::SessionClosed
        | Rv::DeviceRemoved
        | Rv::TokenNotPresent
        | Rv::TokenNotRecognized
        | Rv::UserNotLoggedIn
        | Rv::SlotIdInvalid
        | Rv::CryptokiNotInitialized
        | Rv::KeyHandleInvalid
        | Rv::ObjectHandleInvalid
        | Rv::WrappingKeyHandleInvalid
        | Rv::UnwrappingKeyHandleInvalid
        | Rv::KeyChanged
        // An operation that another left behind ends with its session.
        | Rv::OperationActive
        | Rv::OperationNotInitialized => Meaning::Disconnected,

        Rv::Cancel
        | Rv::FunctionCanceled
        | Rv::FunctionRejected
        | Rv::HostMemory
        | Rv::DeviceMemory
        | Rv::DeviceError
        | Rv::SessionCount
        | Rv::SessionExists
        | Rv::SessionReadWriteSoExists
        | Rv::UserAnotherAlreadyLoggedIn
        | Rv::UserTooManyTypes
        // A token that is being set up again: nothing was tried.
        | Rv::UserPinNotInitialized
        | Rv::RandomNoRng => Meaning::Transient,

        Rv::GeneralError | Rv::FunctionFailed | Rv::DataInvalid | Rv::DataLenRange | Rv::ArgumentsBad => {
            Meaning::Unclear
        }
        AEAD_DECRYPT_FAILED => Meaning::Damaged,
        Rv::VendorDefined(_) | Rv::UnknownErrorCode(_) => Meaning::Unclear,

        Rv::EncryptedDataInvalid
        | Rv::EncryptedDataLenRange
        | Rv::WrappedKeyInvalid
        | Rv::WrappedKeyLenRange
        | Rv::SignatureInvalid
        | Rv::SignatureLenRange => Meaning::Damaged,

        _ => Meaning::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_codes_have_their_kinds() {
        for (code, expected) in [
            (RvError::PinIncorrect, Some(FailureKind::Unauthenticated)),
            (RvError::PinLocked, Some(FailureKind::Unauthenticated)),
            (RvError::KeyFunctionNotPermitted, Some(FailureKind::Denied)),
            (RvError::DeviceRemoved, Some(FailureKind::Unreachable)),
            (RvError::SessionCount, Some(FailureKind::Busy)),
            (RvError::DeviceError, Some(FailureKind::Device)),
            (RvError::MechanismInvalid, Some(FailureKind::Settings)),
            (RvError::EncryptedDataInvalid, None),
            (RvError::GeneralError, None),
        ] {
            assert_eq!(kind(code), expected, "{code}");
            let error = BackendError::from(Pkcs11Error::Call(CryptokiError::Pkcs11(
                code,
                cryptoki::context::Function::Login,
            )));
            assert_eq!(error.kind(), expected, "{code}");
        }
    }
}
