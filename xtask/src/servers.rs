//! The servers that all tests of a run share.

use std::thread::{self, ScopedJoinHandle};

use claviger_testkit::{Dynalite, LocalStack, MariaDb, Moto, Postgres};

use crate::needs::Tools;
use crate::process::Process;

/// They end with this value, and with this process, however it ends.
pub(crate) struct Servers {
    variables: Vec<(&'static str, String)>,
    _running: (Postgres, MariaDb, Dynalite, Moto, LocalStack),
}

impl Servers {
    /// Starts them on loopback, each with data of its own.
    pub(crate) fn start(tools: &Tools) -> Self {
        let (postgres, mariadb, dynalite, moto, localstack) = thread::scope(|scope| {
            let postgres = scope.spawn(Postgres::start);
            // It takes the longest, and the others are started beside it.
            let localstack = scope.spawn(|| LocalStack::start_program(&tools.localstack));
            let dynalite = scope.spawn(|| Dynalite::start_program(&tools.dynalite));
            let moto = scope.spawn(|| Moto::start_program(&tools.moto));
            let mariadb = MariaDb::start();
            (started(postgres), mariadb, started(dynalite), started(moto), started(localstack))
        });
        postgres.create_database("claviger");
        println!("\nPostgreSQL is on port {}, MariaDB on {}.", postgres.port(), mariadb.port());
        println!("DynamoDB is at {}, AWS with KMS at {}.", dynalite.endpoint(), moto.endpoint());
        println!("LocalStack's KMS is at {}.", localstack.endpoint());
        let variables = vec![
            ("CLAVIGER_POSTGRES_URL", postgres.url("claviger")),
            ("CLAVIGER_MARIADB_URL", mariadb.url("")),
            ("CLAVIGER_MARIADB_EMPTY", MariaDb::empty_data().to_string_lossy().into_owned()),
            ("CLAVIGER_DYNALITE_URL", dynalite.endpoint()),
            ("CLAVIGER_MOTO_URL", moto.endpoint()),
            ("CLAVIGER_LOCALSTACK_URL", localstack.endpoint()),
        ];
        Self { variables, _running: (postgres, mariadb, dynalite, moto, localstack) }
    }

    /// Tells the process where they are.
    pub(crate) fn known_to(&self, process: Process) -> Process {
        self.variables.iter().fold(process, |process, (name, value)| process.secret_env(name, value))
    }
}

/// Waits for a server, and fails as its start did.
fn started<S>(server: ScopedJoinHandle<'_, S>) -> S {
    server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
