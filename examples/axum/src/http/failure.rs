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
    use claviger::testing::every_error;
    use claviger::{BackendError, Created, KeyId, KeyMeta};

    use super::*;

    /// The status of each error there is.
    fn expected(error: &Error) -> u16 {
        match error {
            Error::Metastore { source, .. }
            | Error::Kms { source, .. }
            | Error::Persistence { source, .. }
                if source.is_transient() =>
            {
                503
            }
            Error::Overloaded { .. }
            | Error::Deadline { .. }
            | Error::Interrupted { .. }
            | Error::CreationRace(_)
            | Error::Random(_)
            | Error::Memory(_)
            | Error::NoRuntime(_)
            | Error::Closed => 503,
            Error::InvalidPartition { .. } => 400,
            Error::TooLarge { .. } => 413,
            Error::KeyRevoked(_) => 403,
            _ => 500,
        }
    }

    fn failures() -> Vec<Error> {
        let key = KeyMeta::new(KeyId::new("_IK_alice_notes_example"), Created::MIN);
        let sources = [BackendError::transient, BackendError::permanent, BackendError::damaged];
        sources.iter().flat_map(|source| every_error(&key, &source("alice of db.internal"))).collect()
    }

    #[tokio::test]
    async fn each_error_has_its_status_and_none_names_a_customer_or_a_server() {
        for error in failures() {
            let expected = expected(&error);
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
