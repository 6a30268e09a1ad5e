//! What Asherah's implementations write, we unwrap; what we write, they do. The part of those that
//! cannot be run here is played by a script that shares no code with us: `envelopes/asherah.py`.

mod guard;
mod peers;
mod script;

use std::process::Command;

use base64_simd::STANDARD;
use claviger::testing::{FixedClock, call};
use claviger::{
    CryptoPolicy, EnvelopeKeyRecord, InMemoryMetastore, Insert, KeyManagementService as _, LockPolicy,
    Metastore as _, MetastoreAdmin as _, SessionFactory,
};
use claviger_kms::{AwsKms, AwsKmsBuilder};
use claviger_testkit::{LocalStack, shared_localstack, shared_moto};
use serde_json::{Value, json};

use crate::envelopes::script::Script;
use crate::support::{
    EAST, EUROPE, REGIONS, WEST, assert_unwraps, client, envelope, meta, new_key, new_secret, regions_of,
    wrap,
};

/// As which of the Asherahs the script writes.
const STYLES: [&str; 5] = ["go", "go-late", "java", "csharp", "csharp-plugin"];

/// The script.
struct Asherah(Script);

impl Asherah {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aws/envelopes/asherah.py");
        Self(Script::start(Command::new(LocalStack::python()).arg(script)))
    }

    fn wrap(&mut self, style: &str, key: &[u8], regions: &Value) -> Vec<u8> {
        let request = json!({ "do": "wrap", "as": style, "key": base64(key), "regions": regions });
        from_base64(&self.0.ask(&request)["envelope"])
    }

    fn unwrap(&mut self, envelope: &[u8], regions: &Value) -> Value {
        self.0.ask(&json!({ "do": "unwrap", "envelope": base64(envelope), "regions": regions }))
    }
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

fn from_base64(text: &Value) -> Vec<u8> {
    STANDARD.decode_to_vec(text.as_str().unwrap()).unwrap()
}

/// A master key of a region.
struct MasterKey {
    region: &'static str,
    arn: String,
    endpoint: &'static str,
}

/// Makes a key in each of these regions.
async fn keys(endpoint: &'static str, regions: &[&'static str]) -> Vec<MasterKey> {
    let mut keys = Vec::new();
    for region in regions {
        keys.push(MasterKey { region, arn: new_key(endpoint, region).await, endpoint });
    }
    keys
}

/// As the script wants them.
fn told(keys: &[MasterKey]) -> Value {
    keys.iter().map(|key| json!({ "region": key.region, "arn": key.arn, "endpoint": key.endpoint })).collect()
}

async fn open(keys: &[MasterKey]) -> AwsKms {
    let add = |builder: AwsKmsBuilder, key: &MasterKey| {
        builder.region(key.region, &key.arn).client(key.region, client(key.endpoint, key.region))
    };
    keys.iter().fold(AwsKms::builder(), add).open().await.unwrap()
}

async fn theirs_unwrap_in_every_region(endpoint: &'static str) {
    let keys = keys(endpoint, &REGIONS).await;
    let mut asherah = Asherah::start();
    for style in STYLES {
        // Several, so that each character of base64 comes to stand in one.
        for _ in 0..4 {
            let key = new_secret();
            let theirs = asherah.wrap(style, key.expose_secret(), &told(&keys));
            let all = open(&keys).await;
            assert_unwraps(&all, &theirs, &key).await;
            assert_eq!(all.inspect(&theirs).unwrap().missing, [""; 0], "{style}");
            for alone in keys.chunks(1) {
                assert_unwraps(&open(alone).await, &theirs, &key).await;
            }
        }
    }
}

#[tokio::test]
async fn localstack_what_every_asherah_wrapped_unwraps_in_every_region() {
    theirs_unwrap_in_every_region(shared_localstack()).await;
}

#[tokio::test]
async fn moto_what_every_asherah_wrapped_unwraps_in_every_region() {
    theirs_unwrap_in_every_region(shared_moto()).await;
}

async fn ours_are_opened_in_every_region(endpoint: &'static str) {
    let keys = keys(endpoint, &REGIONS).await;
    let kms = open(&keys).await;
    let mut asherah = Asherah::start();
    let key = new_secret();
    let ours = wrap(&kms, &key).await;
    for alone in keys.chunks(1) {
        let opened = asherah.unwrap(&ours, &told(alone));
        // Not `assert_eq!`, which would print the keys.
        assert!(opened["key"] == json!(base64(key.expose_secret())), "{}", opened["error"]);
        assert_eq!(opened["region"], json!(alone[0].region));
        assert_eq!(opened["fields"], json!(["encryptedKey", "kmsKeks"]));
        let fields = json!(["region", "arn", "encryptedKek"]);
        let copies = REGIONS.map(|region| json!({ "region": region, "fields": fields }));
        assert_eq!(opened["copies"], json!(copies));
    }
    let foreign = told(&self::keys(endpoint, &["ap-south-1"]).await);
    assert!(asherah.unwrap(&ours, &foreign)["error"].as_str().unwrap().contains("no region"));
}

