//! The servers that all tests of a run share.

use std::thread;

use claviger_test_servers::{Dynalite, MariaDb, Moto, Postgres};

use crate::needs::Tools;
use crate::process::Process;

/// They end with this value, and with this process, however it ends.
pub(crate) struct Servers {
    variables: Vec<(&'static str, String)>,
    _running: (Postgres, MariaDb, Dynalite, Moto),
}

impl Servers {
    /// Starts them on loopback, each with data of its own.
    pub(crate) fn start(tools: &Tools) -> Self {
        let (postgres, mariadb) = thread::scope(|scope| {
            let postgres = scope.spawn(Postgres::start);
            let mariadb = MariaDb::start();
            (postgres.join(), mariadb)
        });
        let postgres = postgres.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (dynalite, moto) = (Dynalite::start_program(&tools.dynalite), Moto::start_program(&tools.moto));
        postgres.create_database("claviger");
        println!("\nPostgreSQL is on port {}, MariaDB on {}.", postgres.port(), mariadb.port());
        println!("DynamoDB is at {}, AWS with KMS at {}.", dynalite.endpoint(), moto.endpoint());
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let variables = vec![
            ("CLAVIGER_POSTGRES_URL", postgres.url("claviger")),
            ("CLAVIGER_MARIADB_URL", mariadb.url("")),
            ("CLAVIGER_MARIADB_EMPTY", path(&MariaDb::empty_data())),
            ("CLAVIGER_DYNALITE_URL", dynalite.endpoint()),
            ("CLAVIGER_DYNALITE_BIN", path(&tools.dynalite)),
            ("CLAVIGER_MOTO_URL", moto.endpoint()),
            ("CLAVIGER_MOTO_BIN", path(&tools.moto)),
        ];
        Self { variables, _running: (postgres, mariadb, dynalite, moto) }
    }

    /// Tells the process where they are.
    pub(crate) fn known_to(&self, process: Process) -> Process {
        self.variables.iter().fold(process, |process, (name, value)| process.secret_env(name, value))
    }
}
