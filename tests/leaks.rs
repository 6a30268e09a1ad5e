//! No key and no plaintext in anything that claviger says (S0.12): `Debug`, `Display`, error chains,
//! logs, metrics, status, panics.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::error::Error as StdError;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};
use claviger::testing::{
    Fault, FaultyKms, FaultyMetastore, FixedClock, Operation, ReplaceOne as _, SeededRandom, call,
};
use claviger::{
    BackendError, BoxedKms, BoxedMetastore, CallContext, CryptoPolicy, DataRowRecord, Error, FailureClass,
    InMemoryMetastore, KeyManagementService, KeyMeta, Limits, LockPolicy, MetastoreAdmin, Persistence,
    RevokedDecrypt, SecretKey, Session, SessionFactory, StaticKms, WrapHealth, WrappedKey,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::{Subscriber, span};

const PAYLOAD: &[u8] = b"4111-1111-1111-1111 exp 12/29 cvc 987";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(start_paused = true)]
async fn s0_12_no_secret_in_any_output() {
    let said = Said::default();
    tracing::subscriber::set_global_default(said.clone()).unwrap();
    assert!(metrics::set_global_recorder(said.clone()).is_ok());
    std::panic::set_hook(Box::new({
        let said = said.clone();
        move |panic| said.note(&panic.to_string())
    }));
    let random = SeededRandom::new(12);
    live(&said, &random).await;
    drop(std::panic::take_hook());

    let text = said.text();
    for expected in
        ["authentication failed", "claviger_events_total", "tampered", "plug-in gave up", "CloseReport"]
    {
        assert!(text.contains(expected), "{expected:?} was to be said");
    }
    let keys: Vec<Vec<u8>> = random.drawn().into_iter().filter(|draw| draw.len() >= 32).collect();
    assert!(keys.len() > 10, "keys were drawn: {}", keys.len());
    let keys = keys.iter().map(|draw| &draw[..32]);
    for (number, secret) in keys.chain([PAYLOAD]).enumerate() {
        assert_eq!(leaked(secret, &text), None, "secret {number}");
    }
}

#[test]
fn every_form_of_a_secret_is_found() {
    let secret = PAYLOAD;
    let forms = [
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("{secret:x?}"),
        format!("{secret:02X?}"),
        format!("<{}>", secret.escape_ascii()),
        STANDARD.encode_to_string(secret),
        STANDARD.encode_to_string([b"ab", secret].concat()),
        URL_SAFE_NO_PAD.encode_to_string([b"a", secret].concat()),
        secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        format!("{:?}", &secret[10..22]),
    ];
    for form in forms {
        assert!(leaked(secret, &form).is_some(), "{form}");
    }
    assert_eq!(leaked(secret, "[4, 1, 1] 4111 authentication failed"), None);
}

/// Returns the form in which a part of `secret` stands in `text`.
fn leaked(secret: &[u8], text: &str) -> Option<String> {
    let text: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    let forms = secret.windows(9).flat_map(|part| {
        let joined = |parts: Vec<String>, separator| parts.join(separator);
        let each = |form: fn(&u8) -> String| part.iter().map(form).collect::<Vec<String>>();
        [
            joined(each(|byte| byte.to_string()), ","),
            joined(each(|byte| format!("{byte:x}")), ","),
            joined(each(|byte| format!("{byte:X}")), ","),
            joined(each(|byte| format!("{byte:02x}")), ","),
            joined(each(|byte| format!("{byte:02X}")), ","),
            joined(each(|byte| format!("{byte:02x}")), ""),
            joined(each(|byte| format!("{byte:02X}")), ""),
            part.escape_ascii().to_string().replace(' ', ""),
            // Nine bytes are twelve characters, wherever in the text they begin.
            STANDARD.encode_to_string(part),
            URL_SAFE_NO_PAD.encode_to_string(part),
        ]
    });
    forms.into_iter().find(|form| text.contains(form.as_str()))
}

