//! An HTTP client of AWS's SDK that reaches nobody: it answers what the input says.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;

/// What is answered next: a status and a body, once; then an empty object.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<Option<(u16, Vec<u8>)>>>);

impl Answers {
    /// Says what is answered next.
    pub fn set(&self, status: u16, body: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((status, body.to_vec()));
    }

    /// Returns the client that answers so.
    #[must_use]
    pub fn client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_settings, _components| connector.clone())
    }
}

impl HttpConnector for Answers {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (status, body) = next.unwrap_or((200, b"{}".to_vec()));
        let status = status.try_into().expect("it is a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}
