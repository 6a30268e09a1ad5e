//! What cannot work is refused before anything is sent.

use claviger::FailureClass;
use claviger_kms::{VaultAuth, VaultTransitKms, VaultTransitKmsBuilder};

use crate::support::{assert_told, told, wrap_error};

fn at(address: &str) -> VaultTransitKmsBuilder {
    VaultTransitKms::builder(address, "claviger").auth(VaultAuth::token("hvs.token"))
}

async fn assert_refused(builder: VaultTransitKmsBuilder, words: &str) {
    assert_told(&builder.open().await.unwrap_err(), FailureClass::Permanent, &[words]);
}

#[tokio::test]
async fn plain_http_goes_to_this_machine_alone_unless_allowed() {
    for far in ["http://vault.internal:8200", "http://192.0.2.1:8200", "http://127.0.0.1.nip.io"] {
        assert_refused(at(far), "plain HTTP").await;
        assert_refused(at(far).danger_http(true).danger_http(false), "plain HTTP").await;
        assert!(at(far).danger_http(true).open().await.is_ok());
    }
    for near in ["http://127.0.0.1:8200", "http://localhost:8200", "http://[::1]:8200"] {
        assert!(at(near).open().await.is_ok(), "{near}");
    }
}

#[tokio::test]
async fn a_password_in_the_address_is_refused_and_not_repeated() {
    let builder = at("https://user:pa55word@vault:8200");
    assert!(!format!("{builder:?} {builder:#?}").contains("pa55word"));
    let error = builder.open().await.unwrap_err();
    assert_told(&error, FailureClass::Permanent, &["user or password"]);
    assert!(!format!("{error:?} {}", told(&error)).contains("pa55word"));
}

#[tokio::test]
async fn what_cannot_be_an_address_a_path_or_a_name_is_refused() {
    for address in ["", "vault:8200", "vault", "unix:///run/vault.sock", "https://", "https://vault?a=b"] {
        assert_refused(at(address), "the address").await;
    }
    for name in ["", "a/b", "..", "a b", "a?b", "a%2f", "a\n"] {
        let builder = VaultTransitKms::builder("https://vault", name).auth(VaultAuth::token("token"));
        assert_refused(builder, "the key's name").await;
    }
    for path in ["", "/", "a//b", "../sys", "a?b", "a\r\nX-Evil: b"] {
        assert_refused(at("https://vault").mount(path), "the mount").await;
        assert_refused(at("https://vault").namespace(path), "the namespace").await;
        let auth = VaultAuth::app_role("role", "secret").at(path);
        assert_refused(at("https://vault").auth(auth), "the login's mount").await;
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    assert_refused(VaultTransitKms::builder("https://vault", "claviger"), "how to log in").await;
}

#[tokio::test]
async fn a_token_that_no_header_holds_is_refused_and_not_repeated() {
    let vault = crate::support::vault();
    for token in ["", "hvs.token\n", "hvs.to\u{0}ken"] {
        let kms = crate::support::builder(&vault).auth(VaultAuth::token(token)).open().await.unwrap();
        let error = wrap_error(&kms).await;
        assert_told(&error, FailureClass::Permanent, &["the token is empty, or has a line break"]);
        assert!(!format!("{error:?}").contains("hvs."));
    }
    assert_eq!(vault.count(""), 0);
}

#[tokio::test]
async fn opening_asks_vault_nothing() {
    let vault = crate::support::vault();
    let kms = crate::support::with_token(&vault).await;
    assert_eq!((vault.connections(), vault.count("")), (0, 0));
    let shown = format!("{kms:?}");
    assert!(shown.contains(&vault.url()) && shown.contains("transit/claviger"), "{shown}");
}