#[tokio::test]
async fn localstack_what_we_wrapped_every_asherah_opens_in_every_region() {
    ours_are_opened_in_every_region(shared_localstack()).await;
}

#[tokio::test]
async fn moto_what_we_wrapped_every_asherah_opens_in_every_region() {
    ours_are_opened_in_every_region(shared_moto()).await;
}

/// The bytes of an envelope as Go writes it, of the values that are in this one.
fn as_go_writes(envelope: &Value) -> String {
    let copies = envelope["kmsKeks"].as_array().unwrap();
    let copy = |copy: &Value| {
        let (region, arn, kek) = (&copy["region"], &copy["arn"], &copy["encryptedKek"]);
        format!(r#"{{"region":{region},"arn":{arn},"encryptedKek":{kek}}}"#)
    };
    let copies: Vec<_> = copies.iter().map(copy).collect();
    format!(r#"{{"encryptedKey":{},"kmsKeks":[{}]}}"#, envelope["encryptedKey"], copies.join(","))
}

#[tokio::test]
async fn our_envelopes_are_written_byte_for_byte_as_gos_are() {
    let keys = keys(shared_localstack(), &[WEST, EAST, EUROPE]).await;
    let (kms, mut asherah) = (open(&keys).await, Asherah::start());
    let key = new_secret();
    let ours = wrap(&kms, &key).await;
    let theirs = asherah.wrap("go", key.expose_secret(), &told(&keys));
    for written in [&ours, &theirs] {
        assert_eq!(String::from_utf8_lossy(written), as_go_writes(&envelope(written)));
        assert_eq!(regions_of(written), [WEST, EAST, EUROPE]);
    }
    let arns = |written: &[u8]| {
        let envelope = envelope(written);
        envelope["kmsKeks"].as_array().unwrap().iter().map(|copy| copy["arn"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(arns(&ours), arns(&theirs));
    // The same lengths, too: nothing is added or left out.
    assert_eq!(ours.len(), theirs.len());
}

#[tokio::test]
async fn the_styles_are_as_different_as_they_should_be() {
    let keys = keys(shared_localstack(), &REGIONS).await;
    let mut asherah = Asherah::start();
    for style in STYLES {
        // So many that a plus sign is in one of them.
        let written: Vec<_> = (0..8).map(|_| asherah.wrap(style, &[7; 32], &told(&keys))).collect();
        let text = String::from_utf8(written.concat()).unwrap();
        assert_eq!(text.starts_with(r#"{"kmsKeks":[{"region":"us-east-1","arn":"#), style == "java");
        assert_eq!(text.contains(r"\u002B") && !text.contains('+'), style == "csharp-plugin", "{style}");
        let order = match style {
            "go-late" => [EAST, EUROPE, WEST],
            "csharp" => [EUROPE, WEST, EAST],
            _ => REGIONS,
        };
        assert_eq!(regions_of(&written[0]), order, "{style}");
    }
}

/// A store whose system key an Asherah made is gone on with, and data are read by the next process.
#[tokio::test]
async fn a_system_key_that_asherah_wrapped_serves_a_factory() {
    let keys = keys(shared_localstack(), &REGIONS).await;
    let mut asherah = Asherah::start();
    for style in STYLES {
        let theirs = asherah.wrap(style, new_secret().expose_secret(), &told(&keys));
        let store = InMemoryMetastore::new();
        let stored = store.insert(&EnvelopeKeyRecord::new(meta(), theirs, None), &call()).await.unwrap();
        assert_eq!(stored, Insert::Inserted);
        let factory = async || {
            SessionFactory::builder(store.clone(), open(&keys).await)
                .service("svc")
                .product("prod")
                .clock(FixedClock::new(1_700_000_060))
                .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
                .build()
                .unwrap()
        };
        let record = factory().await.session("alice").unwrap().encrypt(b"data").await.unwrap();
        let read = factory().await.session("alice").unwrap().decrypt(&record).await.unwrap();
        assert_eq!(&*read, b"data");
        // The intermediate key came to it, and no second system key.
        assert_eq!(store.count(&call()).await.unwrap(), 2, "{style}");
    }
}
