//! One server of each kind for all tests.

use std::env;
use std::sync::OnceLock;

use crate::{Dynalite, LocalStack, MariaDb, Moto, Postgres};

/// Returns where the server of the test run is, or starts one for this process.
fn shared<S: Sync>(
    variable: &str,
    place: &'static OnceLock<(Option<S>, String)>,
    start: impl FnOnce() -> (S, String),
) -> &'static str {
    let (_, url) = place.get_or_init(|| match env::var(variable) {
        Ok(url) => (None, url),
        Err(_) => {
            let (server, url) = start();
            (Some(server), url)
        }
    });
    url
}

macro_rules! shared {
    ($(#[$doc:meta])+ $name:ident, $server:ty, $variable:literal, $start:expr) => {
        $(#[$doc])+
        ///
        /// It is shared with other tests: it must not be killed, nor configured.
        #[must_use]
        pub fn $name() -> &'static str {
            static PLACE: OnceLock<(Option<$server>, String)> = OnceLock::new();
            shared($variable, &PLACE, $start)
        }
    };
}

shared!(
    /// Returns the superuser's URL of a database that is new in this test run; others can be created
    /// beside it.
    shared_postgres, Postgres, "CLAVIGER_POSTGRES_URL", || {
        let server = Postgres::start();
        server.create_database("claviger");
        let url = server.url("claviger");
        (server, url)
    }
);
shared!(
    /// Returns the URL of a server on which databases can be created: `mysql://…:PORT/`, with no
    /// database.
    shared_mariadb, MariaDb, "CLAVIGER_MARIADB_URL", || {
        let server = MariaDb::start();
        let url = server.url("");
        (server, url)
    }
);
shared!(
    /// Returns the endpoint of a dynalite, `http://127.0.0.1:PORT`.
    shared_dynalite, Dynalite, "CLAVIGER_DYNALITE_URL", || {
        let server = Dynalite::start();
        let url = server.endpoint();
        (server, url)
    }
);
shared!(
    /// Returns the endpoint of a moto, `http://127.0.0.1:PORT`.
    shared_moto, Moto, "CLAVIGER_MOTO_URL", || {
        let server = Moto::start();
        let url = server.endpoint();
        (server, url)
    }
);
shared!(
    /// Returns the endpoint of a LocalStack, `http://127.0.0.1:PORT`.
    shared_localstack, LocalStack, "CLAVIGER_LOCALSTACK_URL", || {
        let server = LocalStack::start();
        let url = server.endpoint();
        (server, url)
    }
);
