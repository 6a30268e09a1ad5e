//! What the service answers.

mod failure;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use claviger::SessionFactory;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;

use self::failure::Failure;
use crate::NOTE_BYTES_MAX;
use crate::notes::{Notes, Place};

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) factory: SessionFactory,
    pub(crate) notes: Notes,
    pub(crate) metrics: PrometheusHandle,
}

pub(crate) fn routes(app: App) -> Router {
    Router::new()
        .route("/customers/{customer}/notes/{name}", get(read).put(write))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        // What is far too long is refused before it is read.
        .layer(DefaultBodyLimit::max(2 * NOTE_BYTES_MAX))
        .with_state(app)
}

async fn write(
    State(app): State<App>,
    Path((customer, name)): Path<(String, String)>,
    text: String,
) -> Result<StatusCode, Failure> {
    let place = place(&app.notes, &customer, &name)?;
    app.factory.session(&customer)?.store(&place, text.as_bytes()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session reads its own customer's records only, whatever the query returns.
async fn read(
    State(app): State<App>,
    Path((customer, name)): Path<(String, String)>,
) -> Result<String, Failure> {
    let place = place(&app.notes, &customer, &name)?;
    let note = app.factory.session(&customer)?.load(&place, &()).await?.ok_or(Failure::NoSuchNote)?;
    // The answer's own copy is not wiped, and neither is what the system sends.
    Ok(note.to_str().map_err(|_no_text| Failure::NoText)?.to_owned())
}

/// Takes names that the tables can hold.
fn place<'a>(notes: &'a Notes, customer: &'a str, name: &'a str) -> Result<Place<'a>, Failure> {
    let is_good = |name: &str| name.chars().count() <= NAME_CHARS_MAX && !name.contains(char::is_control);
    if is_good(customer) && is_good(name) {
        Ok(Place { notes, customer, name })
    } else {
        Err(Failure::BadName)
    }
}

/// Kubernetes waits for a second.
const PROBE_MAX: Duration = Duration::from_millis(900);
const NAME_CHARS_MAX: usize = 100;

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: bool,
    /// Without it customers who have a key are served, and new ones are not.
    keys_can_be_made: bool,
    /// Without it customers whose keys are cached are served.
    kms: bool,
}

/// Without its database the service serves nobody. What it can do without a KMS, and with a database
/// that takes no writes, it goes on doing: all its copies would be taken out of service at once.
async fn readyz(State(app): State<App>) -> Result<(StatusCode, Json<Readiness>), Failure> {
    // The status tells what calls have met, and nobody calls a service that is not ready: so this calls.
    // No customer has this name; looking for the key is one query, and makes none.
    let probe = async { tokio::join!(app.notes.answers(), app.factory.warm_up(["\u{ffff}"])) };
    let answers = match tokio::time::timeout(PROBE_MAX, probe).await {
        Ok((notes, keys)) => notes && keys?.failed.is_empty(),
        Err(_elapsed) => false,
    };
    let status = app.factory.status()?;
    let database = answers && !status.metastore_down;
    let readiness = Readiness {
        ready: database && !status.closed,
        database,
        keys_can_be_made: database && !status.metastore_read_only && !status.kms_down,
        kms: !status.kms_down,
    };
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(readiness)))
}

/// What claviger measures, brought up to date.
async fn metrics(State(app): State<App>) -> Result<String, Failure> {
    app.factory.status()?;
    app.metrics.run_upkeep();
    Ok(app.metrics.render())
}
