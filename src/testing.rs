//! What tests of claviger and of its back ends need: fakes that fail on command, and the contract
//! suites that every metastore and KMS passes.
//!
//! It is here for the `dev-dependencies` of back ends, behind the feature `testing`. Nothing in it
//! belongs in a service.
//!
//! A back end proves that it keeps the contract of its trait by one line, which makes a test of
//! each clause; its crate needs tokio with the features `macros` and `rt-multi-thread`:
//!
//! ```
//! use claviger::InMemoryMetastore;
//!
//! claviger::testing::metastore_contract!(async { InMemoryMetastore::new() });
//! # fn main() {}
//! ```
//!
//! Each clause uses key ids of its own, so all may share one database that holds other rows too.
//! A store that needs something kept alive, such as a temporary folder, hands it over as well:
//! `metastore_contract!(guarded async { (store, folder) })`.
//!
//! A table made by another Asherah may be unable to tell all keys apart, or to hold them:
//! `metastore_legacy_contract!` and `metastore_admin_legacy_contract!` hold a store on such a table
//! to all clauses, and to refusing those keys for good.

mod context;
pub mod decisions;
mod errors;
mod fakes;
mod faults;
pub mod kms;
pub mod metastore;
pub mod metastore_admin;
mod support;

#[doc(inline)]
pub use crate::{
    kms_contract, kms_copies_contract, kms_key_wrap_contract, kms_outage_contract, kms_wrong_key_contract,
    metastore_admin_contract, metastore_admin_legacy_contract, metastore_contract, metastore_legacy_contract,
};
pub use context::{ReplaceOne, call};
pub use errors::{every_error, kms_error, metastore_error};
pub use fakes::{FailingRandom, FixedClock, NoChance, SeededRandom};
pub use faults::{Call, Fault, Faults, FaultyKms, FaultyMetastore, Operation};

/// Makes one test of each clause. For the contract macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_tests {
    ($suite:ident, guarded $open:expr, $($clause:ident)*) => {$(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            let (subject, _guard) = $open.await;
            $crate::testing::$suite::$clause(&subject).await;
        }
    )*};
    ($suite:ident, $open:expr, $($clause:ident)*) => {
        $crate::__contract_tests! { $suite, guarded async { ($open.await, ()) }, $($clause)* }
    };
}
