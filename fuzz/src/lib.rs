//! What the fuzz targets share.

pub mod http;

use std::cell::OnceCell;
use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use claviger::{BackendError, CallContext, Created, FailureClass, KeyId, KeyMeta, SecretKey};
use tokio::runtime::{Builder, Runtime};

/// A secret that targets put where secrets belong. Nothing in it is escaped, quoted or folded anywhere, so that
/// wherever it is shown, it is found.
pub const SECRET: &str = "q7secret7q";

/// Returns `true` if an input says the secret by itself, as libFuzzer learns to by and by. Characters that no reader
/// shows do not part it.
#[must_use]
pub fn says_secret(input: &str) -> bool {
    input.chars().filter(|character| !character.is_control()).collect::<String>().contains(SECRET)
}

/// Says all that a log would: the error and its causes, for users and for programmers.
#[must_use]
pub fn told(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(|cause| format!("{cause} {cause:?}\n")).collect()
}

/// Holds that nothing which is shown has the secret in it.
#[track_caller]
pub fn assert_hidden(shown: &str) {
    assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
}

/// Holds that a refusal of what is stored is no outage: it is damaged, or not for us, and nobody tries again.
#[track_caller]
pub fn assert_refused(error: &BackendError) {
    assert!(matches!(error.class(), FailureClass::Damaged | FailureClass::Permanent), "{}", told(error));
}

/// Runs a future to its end on this thread.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let make = || Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
        runtime.get_or_init(make).block_on(future)
    })
}

/// A call with time enough.
#[must_use]
pub fn call() -> CallContext {
    CallContext::within(Duration::from_secs(10))
}

/// A time of a key.
#[must_use]
pub fn created(seconds: i64) -> Created {
    Created::new(seconds).expect("it is a time of a key")
}

/// The name of a key's version.
#[must_use]
pub fn meta(id: &str, seconds: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), created(seconds))
}

/// A key of these bytes.
#[must_use]
pub fn key(bytes: [u8; 32]) -> SecretKey {
    let key = SecretKey::try_init(|key| {
        key.copy_from_slice(&bytes);
        Ok::<_, std::convert::Infallible>(())
    });
    key.expect("there is memory")
}

/// Splits what chooses, `0` and so on, from what is chosen.
#[must_use]
pub fn chosen(bytes: &[u8], choices: u8) -> Option<(u8, &[u8])> {
    let (choice, rest) = bytes.split_first()?;
    Some((choice.wrapping_sub(b'0') % choices, rest))
}

/// Holds that two readers, of which neither knows the other, took a text for the same.
#[track_caller]
pub fn assert_agree<T: PartialEq + Debug, E: Debug, F: Debug>(one: &Result<T, E>, other: &Result<T, F>) {
    assert_eq!(one.as_ref().ok(), other.as_ref().ok(), "{one:?} {other:?}");
}
