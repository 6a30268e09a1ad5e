//! A small web service that keeps a customer's notes, encrypted, in PostgreSQL, and the keys beside
//! them.
//!
//! ```text
//! $ export DATABASE_URL=postgres://notes@localhost/notes MASTER_KEY_FILE=/tmp/master.key
//! $ cargo run -p claviger-example-axum
//! listening on 127.0.0.1:8080
//! $ curl -T - localhost:8080/customers/alice/notes/todo <<< 'call back on Monday'
//! $ curl localhost:8080/customers/alice/notes/todo
//! call back on Monday
//! ```
//!
//! The database may be empty: the tables are made at the start. `/healthz`, `/readyz` and `/metrics` are
//! for who runs it. A real service takes its master key from a KMS, and the customer from its
//! authentication.

mod http;
mod notes;

use std::env;
use std::error::Error;
use std::future::IntoFuture as _;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use claviger::telemetry::DURATION_BUCKETS;
use claviger::{ErrorChain, Limits, SessionFactory};
use claviger_kms::LocalKms;
use claviger_metastore::PostgresMetastore;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use http::App;
use notes::Notes;

/// How long requests that are under way may take when the service is to end, and then the keys in use.
/// Kubernetes kills after 30 seconds.
const DRAIN: Duration = Duration::from_secs(15);
const CLOSE: Duration = Duration::from_secs(5);

const NOTE_BYTES_MAX: usize = 64 << 10;

#[tokio::main]
async fn main() -> ExitCode {
    // What an operator should hear of are log lines of the target `claviger::events`.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %ErrorChain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is asked to end.
async fn serve() -> Result<(), Box<dyn Error>> {
    // Before the factory is built, which takes its metrics from it. `docs/observability.md` says what to watch.
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    let metrics =
        PrometheusBuilder::new().set_buckets_for_metric(durations, DURATION_BUCKETS)?.install_recorder()?;
    let url = setting("DATABASE_URL")?;
    let keys = PostgresMetastore::migrate(&url).await?;
    let notes = Notes::open(&url).await?;
    let kms = LocalKms::open_or_create(setting("MASTER_KEY_FILE")?)?;
    let factory = SessionFactory::builder(keys.clone(), kms)
        .service("notes")
        .product("example")
        .limits(Limits::production().max_payload_bytes(NOTE_BYTES_MAX))
        // Revocations are heard of at once.
        .invalidations(keys.invalidations())
        .build()?;

    let (end, overdue) = (asked_to_end()?, asked_to_end()?);
    let listener = TcpListener::bind(setting("LISTEN").as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on {}", listener.local_addr()?);
    let routes = http::routes(App { factory: factory.clone(), notes: notes.clone(), metrics });
    tokio::select! {
        served = axum::serve(listener, routes).with_graceful_shutdown(end).into_future() => served?,
        () = async { overdue.await; tokio::time::sleep(DRAIN).await } => tracing::warn!("requests are cut off"),
    }

    // The keys are wiped here; no session encrypts or decrypts after it.
    let report = factory.close(CLOSE).await?;
    notes.close().await;
    keys.close().await;
    if report.is_clean() { Ok(()) } else { Err(format!("not closed in time: {report:?}").into()) }
}

/// Ends with SIGTERM, or with Ctrl-C. It listens from now on, not from when it is awaited.
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "a program's settings, which are no library's")]
fn setting(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
