//! Word of revocations, by LISTEN.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Faults, FaultyMetastore, ReplaceOne as _, call};
use claviger::{
    BackendError, CallContext, CryptoPolicy, EnvelopeKeyRecord, Insert, Invalidation,
    InvalidationSource as _, KeyId, Metastore as _, MetastoreAdmin as _, SecretKey, SessionFactory,
    StaticKms, SystemRandom,
};
use claviger_metastore::{PostgresInvalidations, PostgresMetastore};
use claviger_testkit::{Direction, Fault, Postgres, Proxy, abandon};
use sqlx::Connection as _;
use tokio::time::{Instant, timeout};

use crate::latest::LatestRecord as _;
use crate::support::{
    ASHERAH, NOW, PLENTY, Place, as_user, assert_permanent, assert_transient, chain, execute, record,
};

/// Waits for what is told, which comes at once or never.
async fn next(source: &mut PostgresInvalidations) -> Result<Invalidation, BackendError> {
    let context = CallContext::within(Duration::from_secs(2));
    timeout(PLENTY, source.next(&context)).await.expect("something is told")
}

#[track_caller]
fn assert_key(told: Result<Invalidation, BackendError>, id: &KeyId) {
    assert_eq!(told.map_err(|error| chain(&error)), Ok(Invalidation::Key(id.clone())));
}

#[tokio::test]
async fn what_anybody_changes_is_told() {
    let place = Place::migrated().await;
    let store = place.open().await;
    let mut source = store.invalidations();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    let record = record("_IK_'a\"\u{e9}_svc_prod", NOW);
    let id = record.meta().id();
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert_key(next(&mut source).await, id);
    assert!(store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await.unwrap());
    assert_key(next(&mut source).await, id);
    // A program that knows nothing of us.
    place.execute("UPDATE encryption_key SET key_record = '{\"Revoked\":true}'").await;
    assert_key(next(&mut source).await, id);
    assert_eq!(store.delete(id, &call()).await.unwrap(), 1);
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Shredded(id.clone()));
    // For those who know no more than that.
    assert_key(next(&mut source).await, id);
    place.execute("NOTIFY claviger_invalidations").await;
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    place.execute("SELECT pg_notify('claviger_invalidations', repeat('x', 255))").await;
    assert_key(next(&mut source).await, &KeyId::new("x".repeat(255)));
}

#[tokio::test]
async fn the_documented_trigger_tells_on_a_table_of_others() {
    let place = Place::holding(ASHERAH).await;
    place.execute(include_str!("../../migrations/postgres/0002_notify.sql")).await;
    let store = place.open().await;
    let mut source = PostgresInvalidations::from_url(&place.url).unwrap();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    let longest = record(&"\u{1f600}".repeat(255), NOW);
    assert_eq!(store.insert(&longest, &call()).await.unwrap(), Insert::Inserted);
    assert!(store.revoke(longest.meta(), &call()).await.unwrap());
    assert_key(next(&mut source).await, longest.meta().id());
}

