//! Log lines and spans: they carry the key's id as a field.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Once;
use std::time::Duration;

use claviger::{RewrapOptions, repair_system_keys};
use tracing::field::{Field, Visit};
use tracing::{Metadata, Subscriber, span};

use crate::support::{DOWN, in_world};

/// Keeps what a thread logs, and the spans that it begins.
///
/// For all threads at once: what tests on other threads log first would else be taken for what nobody wants.
struct Log;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static LOG: Once = Once::new();

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Log {
    fn note(what: &str, metadata: &Metadata<'_>, fields: Fields) {
        let line = format!("{what} {} {}{}", metadata.level(), metadata.target(), fields.0);
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    /// Returns what this thread logged since it was asked last.
    fn lines() -> Vec<String> {
        LINES.take()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("claviger")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        Self::note(attributes.metadata().name(), attributes.metadata(), fields);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        Self::note("event", event.metadata(), fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn changes_of_keys_loads_and_calls_are_told_with_the_keys_id() {
    LOG.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            let record = session.encrypt(b"").await.unwrap();
            let lines = Log::lines();
            let has = |parts: &[&str]| {
                let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
                assert!(lines.iter().any(|line| fits(&line)), "{parts:?}: {lines:#?}");
            };
            let (ik, sk) = ("key=_IK_alice_checkout_payments", "key=_SK_checkout_payments");
            has(&[
                "event INFO claviger::events",
                "change=\"created\"",
                "level=\"intermediate\"",
                ik,
                "created=1700000040",
            ]);
            has(&["event INFO claviger::events", "change=\"created\"", "level=\"system\"", sk]);
            has(&["claviger.load INFO", "level=\"intermediate\"", ik]);
            has(&[
                "claviger.call INFO",
                "dependency=\"metastore_reads\"",
                "operation=\"load_latest\"",
                ik,
                "attempt=1",
            ]);
            has(&["claviger.call INFO", "dependency=\"kms\"", "operation=\"wrap_key\"", sk]);

            // The hot path says nothing.
            session.encrypt(b"").await.unwrap();
            session.decrypt(&record).await.unwrap();
            assert_eq!(Log::lines(), [""; 0]);

            world.store.faults().always(DOWN);
            world.clock.advance(Duration::from_secs(50 * 60));
            session.encrypt(b"").await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lines = Log::lines();
            let failed = |line: &&String| line.contains("refresh_failed") && line.contains(ik);
            assert!(lines.iter().any(|line| failed(&line)), "{lines:#?}");
            drop(world.factory.warm_up(["alice"]).await.unwrap());
            let options = RewrapOptions::new();
            drop(repair_system_keys(world.store.inner(), &world.kms, &options).await.unwrap());
            drop(world.factory.close(Duration::ZERO).await.unwrap());
            let lines = Log::lines();
            for span in ["claviger.warm_up INFO", "claviger.rewrap INFO", "claviger.close INFO"] {
                assert!(lines.iter().any(|line| line.starts_with(span)), "{span}: {lines:#?}");
            }
        },
    );
}
