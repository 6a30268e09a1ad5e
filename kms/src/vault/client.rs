//! Requests to Vault: bounded, wiped where they can be, and sent on to the active node.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::vault::address::Address;
use crate::vault::fault::{Operation, VaultTransitError};
use crate::vault::message;

/// The way to one Vault.
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: Address,
    namespace: Option<HeaderValue>,
}

/// A token, as the header that it is sent in. It is wiped when the last request with it is gone.
#[derive(Clone)]
pub(super) struct Token(HeaderValue);

/// What is asked of Vault.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) token: Option<&'a Token>,
    pub(super) body: Bytes,
    pub(super) repeat: Repeat,
}

/// Whether a request that got no answer, since its connection was closed, may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    /// It may have been carried out, and cost one of a few uses.
    Never,
}

/// What Vault answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// What it says in words, if it is an error.
    said: String,
}

// https://developer.hashicorp.com/vault/api-docs#authentication and
// https://developer.hashicorp.com/vault/docs/enterprise/namespaces
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// Answers have a few hundred bytes; a login with many policies may have some thousands.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const REDIRECTS_MAX: usize = 2;
/// Calls are rare: keys are cached for long.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// Vault closes idle connections after five minutes: we do so before.
const IDLE_MAX: Duration = Duration::from_secs(90);

impl Client {
    pub(super) fn new(address: Address, namespace: Option<HeaderValue>, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if address.is_https() { builder.https_only() } else { builder.https_or_http() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(ANSWER_BYTES_MAX)
            .build(connector);
        Self { pool, address, namespace }
    }

    /// Sends the request, to the active node if it is another, and reads the answer.
    ///
    /// # Cancel safety
    /// The connection is closed; the request was carried out or not.
    pub(super) async fn send(
        &self,
        operation: Operation,
        request: &Request<'_>,
    ) -> Result<Answer, VaultTransitError> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send_to(operation, &url, request).await?;
            if response.status() != StatusCode::TEMPORARY_REDIRECT {
                return read(operation, response, request).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let redirected = |reason| VaultTransitError::Redirected { operation: operation.name(), reason };
            url = self.address.follow(&url, location.unwrap_or_default()).map_err(redirected)?;
        }
        Err(VaultTransitError::Redirected { operation: operation.name(), reason: "leads to another" })
    }

    /// A connection that was idle may have been closed just now, and nobody knows before it is used.
    async fn send_to(
        &self,
        operation: Operation,
        url: &Uri,
        request: &Request<'_>,
    ) -> Result<Response<Incoming>, VaultTransitError> {
        match self.pool.request(self.request(url, request)).await {
            Err(error) if request.repeat == Repeat::Safe && was_closed(&error) => {
                self.pool.request(self.request(url, request)).await
            }
            result => result,
        }
        .map_err(|error| fault(operation, error))
    }

    fn request(&self, url: &Uri, request: &Request<'_>) -> hyper::Request<Full<Bytes>> {
        let mut sent = hyper::Request::new(Full::new(request.body.clone()));
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() = url.clone();
        let headers = sent.headers_mut();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(Token(token)) = request.token {
            headers.insert(TOKEN, token.clone());
        }
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        sent
    }
}

impl Token {
    /// Makes a header of it, unless it holds what no header can.
    pub(super) fn new(text: &str) -> Option<Self> {
        let bytes = Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()));
        let mut header = HeaderValue::from_maybe_shared(bytes).ok().filter(|_| !text.is_empty())?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([REDACTED])")
    }
}

impl Answer {
    /// Returns the answer, unless it is an error.
    pub(super) fn expect_success(self, operation: Operation) -> Result<Self, VaultTransitError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        Err(VaultTransitError::refused(operation, self.status.as_u16(), &self.said))
    }
}

async fn read(
    operation: Operation,
    response: Response<Incoming>,
    request: &Request<'_>,
) -> Result<Answer, VaultTransitError> {
    let status = response.status();
    let mut incoming = response.into_body();
    let too_long = || operation.malformed("is longer than any of Vault's");
    let announced = incoming.size_hint().lower();
    let bytes = incoming.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if announced > ANSWER_BYTES_MAX as u64 {
        return Err(too_long());
    }
    // As much as can come: what grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(bytes.unwrap_or(ANSWER_BYTES_MAX)));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| VaultTransitError::Network(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        body.extend_from_slice(&data);
    }
    let said = if status.is_success() { String::new() } else { read_errors(&body, request) };
    Ok(Answer { status, body, said })
}

/// Vault does not repeat what it is sent; something that stands between might.
fn read_errors(body: &[u8], request: &Request<'_>) -> String {
    let token = request.token.map(|Token(token)| token.as_bytes()).unwrap_or_default();
    message::read_errors(body, &[token, &request.body])
}

/// Returns `true` if the connection was closed before an answer came.
fn was_closed(error: &PoolError) -> bool {
    let signs = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted];
    !error.is_connect()
        && causes(error).any(|cause| {
            let hyper = cause.downcast_ref::<hyper::Error>();
            hyper.is_some_and(|error| {
                error.is_incomplete_message() || error.is_closed() || error.is_canceled()
            }) || cause.downcast_ref::<io::Error>().is_some_and(|error| signs.contains(&error.kind()))
        })
}

fn fault(operation: Operation, error: PoolError) -> VaultTransitError {
    if causes(&error).any(is_tls) {
        VaultTransitError::Tls(error.into())
    } else if causes(&error).any(is_no_http) {
        operation.malformed("is no HTTP")
    } else {
        VaultTransitError::Network(error.into())
    }
}

fn is_tls(cause: &(dyn StdError + 'static)) -> bool {
    // An I/O error hides what it carries from a caller that asks for its source.
    let carried = |error: &io::Error| error.get_ref().is_some_and(|inner| is_tls(inner));
    cause.is::<rustls::Error>() || cause.downcast_ref().is_some_and(carried)
}

fn is_no_http(cause: &(dyn StdError + 'static)) -> bool {
    cause.downcast_ref().is_some_and(|error: &hyper::Error| error.is_parse())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_by_its_header_either() {
        let token = Token::new("hvs.secret").unwrap();
        assert_eq!(token.0.as_bytes(), b"hvs.secret");
        assert!(!format!("{token:?} {:?}", token.0).contains("secret"));
    }

    #[test]
    fn what_no_header_holds_is_no_token() {
        for text in ["", "a\n", "a\r\nX-Evil: b", "a\u{0}", "a\u{7f}"] {
            assert!(Token::new(text).is_none(), "{text:?}");
        }
    }
}
