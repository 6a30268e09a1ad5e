//! The transit engine of HashiCorp Vault or OpenBao.

mod address;
mod auth;
pub(crate) mod builder;
mod ciphertext;
mod client;
mod fault;
#[cfg(fuzzing)]
pub mod fuzzing;
mod login;
mod message;

use std::fmt;
use std::sync::Arc;

use claviger::{BackendError, CallContext, KeyManagementService, KeyMeta, SecretKey, WrapHealth, WrappedKey};
use hyper::body::Bytes;
use hyper::{Method, StatusCode, Uri};
use zeroize::Zeroizing;

pub use crate::vault::auth::VaultAuth;
pub use crate::vault::fault::VaultTransitError;

use crate::vault::ciphertext::Ciphertext;
use crate::vault::client::{Answer, Client, Repeat, Request};
use crate::vault::fault::Operation;
use crate::vault::login::{Lease, Login};

/// Wraps system keys by the transit engine of HashiCorp Vault or OpenBao, which never gives out its
/// master key.
///
/// Stored is what Vault answers, `vault:vN:` and base64, as `asherah` 1.0 stores it: each reads the
/// other's keys. `N` is the version of Vault's key: after it was rotated, old versions still unwrap,
/// until the key's `min_decryption_version` forbids it, and [`rewrap`](Self::rewrap) brings a stored
/// key to the newest.
///
/// | call | request | policy |
/// |---|---|---|
/// | `wrap_key` | [`POST {mount}/encrypt/{key}`][encrypt] | `update` |
/// | `unwrap_key` | [`POST {mount}/decrypt/{key}`][decrypt] | `update` |
/// | [`rewrap`](Self::rewrap) | [`POST {mount}/rewrap/{key}`][rewrap] | `update` |
/// | login | [`POST auth/{mount}/login`][approle], also [of Kubernetes][kubernetes] | |
/// | a token given | [`GET auth/token/lookup-self`][lookup], once | in `default` |
/// | renewal | [`POST auth/token/renew-self`][renew] | in `default` |
///
/// Make the key first, and give the service `update` alone: with `create`, a misspelt name makes a
/// new key. Keys that are `derived` need a context, which Asherah does not send: they are not
/// supported, and refused with a permanent error that says so.
///
/// # Tokens
/// The first call logs in. Two thirds into its lease the token is renewed by the next call, or
/// replaced by a new login where it cannot be; that call may take longer, and its failure is not the
/// call's as long as the token is good. A call that is denied (403) logs in anew and is made once
/// more: tokens are revoked and used up. A token had so that was denied everything is replaced after
/// ten seconds at the earliest. Calls that need the same login wait for one. A token that was given cannot be replaced: it is
/// renewed while Vault does so, and then refused. Nothing runs in the background; a service that was
/// idle for too long logs in at its next call.
///
/// # Time
/// Each call, login included, ends at the deadline of its context. The core retries what fails
/// transiently and keeps away from what is down, so nothing of that is here, but that a call is
/// repeated at once when its connection turns out to be closed.
///
/// # Standbys
/// A standby that cannot forward a call [redirects to the active node][ha]. That is followed, twice
/// at most, to the same path, and over HTTPS only from HTTPS. The token goes along. Anybody that can redirect
/// has shown a certificate for the configured address, and gets the token anyway; the node that it
/// names must show one, too. Over plain HTTP, which proves nothing, redirects stay on this machine
/// unless [`danger_http`](crate::VaultTransitKmsBuilder::danger_http) allows it.
///
/// # Memory
/// Keys, tokens and credentials lie in buffers of ours that are wiped. What cannot be wiped: hyper's
/// buffers of what it sends and receives, each freed with its connection, or overwritten by the next
/// call, and those of rustls.
///
/// ```no_run
/// use claviger_kms::{VaultAuth, VaultTransitKms};
///
/// # async fn example() -> Result<(), claviger::BackendError> {
/// let kms = VaultTransitKms::builder("https://vault.internal:8200", "claviger")
///     .auth(VaultAuth::kubernetes("checkout"))
///     .open()
///     .await?;
/// # Ok(()) }
/// ```
///
/// [encrypt]: https://developer.hashicorp.com/vault/api-docs/secret/transit#encrypt-data
/// [decrypt]: https://developer.hashicorp.com/vault/api-docs/secret/transit#decrypt-data
/// [rewrap]: https://developer.hashicorp.com/vault/api-docs/secret/transit#rewrap-data
/// [approle]: https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle
/// [kubernetes]: https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login
/// [lookup]: https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self
/// [renew]: https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self
/// [ha]: https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection
pub struct VaultTransitKms {
    client: Client,
    login: Login,
    urls: Urls,
    /// For readers: the address, and the mount with the key's name.
    address: String,
    key: String,
}

