//! What a failure is to the one who asked.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use claviger::{Error, ErrorChain};

#[derive(Debug)]
pub(crate) enum Failure {
    NoSuchNote,
    BadName,
    NoText,
    Claviger(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Claviger(error)
    }
}

/// Key ids name customers, and causes name servers: an answer holds neither. The log has them.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, sentence) = match &self {
            Self::NoSuchNote => (StatusCode::NOT_FOUND, "there is no such note\n"),
            Self::BadName => {
                (StatusCode::BAD_REQUEST, "names have 1 to 100 characters, no control characters\n")
            }
            Self::NoText => (StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE),
            Self::Claviger(error) => {
                let (status, sentence) = status(error);
                if status.is_server_error() {
                    tracing::error!(status = status.as_u16(), error = %ErrorChain::new(error));
                }
                (status, sentence)
            }
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return (status, [(header::RETRY_AFTER, "1")], sentence).into_response();
        }
        (status, sentence).into_response()
    }
}

/// The one place where errors become statuses.
fn status(error: &Error) -> (StatusCode, &'static str) {
    match error {
        error if error.is_retryable() => (StatusCode::SERVICE_UNAVAILABLE, "try again\n"),
        // This one ends. Another copy of the service answers.
        Error::Closed => (StatusCode::SERVICE_UNAVAILABLE, "try again\n"),
        Error::InvalidPartition { .. } => (StatusCode::BAD_REQUEST, "there can be no such customer\n"),
        Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "the note is too long\n"),
        // A policy of `RevokedDecrypt::Deny`: an operator has withdrawn it.
        Error::KeyRevoked(_) => (StatusCode::FORBIDDEN, "the note was withdrawn\n"),
        // The one who asked did nothing wrong and can do nothing about it. Not 410 for a key that is
        // gone: it may have been lost, and may be put back.
        Error::KeyNotFound(_) | Error::Authentication | Error::ForeignRecord | Error::MalformedRecord(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, UNREADABLE)
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "this cannot be done\n"),
    }
}

const UNREADABLE: &str = "the stored note cannot be read\n";

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use claviger::{BackendError, Created, DataRowRecord, KeyId, KeyMeta};

    use super::*;

    fn failures() -> Vec<(u16, Error)> {
        let id = KeyId::new("_IK_alice_notes_example");
        let key = KeyMeta::new(id.clone(), Created::MIN);
        let persistence = |source| Error::Persistence { operation: "store", source };
        let metastore = |source| Error::Metastore { operation: "load", key: id.clone(), source };
        let kms = |source| Error::Kms { operation: "unwrap_key", key: key.clone(), source };
        let cause = || "alice of db.internal";
        let after = std::time::Duration::ZERO;
        vec![
            (503, persistence(BackendError::transient(cause()))),
            (500, persistence(BackendError::permanent(cause()))),
            (503, metastore(BackendError::transient(cause()))),
            (500, metastore(BackendError::permanent(cause()))),
            (500, metastore(BackendError::damaged(cause()))),
            (503, kms(BackendError::transient(cause()))),
            (500, kms(BackendError::permanent(cause()))),
            (
                503,
                Error::Overloaded { limit: "max_waiting_calls", max: 1, key: id.clone(), dependency: None },
            ),
            (503, Error::Deadline { limit: "operation_deadline", after, key: id.clone(), dependency: None }),
            (503, Error::Interrupted),
            (503, Error::CreationRace(id.clone())),
            (503, Error::Closed),
            (400, Error::InvalidPartition { reason: "is empty" }),
            (413, Error::TooLarge { bytes: 2, max_bytes: 1 }),
            (403, Error::KeyRevoked(key.clone())),
            (500, Error::KeyNotFound(key.clone())),
            (500, Error::Authentication),
            (500, Error::ForeignRecord),
            (500, DataRowRecord::from_json(b"{}").unwrap_err().into()),
            (500, Error::IndistinctKey(key.clone())),
            (500, Error::ClockSkew(key.clone())),
            (500, Error::Forked),
        ]
    }

    #[tokio::test]
    async fn each_error_has_its_status_and_none_names_a_customer_or_a_server() {
        for (expected, error) in failures() {
            let shown = error.to_string();
            let response = Failure::from(error).into_response();
            assert_eq!(response.status().as_u16(), expected, "{shown}");
            let says_when = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(says_when, expected == 503, "{shown}");
            let body = to_bytes(response.into_body(), 1_000).await.unwrap();
            let body = str::from_utf8(&body).unwrap();
            assert!(!body.contains("alice") && !body.contains("db.internal"), "{body}");
        }
    }
}
