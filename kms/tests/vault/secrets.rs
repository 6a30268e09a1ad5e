//! No token, secret id, service account's token or key in anything that is said.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::sync::{Arc, Mutex};

use claviger::testing::call;
use claviger::{BackendError, KeyManagementService, SecretKey};
use claviger_kms::{VaultAuth, VaultTransitKms};
use claviger_testkit::{FakeVault, Grant, Trick};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use crate::support::{DECRYPT, ENCRYPT, KEY, builder, clock, fresh_key, meta, told, vault};

/// All that was said, by whomever.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn note(&self, text: &str) {
        let mut said = self.0.lock().unwrap();
        said.push_str(text);
        said.push('\n');
    }

    fn note_value(&self, value: &impl Debug) {
        self.note(&format!("{value:?} {value:#?}"));
    }

    fn note_error(&self, error: &BackendError) {
        self.note_value(error);
        self.note(&told(error));
    }
}

impl Subscriber for Said {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut text = format!("{} ", attributes.metadata().name());
        attributes.record(&mut Fields(&mut text));
        self.note(&text);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut text = String::new();
        values.record(&mut Fields(&mut text));
        self.note(&text);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = format!("{} ", event.metadata().target());
        event.record(&mut Fields(&mut text));
        self.note(&text);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

#[test]
fn no_secret_in_any_output() {
    let said = Said::default();
    tracing::subscriber::set_global_default(said.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let secrets = runtime.block_on(live(&said));
    let text = said.0.lock().unwrap().clone();
    for expected in
        ["logged in to Vault", "was not renewed", "permission denied", "invalid role", "VaultTransitKms"]
    {
        assert!(text.contains(expected), "{expected:?} was to be said");
    }
    assert!(secrets.len() > 20);
    for (number, secret) in secrets.iter().enumerate() {
        let secret = secret.trim();
        for part in [&secret[..12], &secret[secret.len() - 12..]] {
            assert!(!text.contains(part), "secret {number} is shown");
        }
    }
}

/// Does all that can be done, notes what is said of it, and returns the secrets.
async fn live(said: &Said) -> Vec<String> {
    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjaGVja291dCJ9.c2lnbmF0dXJl";
    const SECRET_ID: &str = "6a174c20-f6de-a53c-74d2-6018fcceff64";
    let (vault, clock) = (vault(), clock());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, JWT).unwrap();
    let grant = Grant::new().ttl(std::time::Duration::from_secs(60));
    vault.create_app_role("approle", "role", SECRET_ID, &grant);
    vault.create_kubernetes_role("kubernetes", "role", JWT, &grant);
    let token = vault.create_token(&grant);
    let mut secrets = vec![JWT.to_owned(), SECRET_ID.to_owned(), "hvs.of-nobody-and-nowhere".to_owned()];
    for auth in [
        VaultAuth::token(token),
        VaultAuth::token("hvs.of-nobody-and-nowhere"),
        VaultAuth::app_role("role", SECRET_ID),
        VaultAuth::app_role("wrong", SECRET_ID),
        VaultAuth::kubernetes("role").token_file(&file),
        VaultAuth::kubernetes("wrong").token_file(&file),
    ] {
        said.note_value(&auth);
        let builder = builder(&vault).auth(auth).clock(clock.clone());
        said.note_value(&builder);
        let kms = builder.open().await.unwrap();
        said.note_value(&kms);
        for trick in tricks() {
            both_ways(said, &vault, &kms, &mut secrets).await;
            vault.trick(ENCRYPT, trick.clone());
            vault.trick(DECRYPT, trick.clone());
            vault.trick("renew-self", trick.clone());
            clock.advance(std::time::Duration::from_secs(41));
            both_ways(said, &vault, &kms, &mut secrets).await;
            vault.trick("login", trick);
            clock.advance(std::time::Duration::from_secs(61));
            both_ways(said, &vault, &kms, &mut secrets).await;
            vault.heal();
        }
        answers_that_make_no_sense(said, &vault, &kms, &mut secrets).await;
        vault.heal();
        said.note_value(&kms);
    }
    secrets.extend(vault.tokens());
    secrets
}

fn tricks() -> Vec<Trick> {
    let redirect = || Trick::Answer(307, vec!["Location: http://user@elsewhere/".to_owned()], Vec::new());
    let failures = [400, 403, 429, 500].map(|status| Trick::Fail(status, "permission denied".to_owned()));
    let echoes = [200, 204, 307, 400, 403, 404, 500, 503].map(Trick::Echo);
    failures
        .into_iter()
        .chain(echoes)
        .chain([redirect(), Trick::Bytes(b"no".to_vec()), Trick::Close])
        .collect()
}

/// A key, in all the forms in which it could be shown, and as Vault wraps it.
struct Known {
    key: SecretKey,
    text: String,
    wrapped: String,
}

impl Known {
    fn new(vault: &FakeVault, secrets: &mut Vec<String>) -> Self {
        let key = fresh_key();
        let text = crate::contract::base64(key.expose_secret());
        let wrapped = vault.encrypt(KEY, &text);
        secrets.push(hex(key.expose_secret()));
        secrets.push(format!("{:?}", key.expose_secret()).replace(['[', ']'], ""));
        secrets.push(text.clone());
        secrets.push(without_version(&wrapped));
        Self { key, text, wrapped }
    }
}

/// What a server is sent and answers with, whether it serves or not.
async fn both_ways(said: &Said, vault: &FakeVault, kms: &VaultTransitKms, secrets: &mut Vec<String>) {
    let known = Known::new(vault, secrets);
    match kms.wrap_key(&known.key, &meta(), &call()).await {
        Ok(wrapped) => {
            said.note_value(&wrapped);
            secrets.push(without_version(str::from_utf8(wrapped.bytes()).unwrap()));
        }
        Err(error) => said.note_error(&error),
    }
    unwrap(said, kms, &known).await;
}

async fn unwrap(said: &Said, kms: &VaultTransitKms, known: &Known) {
    match kms.unwrap_key(known.wrapped.as_bytes(), &meta(), &call()).await {
        Ok(unwrapped) => said.note_value(&unwrapped),
        Err(error) => said.note_error(&error),
    }
}

/// A key where none is expected, more than one, half of one, and one that is refused.
async fn answers_that_make_no_sense(
    said: &Said,
    vault: &FakeVault,
    kms: &VaultTransitKms,
    secrets: &mut Vec<String>,
) {
    let answer = |body: String| Trick::Answer(200, Vec::new(), body.into_bytes());
    for (before, after) in [
        (r#"{"data":{"plaintext":""#, ""),
        (r#"{"data":{"plaintext":""#, r#"=="}}"#),
        (r#"{"data":{"plaintext":["#, r#"]}}"#),
        (r#"{"data":{"ciphertext":""#, r#""}}"#),
        ("", ""),
    ] {
        let known = Known::new(vault, secrets);
        vault.trick(ENCRYPT, answer(format!("{before}{}{after}", known.text)));
        match kms.wrap_key(&known.key, &meta(), &call()).await {
            Ok(wrapped) => said.note_value(&wrapped),
            Err(error) => said.note_error(&error),
        }
        for form in [&known.text, &known.wrapped] {
            vault.trick(DECRYPT, answer(format!("{before}{form}{after}")));
            unwrap(said, kms, &known).await;
        }
    }
}

/// All wrapped forms begin with the same version.
fn without_version(wrapped: &str) -> String {
    wrapped.strip_prefix("vault:v1:").unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