/// Where the transit engine's operations on the key are.
struct Urls {
    encrypt: Uri,
    decrypt: Uri,
    rewrap: Uri,
}

impl VaultTransitKms {
    /// Wraps a stored key under the newest version of Vault's key, without the key leaving Vault.
    ///
    /// # Errors
    /// As `unwrap_key`.
    ///
    /// # Cancel safety
    /// Nothing is changed in Vault.
    pub async fn rewrap(&self, wrapped: &[u8], context: &CallContext) -> Result<WrappedKey, BackendError> {
        let stored = Ciphertext::parse(wrapped).map_err(refused)?;
        let answer = self.call(Operation::Rewrap, message::ciphertext(&stored), context).await?;
        read_wrapped(Operation::Rewrap, &answer)
    }

    async fn call(
        &self,
        operation: Operation,
        body: Zeroizing<Vec<u8>>,
        context: &CallContext,
    ) -> Result<Answer, BackendError> {
        let within = context.remaining();
        tokio::time::timeout_at(context.deadline, self.exchange(operation, body, context))
            .await
            .unwrap_or_else(|_elapsed| Err(VaultTransitError::NoAnswer(within).into()))
    }

    async fn exchange(
        &self,
        operation: Operation,
        body: Zeroizing<Vec<u8>>,
        context: &CallContext,
    ) -> Result<Answer, BackendError> {
        let body = Bytes::from_owner(body);
        // A renewal that takes long leaves the call half of its time.
        let lease = self.login.lease(&self.client, context.remaining() / 2).await?;
        let mut answer = self.post(operation, &lease, &body).await?;
        if answer.status != StatusCode::FORBIDDEN {
            lease.served();
        } else if let Some(fresh) = self.login.after_denial(&self.client, &lease).await? {
            answer = self.post(operation, &fresh, &body).await?;
            if answer.status != StatusCode::FORBIDDEN {
                fresh.served();
            }
        }
        Ok(answer.expect_success(operation)?)
    }

    async fn post(
        &self,
        operation: Operation,
        lease: &Arc<Lease>,
        body: &Bytes,
    ) -> Result<Answer, VaultTransitError> {
        let url = match operation {
            Operation::Wrap => &self.urls.encrypt,
            Operation::Rewrap => &self.urls.rewrap,
            _ => &self.urls.decrypt,
        };
        let token = Some(lease.token());
        // Nothing is changed in Vault by any of them, so that each may be repeated.
        let request = Request { method: Method::POST, url, token, body: body.clone(), repeat: Repeat::Safe };
        self.client.send(operation, &request).await
    }
}

/// The error of a call that has not asked Vault yet.
fn refused(fault: VaultTransitError) -> BackendError {
    BackendError::from(fault).not_asked()
}

fn read_wrapped(operation: Operation, answer: &Answer) -> Result<WrappedKey, BackendError> {
    Ok(WrappedKey::new(read_ciphertext(operation, &answer.body)?.as_bytes()))
}

/// Reads a ciphertext as strictly as it will be read when it comes back from the store.
fn read_ciphertext(operation: Operation, answer: &[u8]) -> Result<&str, BackendError> {
    let text = message::read_ciphertext(operation, answer)?;
    let malformed = |_stored| operation.malformed("holds no transit ciphertext");
    Ciphertext::parse(text.as_bytes()).map_err(malformed)?;
    Ok(text)
}

impl KeyManagementService for VaultTransitKms {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        _meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        let answer = self.call(Operation::Wrap, message::plaintext(key), context).await?;
        read_wrapped(Operation::Wrap, &answer)
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        _meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        let stored = Ciphertext::parse(wrapped).map_err(refused)?;
        let answer = self.call(Operation::Unwrap, message::ciphertext(&stored), context).await?;
        Ok(message::read_key(Operation::Unwrap, &answer.body)?)
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        let stored = Ciphertext::parse(wrapped).map_err(refused)?;
        Ok(WrapHealth::new(vec![format!("{} v{}", self.key, stored.version())], Vec::new()))
    }
}

impl fmt::Debug for VaultTransitKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransitKms")
            .field("address", &self.address)
            .field("key", &self.key)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}
