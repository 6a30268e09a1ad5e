//! What the tests of several crates share: real servers, alone and in clusters, started on loopback and
//! stopped with them; a proxy that breaks the way to them, a balancer, and stand-ins that answer as a test
//! tells them. Linux only.
//!
//! Each server has a temporary data folder and a free port of its own. Dropping it kills it; so
//! does the end of the test process, however it ends. Everything here panics with a sentence when
//! it cannot do what it says: a test whose server is missing fails, and is never skipped.
//!
//! `cargo xtask test` installs the servers and says in the environment what it started and where:
//!
//! | variable | value | without it |
//! |---|---|---|
//! | `CLAVIGER_POSTGRES_URL` | what [`shared_postgres`] returns | one server per test process |
//! | `CLAVIGER_MARIADB_URL` | what [`shared_mariadb`] returns | likewise |
//! | `CLAVIGER_DYNALITE_URL` | what [`shared_dynalite`] returns | likewise |
//! | `CLAVIGER_MOTO_URL` | what [`shared_moto`] returns | likewise |
//! | `CLAVIGER_LOCALSTACK_URL` | what [`shared_localstack`] returns | likewise |
//! | `CLAVIGER_POSTGRES_BIN` | the folder of `postgres`, `initdb`, `pg_basebackup`, `pg_isready` and `psql` | `/usr/lib/postgresql/*/bin`, the latest; `PATH` |
//! | `CLAVIGER_MARIADB_BIN` | the folder of `mariadbd`, `mariadb` and the other programs | `/usr/sbin`, `/usr/bin`; `PATH` |
//! | `CLAVIGER_MARIADB_EMPTY` | what [`MariaDb::empty_data`] returns | made once per test process |
//! | `CLAVIGER_GALERA_LIB` | the folder of `libgalera_smm.so` | `/usr/lib/galera` and other usual folders |
//! | `CLAVIGER_PGBOUNCER_BIN` | the folder of `pgbouncer` | `/usr/sbin`; `PATH` |
//! | `CLAVIGER_PGBOUNCER_NEWER_BIN` | the folder of `pgbouncer` 1.21 or later, with all it needs | the machine's, if it is new enough; the tools of `cargo xtask test` |
//! | `CLAVIGER_DYNALITE_BIN` | the program `dynalite` | the tools of `cargo xtask test`, `PATH` |
//! | `CLAVIGER_MOTO_BIN` | the program `moto_server` | the tools of `cargo xtask test`, `PATH` |
//! | `CLAVIGER_LOCALSTACK_PYTHON` | a Python with LocalStack's packages | the tools of `cargo xtask test` |
//! | `CLAVIGER_SOFTHSM_LIB` | the folder of `libsofthsm2.so` | `/usr/lib/softhsm` and other usual folders |

#![expect(clippy::panic, clippy::unwrap_used, reason = "what a test needs and does not get ends it")]
#![expect(clippy::missing_panics_doc, reason = "all of it panics, as said above")]

mod abandon;
mod ask;
mod aws;
mod balancer;
mod child;
mod endpoints;
mod family;
mod galera;
mod http;
mod mariadb;
mod pgbouncer;
mod port;
mod postgres;
mod program;
mod proxy;
mod runtimes;
mod scratch;
mod server;
mod shared;
mod shown;
mod softhsm;
mod targets;
mod vault;

pub use abandon::abandon;
pub use ask::{AWS_VARIABLES, AwsService};
pub use aws::{AwsStandIn, NoTls, Reply, Request};
pub use balancer::Balancer;
pub use child::{alone, in_environment, told_by_parent};
pub use endpoints::{EndpointSettings, as_another_machine, said_with};
pub use galera::Galera;
pub use http::{Dynalite, LocalStack, Moto};
pub use mariadb::MariaDb;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres::Postgres;
pub use program::mortal;
pub use proxy::{Direction, Fault, Proxy};
pub use runtimes::call_after_the_openers_end;
pub use shared::{shared_dynalite, shared_localstack, shared_mariadb, shared_moto, shared_postgres};
pub use shown::{assert_ended_at, assert_says, chain, shown_number};
pub use softhsm::{HsmFault, HsmFunction, SoftHsm};
pub use vault::{FakeVault, Grant, TestCa, TestCertificate, Trick};