/// All that was said: a log at every level, a recorder of metrics, and what the test formats.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn note(&self, thing: &(impl Debug + ?Sized)) {
        writeln!(self.0.lock().unwrap(), "{thing:?} {thing:#?}").unwrap();
    }

    fn note_error(&self, error: &(dyn StdError + 'static)) {
        let mut cause: Option<&dyn StdError> = Some(error);
        while let Some(error) = cause {
            self.note(error);
            writeln!(self.0.lock().unwrap(), "{error} {error:#}").unwrap();
            cause = error.source();
        }
    }

    /// Notes the error that is expected here.
    #[track_caller]
    fn note_failure<T>(&self, result: Result<T, Error>) {
        self.note_error(&result.err().unwrap());
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Recorder for Said {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.note(&(name, unit, description));
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.note(&(name, unit, description));
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.note(&(name, unit, description));
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.note(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.note(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.note(key);
        Histogram::noop()
    }
}

/// Makes everything there is to be formatted, and every error that can be brought about.
async fn live(said: &Said, random: &SeededRandom) {
    let master_key = SecretKey::generate(random).unwrap();
    let kms = FaultyKms::new(StaticKms::new(&master_key).unwrap().random(random.clone()));
    let store = FaultyMetastore::new(InMemoryMetastore::new());
    let clock = FixedClock::new(1_700_000_000);
    said.note(&(&master_key, &kms, &store, &clock));
    said.note(&(BoxedKms::new(kms.clone()), BoxedMetastore::new(store.clone())));
    let policy =
        CryptoPolicy::production().lock_policy(LockPolicy::Off).revoked_decrypt(RevokedDecrypt::Warn);
    let builder = || {
        SessionFactory::builder(store.clone(), kms.clone())
            .service("service")
            .product("product")
            .policy(policy.clone())
            .limits(Limits::production().max_payload_bytes(1_000).max_attempts(1))
            .clock(clock.clone())
            .random(random.clone())
    };
    said.note(&builder());
    let factory = builder().build().unwrap();
    let session = factory.session("partition").unwrap();
    let record = session.encrypt(PAYLOAD).await.unwrap();
    said.note(&(
        &factory,
        &session,
        &record,
        session.decrypt(&record).await.unwrap(),
        factory.status().unwrap(),
    ));

    refused_input(said, &session, &record).await;
    failing_back_ends(said, &session, &store, &kms, &clock).await;
    damaged_keys(said, &store, &builder().build().unwrap(), &record).await;
    panicking_kms(said, random).await;
    said.note(&factory.status().unwrap());
    said.note(&factory.close(DAY).await.unwrap());
    said.note_failure(session.encrypt(PAYLOAD).await);
}

async fn refused_input(said: &Said, session: &Session, record: &DataRowRecord) {
    let payload = std::str::from_utf8(PAYLOAD).unwrap();
    let json = record.to_json();
    said.note_failure(session.encrypt(&PAYLOAD.repeat(100)).await);
    // Input that is no record may be the user's plaintext.
    for input in [
        payload.to_owned(),
        format!("\"{payload}\""),
        format!("{{\"Key\":\"{payload}\"}}"),
        format!("{{\"Key\":{{\"Created\":\"{payload}\"}}}}"),
        json.replace("\"Data\":\"", &format!("\"Data\":\"{payload}")),
        json.replace("_IK_partition", "_IK_other"),
        format!("{json}{payload}"),
    ] {
        said.note_failure(session.decrypt_json(input.as_bytes()).await);
    }
    let forged = json.replace("\"Data\":\"", "\"Data\":\"AAAA");
    said.note_failure(session.decrypt_json(forged.as_bytes()).await);
    let unknown =
        json.rsplit_once("\"Created\":").unwrap().0.to_owned() + "\"Created\":60}},\"Data\":\"" + &json;
    said.note_failure(session.decrypt_json(unknown.as_bytes()).await);
    said.note_failure(session.store(&Broken, PAYLOAD).await);
    said.note_failure(session.load(&Broken, &()).await);
    let known = SecretKey::try_init(|key| {
        key.copy_from_slice(b"thisIsAStaticMasterKeyForTesting");
        Ok::<_, Error>(())
    });
    said.note_error(&StaticKms::new(&known.unwrap()).unwrap_err());
}

async fn failing_back_ends(
    said: &Said,
    session: &Session,
    store: &FaultyMetastore<InMemoryMetastore>,
    kms: &FaultyKms<StaticKms>,
    clock: &FixedClock,
) {
    for class in [FailureClass::Transient, FailureClass::Permanent] {
        clock.advance(91 * DAY);
        store.faults().next(Operation::Insert, Fault::Fail(class));
        said.note_failure(session.encrypt(PAYLOAD).await);
        kms.faults().next(Operation::WrapKey, Fault::Fail(class));
        clock.advance(91 * DAY);
        said.note_failure(session.encrypt(PAYLOAD).await);
    }
    let newest = session.encrypt(PAYLOAD).await.unwrap();
    store.revoke(newest.parent().unwrap(), &call()).await.unwrap();
    clock.advance(DAY / 4);
    session.encrypt(PAYLOAD).await.unwrap();
    said.note(&session.decrypt(&newest).await.unwrap());
}

/// An intermediate key's row that was tampered with, and one that is gone.
async fn damaged_keys(
    said: &Said,
    store: &FaultyMetastore<InMemoryMetastore>,
    fresh: &SessionFactory,
    record: &DataRowRecord,
) {
    let session = fresh.session("partition").unwrap();
    let rows = store.list("", None, usize::MAX, &call()).await.unwrap().records;
    said.note(&rows);
    let row = rows.iter().find(|row| row.meta() == record.parent().unwrap()).unwrap();
    let mut forged = row.wrapped_key().to_vec();
    forged[0] ^= 1;
    assert!(store.replace_one(row.meta(), row.wrapped_key(), &forged, &call()).await.unwrap());
    said.note_failure(session.decrypt(record).await);
    store.delete(row.meta().id(), &call()).await.unwrap();
    said.note(&session.decrypt(record).await.map_err(|error| said.note_error(&error)).unwrap_err());
}

async fn panicking_kms(said: &Said, random: &SeededRandom) {
    let factory = SessionFactory::builder(InMemoryMetastore::new(), Panicking)
        .service("service")
        .product("product")
        .random(random.clone())
        .build()
        .unwrap();
    said.note_failure(factory.session("partition").unwrap().encrypt(PAYLOAD).await);
}

/// A user's storage that is down.
struct Broken;

impl Persistence for Broken {
    type Key = ();

    async fn store(&self, _record: &DataRowRecord) -> Result<(), BackendError> {
        Err(BackendError::transient("storage is down"))
    }

    async fn load(&self, _key: &()) -> Result<Option<DataRowRecord>, BackendError> {
        Err(BackendError::permanent("storage is gone"))
    }
}

#[derive(Debug)]
struct Panicking;

impl KeyManagementService for Panicking {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        panic!("plug-in gave up on {meta} with {key:?}")
    }

    async fn unwrap_key(
        &self,
        _wrapped: &[u8],
        _meta: &KeyMeta,
        _context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        Err(BackendError::permanent("it never wrapped any"))
    }

    fn inspect(&self, _wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        Ok(WrapHealth::default())
    }
}

impl Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Said")
    }
}
