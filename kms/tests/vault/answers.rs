//! Answers that are errors, too long, or make no sense.

use claviger::FailureClass;
use claviger::testing::call;
use claviger_testkit::Trick;

use crate::support::{
    DECRYPT, ENCRYPT, assert_told, assert_works, fresh_key, unwrap_error, vault, with_token, wrap, wrap_error,
};

const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[tokio::test]
async fn statuses_have_their_classes_and_nothing_lasts() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    for (status, said, class) in [
        (400, "failed to base64-decode plaintext", FailureClass::Permanent),
        (403, "permission denied", FailureClass::Permanent),
        (404, "no handler for route \"transit/encrypt/x\". route entry not found.", FailureClass::Permanent),
        (405, "unsupported operation", FailureClass::Permanent),
        (412, "required index state not present", FailureClass::Transient),
        (413, "http: request body too large", FailureClass::Permanent),
        (
            429,
            "request path \"transit/encrypt/claviger\": rate limit quota exceeded",
            FailureClass::Transient,
        ),
        (472, "", FailureClass::Transient),
        (473, "", FailureClass::Transient),
        (500, "internal error", FailureClass::Transient),
        (501, "", FailureClass::Permanent),
        (502, "", FailureClass::Transient),
        (503, "Vault is sealed", FailureClass::Transient),
        (504, "", FailureClass::Transient),
    ] {
        let said_plainly = said.replace('"', "");
        vault.trick(ENCRYPT, Trick::Fail(status, said_plainly.clone()));
        vault.trick(DECRYPT, Trick::Fail(status, said_plainly.clone()));
        for error in [wrap_error(&kms).await, unwrap_error(&kms, &wrapped).await] {
            assert_told(&error, class, &[&status.to_string(), &said_plainly]);
        }
        assert_works(&kms).await;
    }
}

#[tokio::test]
async fn what_vault_says_of_damage_is_damage() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    for (status, said) in [
        (400, "invalid ciphertext: unable to decrypt"),
        (400, "cipher: message authentication failed"),
        // A key of RSA.
        (
            500,
            "1 error occurred:\n\t* failed to RSA decrypt the ciphertext: crypto/rsa: decryption error\n\n",
        ),
    ] {
        vault.trick(DECRYPT, Trick::Fail(status, said.to_owned()));
        assert_told(&unwrap_error(&kms, &wrapped).await, FailureClass::Damaged, &[&status.to_string()]);
    }
}

#[tokio::test]
async fn pages_of_who_stands_between_say_nothing() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let page = || b"<html>proxy-of-mine is ill</html>".to_vec();
    for (status, class) in [(502, FailureClass::Transient), (403, FailureClass::Permanent)] {
        vault.trick(ENCRYPT, Trick::Answer(status, Vec::new(), page()));
        let error = wrap_error(&kms).await;
        assert_told(&error, class, &[&status.to_string()]);
        assert!(!crate::support::told(&error).contains("proxy-of-mine"));
    }
    vault.trick(ENCRYPT, Trick::Answer(200, Vec::new(), page()));
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["is not what Vault answers"]);
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused_for_good() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    for body in [
        "",
        "null",
        "{}",
        "[]",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"ciphertext":null,"plaintext":7}}"#,
        r#"{"data":{"ciphertext":"vault:v0:AAAA","plaintext":""}}"#,
        r#"{"data":{"ciphertext":"vault:v1:AB==","plaintext":"AAAA"}}"#,
        r#"{"data":{"ciphertext":"","plaintext":"not base64 of thirty-two bytes of a key!!!!!"}}"#,
        r#"{"data":{"ciphertext":"vault:v1:AAAA","plaintext":"#,
        &nested,
    ] {
        for status in [200, 204] {
            vault.trick(ENCRYPT, Trick::Answer(status, Vec::new(), body.into()));
            vault.trick(DECRYPT, Trick::Answer(status, Vec::new(), body.into()));
            for error in [wrap_error(&kms).await, unwrap_error(&kms, &wrapped).await] {
                assert!(!error.is_transient(), "{status} {body:.50}: {error:?}");
            }
        }
    }
    assert_works(&kms).await;
}

#[tokio::test]
async fn answers_are_read_up_to_a_bound() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let good = |bytes: usize| {
        let start = r#"{"data":{"ciphertext":"vault:v1:AAAA"},"padding":""#;
        format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2)).into_bytes()
    };
    let chunked = |bytes: usize| {
        let head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        [head, format!("{bytes:x}\r\n").into_bytes(), good(bytes), b"\r\n0\r\n\r\n".to_vec()].concat()
    };
    let (fits, too_long) = (ANSWER_BYTES_MAX, ANSWER_BYTES_MAX + 1);
    for trick in [Trick::Answer(200, Vec::new(), good(fits)), Trick::Bytes(chunked(fits))] {
        vault.trick(ENCRYPT, trick);
        assert_eq!(wrap(&kms, &fresh_key()).await, b"vault:v1:AAAA");
    }
    let announced = b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n{".to_vec();
    for trick in [
        Trick::Answer(200, Vec::new(), good(too_long)),
        Trick::Answer(500, Vec::new(), good(too_long)),
        Trick::Bytes(chunked(too_long)),
        Trick::Bytes(announced),
    ] {
        vault.trick(ENCRYPT, trick);
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["longer than any"]);
    }
    let header = format!("X: {}", "x".repeat(4 * ANSWER_BYTES_MAX));
    vault.trick(ENCRYPT, Trick::Answer(200, vec![header], good(100)));
    assert_eq!(wrap_error(&kms).await.class(), FailureClass::Permanent);
    assert_works(&kms).await;
}

#[tokio::test]
async fn answers_that_break_off_are_transient_failures() {
    let vault = vault();
    let kms = with_token(&vault).await;
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"data\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"dat",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        for _ in 0..2 {
            vault.trick(ENCRYPT, Trick::Bytes(bytes.into()));
        }
        assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["out of reach"]);
        vault.heal();
        assert_works(&kms).await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_for_good() {
    let vault = vault();
    let kms = with_token(&vault).await;
    for bytes in
        [&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 abc\r\n\r\n"]
    {
        vault.trick(ENCRYPT, Trick::Bytes(bytes.to_vec()));
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["is no HTTP"]);
    }
}

#[tokio::test]
async fn what_is_refused_before_vault_is_asked_says_so() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    vault.seal();
    for stored in [&b"no ciphertext"[..], b"", b"vault:v0:AAAA", b"vault:v1:AAA", &[b'A'; 5000]] {
        let error = unwrap_error(&kms, stored).await;
        assert_eq!((error.class(), error.was_asked()), (FailureClass::Damaged, false));
        assert!(!kms.rewrap(stored, &call()).await.unwrap_err().was_asked());
    }
    assert!(unwrap_error(&kms, &wrapped).await.was_asked());
}