#[tokio::test]
async fn another_channel_is_another() {
    let place = Place::migrated().await;
    let source = PostgresInvalidations::from_url(&place.url).unwrap();
    let mut source = source.channel("Some \"other\" channel").unwrap();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    place.execute("NOTIFY claviger_invalidations, 'a'").await;
    place.execute("SELECT pg_notify('Some \"other\" channel', 'b')").await;
    assert_key(next(&mut source).await, &KeyId::new("b"));
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let place = Place::migrated().await;
    let mut source = PostgresInvalidations::from_url(&place.url).unwrap();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    for round in 0..20 {
        let id = format!("key {round}");
        for polls in 0..5 {
            assert!(abandon(source.next(&call()), polls).await.is_none(), "nothing was told yet");
        }
        place.execute(&format!("NOTIFY claviger_invalidations, '{id}'")).await;
        assert_key(next(&mut source).await, &KeyId::new(id));
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_as_everything_once_it_stands_again() {
    let mut server = Postgres::start();
    let url = server.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let source = PostgresInvalidations::from_url(&url).unwrap();
    let mut source = source.heartbeat(PLENTY);
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    for _ in 0..2 {
        server.kill();
        assert_transient(next(&mut source).await, "");
        assert_transient(next(&mut source).await, "");
        server.restart();
        assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
        server.psql("postgres", "NOTIFY claviger_invalidations, 'a'");
        assert_key(next(&mut source).await, &KeyId::new("a"));
    }
    server.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'claviger'",
    );
    let lost = next(&mut source).await;
    assert!(lost.is_err_and(|error| error.is_transient()));
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_found_out() {
    let place = Place::migrated().await;
    let server = place.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0;
    let proxy = Proxy::start(server).await;
    let url = place.url.replace(server, &proxy.address());
    let beat = Duration::from_millis(50);
    let mut source = PostgresInvalidations::from_url(&url).unwrap().heartbeat(beat);
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    proxy.set_open(Fault::Stall { direction: Direction::ToClient, after: 0 });
    assert_transient(next(&mut source).await, "does not answer");
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    // It stays, over many signs of life.
    let beats = "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity \
         WHERE datname = current_database() AND query = 'SELECT 1'";
    let tell = async {
        let mut seen = BTreeSet::new();
        while seen.len() < 10 {
            seen.insert(place.text(beats).await);
        }
        place.execute("NOTIFY claviger_invalidations, 'a'").await;
    };
    let (told, ()) = tokio::join!(next(&mut source), tell);
    assert_key(told, &KeyId::new("a"));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let place = Place::migrated().await;
    let wrong = place.url.replace(crate::support::password(&place.url), "wr0ng");
    assert_permanent(next(&mut PostgresInvalidations::from_url(&wrong).unwrap()).await, "28P01");
    let error = PostgresInvalidations::from_url("mysql://a:wr0ng@b/c").unwrap_err();
    assert!(error.source().is_some_and(|source| !source.to_string().contains("wr0ng")));
    let bytes = Place::with("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    assert_permanent(next(&mut PostgresInvalidations::from_url(&bytes.url).unwrap()).await, "SQL_ASCII");
}

#[test]
fn a_source_can_be_dropped_outside_its_runtime() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for ends_first in [false, true] {
        let runtime = runtime();
        let source = runtime.block_on(async {
            let place = Place::migrated().await;
            let mut source = PostgresInvalidations::from_url(&place.url).unwrap();
            assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
            source
        });
        if ends_first {
            drop(runtime);
            drop(source);
        } else {
            drop(source);
            drop(runtime);
        }
    }
}

/// A factory that looks at its keys once an hour, unless it is told.
fn factory(store: &PostgresMetastore, url: &str) -> SessionFactory {
    let source = PostgresInvalidations::from_url(url).unwrap().heartbeat(PLENTY);
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let policy = CryptoPolicy::default().revoke_check_interval(Duration::from_secs(3_600));
    SessionFactory::builder(Arc::new(store.clone()), StaticKms::new(&master_key).unwrap())
        .service("svc")
        .product("prod")
        .policy(policy)
        .invalidations(source)
        .build()
        .unwrap()
}

async fn latest(store: &PostgresMetastore) -> EnvelopeKeyRecord {
    store.latest(&KeyId::new("_IK_a_svc_prod")).await.unwrap().unwrap()
}

#[test]
fn a_channel_is_named_as_the_server_can() {
    let source = || PostgresInvalidations::from_url("postgres://a:b@localhost/c").unwrap();
    for name in ["", "a\0b", &"x".repeat(64), &"\u{e9}".repeat(32)] {
        let error = source().channel(name).unwrap_err();
        assert!(!error.is_transient() && !error.was_asked(), "{name:?}");
    }
    for name in ["x", &"x".repeat(63), "9e3f'\"; DROP"] {
        source().channel(name).unwrap();
    }
}

#[tokio::test]
async fn what_is_no_key_id_stands_for_all_keys() {
    let place = Place::migrated().await;
    let mut source = PostgresInvalidations::from_url(&place.url).unwrap();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    for payload in
        ["repeat('x', 256)", "'__asherah_internal_x'", "'claviger.deleted '", "repeat('\u{e9}', 3900)"]
    {
        place.execute(&format!("SELECT pg_notify('claviger_invalidations', {payload})")).await;
        assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything, "{payload}");
        place.execute("NOTIFY claviger_invalidations, 'a'").await;
        assert_key(next(&mut source).await, &KeyId::new("a"));
    }
}

/// A role with no right but to connect notifies without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_another_role_costs_a_check_of_each_key_a_second() {
    const KEYS: usize = 20;
    const ENCRYPTS: usize = 20_000;
    let place = Place::migrated().await;
    let role = format!("flooder_{}", place.name);
    place.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'canary-flood'")).await;
    let flooder = as_user(&place.url, &role, "canary-flood");
    let store = FaultyMetastore::new(place.open().await);
    let faults = store.faults().clone();
    let source = PostgresInvalidations::from_url(&place.url).unwrap();
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let factory = SessionFactory::builder(store, StaticKms::new(&master_key).unwrap())
        .service("svc")
        .product("prod")
        .invalidations(source)
        .build()
        .unwrap();
    let sessions: Vec<_> = (0..KEYS).map(|number| factory.session(&format!("p{number}")).unwrap()).collect();
    for session in &sessions {
        session.encrypt(b"x").await.unwrap();
    }
    let connected = async {
        while factory.status().unwrap().sources_connected != [true] {
            tokio::task::yield_now().await;
        }
    };
    timeout(PLENTY, connected).await.expect("it is connected");
    for payload in ["''", "repeat('x', 300) || n", "n::text"] {
        // Notifications of one transaction are told once if they are alike, so these are many.
        let flood = format!(
            "DO $$ BEGIN FOR n IN 1..300 LOOP \
             PERFORM pg_notify('claviger_invalidations', {payload}); COMMIT; END LOOP; END $$"
        );
        let flooder = flooder.clone();
        let flooding = tokio::spawn(async move {
            loop {
                execute(&flooder, &flood).await;
            }
        });
        let (before, began) = (calls(&faults), Instant::now());
        for round in 0..ENCRYPTS {
            sessions[round % KEYS].encrypt(b"x").await.unwrap();
        }
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
        let asked = calls(&faults) - before;
        flooding.abort();
        // Each key and its parent's, which is one for all.
        assert!(asked <= seconds * (KEYS + 1), "{asked} calls in {seconds} s for {payload}");
    }
}

