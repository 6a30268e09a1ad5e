//! What the SDK traces, and what errors show, of the keys that pass through it.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::KeyManagementService as _;
use claviger::testing::call;
use claviger_testkit::{AwsStandIn, Reply, Request, alone};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span;

use crate::stand_in::{base64, honest, regions};
use crate::support::{EAST, WEST, meta, new_secret};

/// Keeps all that is traced, at every level.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl Everything {
    fn note(&self, record: impl FnOnce(&mut Fields<'_>)) {
        record(&mut Fields(&mut self.0.lock().unwrap()));
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{field}={value:?} {value:#?}").unwrap();
    }
}

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.note(|fields| span.record(fields));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        self.note(|fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.note(|fields| event.record(fields));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The forms in which a key could be printed.
fn forms(key: &[u8]) -> Vec<String> {
    let hex: String = key[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let list = key[..6].iter().map(u8::to_string).collect::<Vec<_>>();
    vec![
        hex.to_uppercase(),
        hex,
        list.join(", "),
        list.join(",\n"),
        key[..6].escape_ascii().to_string(),
        base64(key)[..8].to_owned(),
    ]
}

/// Whoever traces everything, on every level, sees no key: neither of a call that succeeds nor of one
/// whose answer cannot be read.
///
/// What is traced where in a process depends on the tests beside it, since all share the memory of which
/// places anybody listens to.
#[test]
fn nothing_that_is_traced_shows_a_key() {
    alone("secrets::nothing_that_is_traced_shows_a_key", trace_calls);
}

async fn trace_calls() {
    let everything = Everything::default();
    let _scope = tracing::subscriber::set_default(everything.clone());
    let data_keys = Arc::new(Mutex::new(Vec::new()));
    let spy = |fault: fn(&Request, Reply) -> Reply| {
        let data_keys = Arc::clone(&data_keys);
        move |request: &Request| {
            let reply = honest(request);
            if let Reply::Http(_, body) = &reply {
                let answer: serde_json::Value = serde_json::from_str(body).unwrap();
                for text in [&answer["Plaintext"], &request.body["Plaintext"]] {
                    let key = text.as_str().map(|text| base64_simd::STANDARD.decode_to_vec(text).unwrap());
                    data_keys.lock().unwrap().extend(key);
                }
            }
            fault(request, reply)
        }
    };
    // A region that answers, and one whose answers are followed by rubbish: it has the key in them.
    let good = AwsStandIn::start(spy(|_, reply| reply)).await;
    let broken = AwsStandIn::start(spy(|request, reply| match reply {
        Reply::Http(200, body) if request.operation != "Encrypt" => Reply::Http(200, format!("{body}}}")),
        reply => reply,
    }))
    .await;
    let kms = regions([(EAST, &broken), (WEST, &good)]).hedge_after(Duration::from_secs(100));
    let kms = kms.open().await.unwrap();
    let key = new_secret();
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(wrapped.missing_copies(), [""; 0], "{EAST} wraps what {WEST} drew");
    crate::support::assert_unwraps(&kms, wrapped.bytes(), &key).await;
    assert_eq!(broken.operations(), ["GenerateDataKey", "Encrypt", "Decrypt"]);
    let traced = everything.0.lock().unwrap().clone();
    // It was listening: to the SDK, its HTTP client and to us.
    for heard in ["GenerateDataKey", "a copy of a wrapped key failed", "us-east-1"] {
        assert!(traced.contains(heard), "{heard} was not heard");
    }
    let mut keys = data_keys.lock().unwrap().clone();
    assert!(keys.len() >= 4, "two were drawn, one was wrapped, and unwrapped again");
    keys.push(key.expose_secret().to_vec());
    for form in keys.iter().flat_map(|key| forms(key)) {
        let place = traced.find(&form);
        assert!(place.is_none(), "{form}: {}", &traced[place.unwrap() - 200..place.unwrap() + 50]);
    }
    assert!(!traced.contains("canary-secret"));
}

/// So the sieve above lets nothing through.
#[test]
fn a_key_that_is_traced_is_found() {
    alone("secrets::a_key_that_is_traced_is_found", trace_a_key);
}

async fn trace_a_key() {
    let everything = Everything::default();
    let _scope = tracing::subscriber::set_default(everything.clone());
    let key = new_secret();
    tracing::trace!(body = json!({ "Plaintext": base64(key.expose_secret()) }).to_string());
    let traced = everything.0.lock().unwrap().clone();
    assert!(forms(key.expose_secret()).iter().any(|form| traced.contains(form)));
}
