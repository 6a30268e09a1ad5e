//! KMS in one region, as honest as a test wants it.

use claviger_kms::{AwsKms, AwsKmsBuilder};
use claviger_testkit::{AwsStandIn, Reply, Request};
use serde_json::{Value, json};

use crate::support::{arn, client};

/// The regions of these stand-ins.
pub(crate) fn regions<'a>(stand_ins: impl IntoIterator<Item = (&'a str, &'a AwsStandIn)>) -> AwsKmsBuilder {
    stand_ins.into_iter().fold(AwsKms::builder(), |builder, (region, stand_in)| {
        builder.region(region, arn(region)).client(region, client(stand_in.endpoint(), region))
    })
}

/// Answers as KMS does, with ciphertexts that say what they are of.
pub(crate) fn honest(request: &Request) -> Reply {
    let body = &request.body;
    let (key, context) = (&body["KeyId"], &body["EncryptionContext"]);
    let wrapped = |plaintext: &Value| {
        let ciphertext = json!({ "key": key, "context": context, "plaintext": plaintext }).to_string();
        json!({ "KeyId": key, "CiphertextBlob": base64(ciphertext.as_bytes()), "Plaintext": plaintext })
    };
    match request.operation.as_str() {
        "GenerateDataKey" => {
            assert_eq!(body["KeySpec"], "AES_256");
            Reply::ok(wrapped(&json!(base64(crate::support::new_secret().expose_secret()))))
        }
        "Encrypt" => {
            let mut answer = wrapped(&body["Plaintext"]);
            answer.as_object_mut().unwrap().remove("Plaintext");
            Reply::ok(answer)
        }
        "Decrypt" => {
            let bytes =
                base64_simd::STANDARD.decode_to_vec(body["CiphertextBlob"].as_str().unwrap()).unwrap();
            let Ok(ciphertext) = serde_json::from_slice::<Value>(&bytes) else {
                return Reply::error(400, "InvalidCiphertextException", "");
            };
            if ciphertext["key"] != *key {
                return Reply::error(400, "IncorrectKeyException", "The key ID does not identify the key.");
            }
            if ciphertext["context"] != *context {
                return Reply::error(400, "InvalidCiphertextException", "");
            }
            Reply::ok(json!({ "KeyId": key, "Plaintext": ciphertext["plaintext"] }))
        }
        operation => panic!("{operation} is not asked for"),
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}