/// The statements under `Word of revocations` in docs/metastores.md.
#[tokio::test]
async fn the_documented_channel_is_told_on_and_another_role_cannot_learn_it() {
    let docs = include_str!("../../../docs/metastores.md");
    let start = docs.find("CREATE TABLE claviger_channel").unwrap();
    let statements = docs[start..].split("```").next().unwrap();
    let place = Place::migrated().await;
    place.execute(statements).await;
    let name = place.text("SELECT name FROM claviger_channel").await;
    let source = PostgresInvalidations::from_url(&place.url).unwrap();
    let mut source = source.channel(&name).unwrap();
    assert_eq!(next(&mut source).await.unwrap(), Invalidation::Everything);
    let store = place.open().await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert_key(next(&mut source).await, record.meta().id());

    let role = format!("curious_{}", place.name);
    place.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'canary-curious'")).await;
    let curious = as_user(&place.url, &role, "canary-curious");
    let mut curious = sqlx::PgConnection::connect(&curious).await.unwrap();
    for look in [
        "SELECT name FROM claviger_channel",
        "SELECT prosrc FROM pg_proc WHERE proname LIKE 'claviger%'",
        "SELECT coalesce(string_agg(query, ''), '') FROM pg_stat_activity",
    ] {
        let seen: Result<String, _> = sqlx::query_scalar(look).fetch_one(&mut curious).await;
        assert!(seen.is_err() || !seen.unwrap().contains(&name), "{look}");
    }
}

/// How often the store was asked for anything.
fn calls(faults: &Faults) -> usize {
    faults.log().len()
}

/// Encrypts until the key is another one than that.
async fn assert_leaves(factory: &SessionFactory, revoked: &EnvelopeKeyRecord) {
    let session = factory.session("a").unwrap();
    let leaves = async {
        loop {
            match session.encrypt(b"x").await {
                Ok(sealed) if sealed.parent().unwrap() != revoked.meta() => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        }
    };
    timeout(PLENTY, leaves).await.expect("the revoked key is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_another_process_revokes_is_left_at_once() {
    let mut server = Postgres::start();
    let url = server.url("postgres");
    let builder = || PostgresMetastore::builder();
    builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let store = builder().open(&url).await.unwrap();
    let user = factory(&store, &url);
    let operator = builder().open(&url).await.unwrap();
    let session = user.session("a").unwrap();
    session.encrypt(b"x").await.unwrap();
    for round in 0..3 {
        let in_use = latest(&store).await;
        assert_eq!(session.encrypt(b"x").await.unwrap().parent().unwrap(), in_use.meta(), "round {round}");
        if round == 2 {
            // While nobody listens.
            server.kill();
            server.restart();
            let revoked = in_use.clone().revoked(true).to_json();
            server.psql(
                "postgres",
                &format!(
                    "UPDATE encryption_key SET key_record = '{revoked}' WHERE id = '_IK_a_svc_prod' \
                          AND extract(epoch FROM created) = {}",
                    in_use.meta().created()
                ),
            );
        } else {
            assert!(operator.revoke(in_use.meta(), &call()).await.unwrap());
        }
        assert_leaves(&user, &in_use).await;
    }
}
