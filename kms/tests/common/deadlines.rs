//! A KMS that hangs ends a factory's call at the deadline of its limits, whatever that is: no back end has one
//! of its own.

use std::time::Duration;

use claviger::{BoxedKms, CryptoPolicy, InMemoryMetastore, Limits, LockPolicy, SessionFactory};
use claviger_testkit::assert_ended_at;
use tokio::time::Instant;

/// Fails unless calls to this KMS, which is open and answers no more, end when the limits say.
pub(crate) async fn assert_ends_by_the_limits(kms: BoxedKms) {
    for deadline in [Duration::from_millis(300), Duration::from_secs(8)] {
        let factory = SessionFactory::builder(InMemoryMetastore::new(), kms.clone())
            .service("svc")
            .product("prod")
            .policy(CryptoPolicy::default().lock_policy(LockPolicy::Off))
            .limits(
                Limits::production().kms_deadline(deadline).operation_deadline(deadline * 4).max_attempts(1),
            )
            .build()
            .unwrap();
        let begun = Instant::now();
        let error = factory.session("alice").unwrap().encrypt(b"data").await.unwrap_err();
        assert_ended_at(deadline, begun, &error);
    }
}
