//! The clauses for a service that is far away.

#![expect(clippy::expect_used, reason = "a contract that is broken fails its test by a panic")]

use std::fmt::Debug;
use std::time::Duration;

use super::{assert_error_shows_no_key, assert_same, assert_unwraps_to, fresh_key, meta, wrap};
use crate::context::CallContext;
use crate::error::BackendError;
use crate::kms::KeyManagementService;
use crate::testing::support::{abandon, ok};

/// The context of a call to a service that may hang: a second.
fn soon() -> CallContext {
    CallContext::within(Duration::from_secs(1))
}

/// What happens on the way to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// Connections are refused, or closed at once; or the device is gone.
    OutOfReach,
    /// Calls get no answer.
    Hanging,
    /// Answers take long, but less than a call may take.
    Slow,
}

/// Makes trouble on the way to a service that a test has to itself.
pub trait Outage: Debug + Send + Sync {
    /// From now on, there is this trouble.
    fn begin(&self, trouble: Trouble) -> impl Future<Output = ()> + Send;

    /// From now on, there is none.
    fn end(&self) -> impl Future<Output = ()> + Send;
}

/// While the service is out of reach, calls fail transiently.
pub async fn a_service_out_of_reach_is_a_transient_failure<K, O>(subject: &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    assert_transient_in(subject, Trouble::OutOfReach).await;
}

/// While the service does not answer, calls fail transiently, and by themselves.
pub async fn a_service_that_hangs_is_a_transient_failure<K, O>(subject: &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    assert_transient_in(subject, Trouble::Hanging).await;
}

/// A service that answers within the deadline is waited for.
pub async fn a_slow_service_is_waited_for<K, O>((kms, outage): &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    let key = fresh_key();
    outage.begin(Trouble::Slow).await;
    assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
}

/// What was wrapped before an outage unwraps after it, and the service wraps again, with nothing
/// done about it.
pub async fn an_outage_loses_nothing<K, O>((kms, outage): &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    let (key, about) = (fresh_key(), meta());
    let wrapped = wrap(kms, &key).await;
    for trouble in [Trouble::OutOfReach, Trouble::Hanging] {
        outage.begin(trouble).await;
        assert!(kms.unwrap_key(&wrapped, &meta(), &soon()).await.is_err(), "{trouble:?}");
        outage.end().await;
        let unwrapped = until_up(async || kms.unwrap_key(&wrapped, &about, &soon()).await).await;
        assert_same(&unwrapped, &key);
        let again = until_up(async || kms.wrap_key(&key, &about, &soon()).await).await;
        assert_unwraps_to(kms, again.bytes(), &key).await;
    }
}

/// Calls that are dropped while the service does not answer hold up nothing after it.
pub async fn calls_dropped_in_an_outage_leave_the_kms_usable<K, O>((kms, outage): &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    let (key, about) = (fresh_key(), meta());
    let wrapped = wrap(kms, &key).await;
    outage.begin(Trouble::Hanging).await;
    for round in 0..50 {
        let polls = round % 10 + 1;
        abandon(kms.wrap_key(&key, &meta(), &soon()), polls).await;
        abandon(kms.unwrap_key(&wrapped, &meta(), &soon()), polls).await;
    }
    outage.end().await;
    assert_same(&until_up(async || kms.unwrap_key(&wrapped, &about, &soon()).await).await, &key);
    assert!(!until_up(async || kms.wrap_key(&key, &about, &soon()).await).await.bytes().is_empty());
}

/// What an outage's errors say shows nothing of the key.
pub async fn errors_of_an_outage_show_no_key<K, O>((kms, outage): &(K, O))
where
    K: KeyManagementService,
    O: Outage,
{
    let key = fresh_key();
    for trouble in [Trouble::OutOfReach, Trouble::Hanging] {
        outage.begin(trouble).await;
        let error = kms.wrap_key(&key, &meta(), &soon()).await.err();
        assert!(error.is_some(), "{trouble:?}");
        assert_error_shows_no_key(error.as_ref(), &key);
    }
}

async fn assert_transient_in<K, O>((kms, outage): &(K, O), trouble: Trouble)
where
    K: KeyManagementService,
    O: Outage,
{
    let key = fresh_key();
    let wrapped = wrap(kms, &key).await;
    outage.begin(trouble).await;
    // More than a breaker's patience.
    for _ in 0..6 {
        let errors = [
            kms.wrap_key(&key, &meta(), &soon()).await.err(),
            kms.unwrap_key(&wrapped, &meta(), &soon()).await.err(),
        ];
        for error in errors {
            assert!(error.as_ref().is_some_and(BackendError::is_transient), "{trouble:?}: {error:?}");
        }
    }
}

/// Calls until it succeeds: a service that was out of reach may be left alone for a while. Transient
/// failures alone are forgiven.
async fn until_up<T>(mut call: impl AsyncFnMut() -> Result<T, BackendError>) -> T {
    let up = async {
        loop {
            match call().await {
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(20)).await,
                answer => return ok(answer),
            }
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("the service comes back")
}

const PATIENCE: Duration = Duration::from_secs(60);
