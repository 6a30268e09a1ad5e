//! The token that calls are made with: had by a login, renewed, replaced.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use claviger::{BackendError, Clock};
use hyper::body::Bytes;
use hyper::{Method, StatusCode, Uri};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;

use crate::vault::auth::VaultAuth;
use crate::vault::client::{Answer, Client, Repeat, Request, Token};
use crate::vault::fault::{Operation, VaultTransitError};
use crate::vault::message::{self, Time};

/// Has the token that calls are made with.
pub(super) struct Login {
    auth: VaultAuth,
    urls: Urls,
    clock: Arc<dyn Clock>,
    current: RwLock<Option<Arc<Lease>>>,
    /// Held by the call that logs in or renews; calls that need what comes of it wait here. One that is dropped
    /// leaves it to the next. In it is why the last login failed.
    flight: Mutex<Option<BackendError>>,
    /// How many logins have ended: a call that waited for one takes its failure for its own.
    ended: AtomicU64,
}

pub(super) struct Urls {
    /// `None` if a token was given.
    pub(super) login: Option<Uri>,
    pub(super) look_up: Uri,
    pub(super) renew: Uri,
}

/// A token and how long it is good.
pub(super) struct Lease {
    token: Token,
    /// Tells this login's token from others.
    number: u64,
    obtained: Duration,
    why: Why,
    /// Whether a new login can bring another.
    can_replace: bool,
    /// Whether a call was not denied with it.
    has_served: Arc<AtomicBool>,
    term: Option<Term>,
}

/// Why there was a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// There was no token, or it was at its end.
    Due,
    /// A call was denied.
    Denied,
}

/// Times by the clock that never goes back.
#[derive(Clone, Copy, Debug)]
struct Term {
    /// How long it was good at first.
    granted: Duration,
    renewable: bool,
    renew_at: Duration,
    ends_at: Duration,
}

/// A policy that lacks a right is not mended by logins: those whose tokens serve nothing are kept
/// apart, so that calls which go on being denied do not make three requests of one.
const DENIED_AGAIN: Duration = Duration::from_secs(10);
const RENEW_AGAIN_MIN: Duration = Duration::from_secs(1);

impl Login {
    pub(super) fn new(auth: VaultAuth, urls: Urls, clock: Arc<dyn Clock>) -> Self {
        let (current, flight, ended) = (RwLock::new(None), Mutex::new(None), AtomicU64::new(0));
        Self { auth, urls, clock, current, flight, ended }
    }

    /// Returns a token that is good as far as we know, after a login if need be. The renewal of one that is still
    /// good is waited for `renewal_max`.
    ///
    /// # Cancel safety
    /// A login that was begun is made by the next call that waits for it.
    pub(super) async fn lease(
        &self,
        client: &Client,
        renewal_max: Duration,
    ) -> Result<Arc<Lease>, BackendError> {
        let now = self.clock.monotonic();
        match self.current() {
            Some(lease) if lease.is_due(now) && !lease.is_over(now) => {
                Ok(self.renewed(client, lease, renewal_max).await)
            }
            // There is no other; Vault knows best whether it is over.
            Some(lease) if !lease.is_over(now) || self.is_given() => Ok(lease),
            _ => self.log_in(client, Why::Due, |lease| !lease.is_over(self.clock.monotonic())).await,
        }
    }

    /// Returns a token other than the one that was denied; `None` if there is none to be had now.
    ///
    /// # Cancel safety
    /// As of [`lease`](Self::lease).
    pub(super) async fn after_denial(
        &self,
        client: &Client,
        denied: &Lease,
    ) -> Result<Option<Arc<Lease>>, BackendError> {
        if self.is_given() {
            return Ok(None);
        }
        if let Some(other) = self.current().filter(|lease| lease.number != denied.number) {
            return Ok(Some(other));
        }
        let again_at = denied.obtained.saturating_add(DENIED_AGAIN);
        let is_useless = denied.why == Why::Denied && !denied.has_served.load(Ordering::Relaxed);
        if is_useless && self.clock.monotonic() < again_at {
            return Ok(None);
        }
        self.log_in(client, Why::Denied, |lease| lease.number != denied.number).await.map(Some)
    }

    fn is_given(&self) -> bool {
        matches!(self.auth, VaultAuth::Token(_))
    }

    fn current(&self) -> Option<Arc<Lease>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, lease: Lease) -> Arc<Lease> {
        let lease = Arc::new(lease);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
        lease
    }

    /// Logs in, or waits for the call that does. A token that `will_do` is taken from them.
    async fn log_in(
        &self,
        client: &Client,
        why: Why,
        will_do: impl Fn(&Lease) -> bool + Send,
    ) -> Result<Arc<Lease>, BackendError> {
        let ended = self.ended.load(Ordering::SeqCst);
        let mut failure = self.flight.lock().await;
        if let Some(lease) = self.current().filter(|lease| will_do(lease)) {
            return Ok(lease);
        }
        if self.ended.load(Ordering::SeqCst) != ended
            && let Some(error) = &*failure
        {
            return Err(error.clone());
        }
        let result = self.obtain(client, why).await.map_err(BackendError::from);
        self.ended.fetch_add(1, Ordering::SeqCst);
        *failure = result.as_ref().err().cloned();
        result
    }

    async fn obtain(&self, client: &Client, why: Why) -> Result<Arc<Lease>, VaultTransitError> {
        let obtained = self.clock.monotonic();
        let (token, time) = match (&self.auth, &self.urls.login) {
            (VaultAuth::Token(token), _) => {
                let token = Token::new(token.expose_secret()).ok_or(BAD_TOKEN)?;
                let time = self.look_up(client, &token).await?;
                (token, time)
            }
            (auth, Some(url)) => {
                let body = Bytes::from_owner(auth.credentials().await?);
                let request = Request { method: Method::POST, url, token: None, body, repeat: Repeat::Never };
                let answer =
                    client.send(Operation::Login, &request).await?.expect_success(Operation::Login)?;
                let (token, time) = message::read_grant(Operation::Login, &answer.body)?;
                // Empty if the login is to be confirmed by a second factor.
                let token = Token::new(token).ok_or(Operation::Login.malformed("holds no token"))?;
                (token, Some(time))
            }
            (_, None) => return Err(VaultTransitError::Config("there is nowhere to log in")),
        };
        let term = time.and_then(|time| Term::begin(obtained, time));
        tracing::debug!(lease = ?term, "logged in to Vault");
        let number = self.current().map_or(0, |lease| lease.number + 1);
        let (can_replace, has_served) = (!self.is_given(), Arc::default());
        Ok(self.set(Lease { token, number, obtained, why, can_replace, has_served, term }))
    }

    /// Asks how long a token that was given is good; `None` if it may not ask.
    async fn look_up(&self, client: &Client, token: &Token) -> Result<Option<Time>, VaultTransitError> {
        let (url, body) = (&self.urls.look_up, Bytes::new());
        let request = Request { method: Method::GET, url, token: Some(token), body, repeat: Repeat::Safe };
        let answer = client.send(Operation::LookUp, &request).await?;
        if answer.status == StatusCode::FORBIDDEN {
            tracing::warn!("the token given for Vault may not look itself up: it will not be renewed");
            return Ok(None);
        }
        let answer = answer.expect_success(Operation::LookUp)?;
        message::read_time(Operation::LookUp, &answer.body).map(Some)
    }

    /// Renews a token that is still good, or logs in anew if it cannot be renewed, unless somebody is
    /// at it. Whatever comes of that, there is a token.
    async fn renewed(&self, client: &Client, lease: Arc<Lease>, renewal_max: Duration) -> Arc<Lease> {
        let Ok(_flight) = self.flight.try_lock() else { return lease };
        let current = self.current().unwrap_or(lease);
        if !current.is_due(self.clock.monotonic()) {
            return current;
        }
        let result = tokio::time::timeout(renewal_max, self.renew(client, &current)).await;
        match result.unwrap_or(Err(VaultTransitError::NoAnswer(renewal_max))) {
            Ok(renewed) => {
                if !renewed.can_replace && renewed.term.is_some_and(|term| !term.renewable) {
                    tracing::warn!("the token given for Vault comes to the end of its longest time");
                }
                renewed
            }
            Err(error) => {
                let cause = tell(&error);
                tracing::warn!(cause, "the token for Vault was not renewed; it is still good for a while");
                self.set(current.postponed(self.clock.monotonic()))
            }
        }
    }

    async fn renew(&self, client: &Client, lease: &Lease) -> Result<Arc<Lease>, VaultTransitError> {
        if lease.term.is_some_and(|term| term.renewable) {
            let begun = self.clock.monotonic();
            let answer = self.send_renewal(client, lease).await?;
            match answer.expect_success(Operation::Renew) {
                Ok(answer) => {
                    let (_, time) = message::read_grant(Operation::Renew, &answer.body)?;
                    return Ok(self.set(lease.renewed(begun, time)));
                }
                // At the end of its longest time, or revoked, or not allowed: Vault answers all of
                // them with one of these.
                Err(VaultTransitError::Refused { status: 400 | 403 | 404, .. }) if !self.is_given() => {}
                Err(error) => return Err(error),
            }
        }
        self.obtain(client, Why::Due).await
    }

    async fn send_renewal(&self, client: &Client, lease: &Lease) -> Result<Answer, VaultTransitError> {
        let (url, body) = (&self.urls.renew, Bytes::from_owner(message::object(&[])));
        let token = Some(&lease.token);
        let request = Request { method: Method::POST, url, token, body, repeat: Repeat::Safe };
        client.send(Operation::Renew, &request).await
    }
}

const BAD_TOKEN: VaultTransitError =
    VaultTransitError::Config("the token is empty, or has a line break or another character that none has");

impl Lease {
    pub(super) const fn token(&self) -> &Token {
        &self.token
    }

    /// Notes that Vault carried out a call with it.
    pub(super) fn served(&self) {
        self.has_served.store(true, Ordering::Relaxed);
    }

    fn is_due(&self, now: Duration) -> bool {
        self.term.is_some_and(|term| (term.renewable || self.can_replace) && now >= term.renew_at)
    }

    fn is_over(&self, now: Duration) -> bool {
        self.term.is_some_and(|term| now >= term.ends_at)
    }

    fn with(&self, term: Option<Term>) -> Self {
        let Self { number, obtained, why, can_replace, .. } = *self;
        let (token, has_served) = (self.token.clone(), self.has_served.clone());
        Self { token, number, obtained, why, can_replace, has_served, term }
    }

    fn renewed(&self, now: Duration, time: Time) -> Self {
        let granted = self.term.map_or(time.ttl, |term| term.granted);
        let term = Term::begin(now, time).map(|term| Term {
            granted,
            // Vault gives less and less as the longest time comes near: better a new login than
            // renewals ever faster.
            renewable: term.renewable && time.ttl >= granted / 3,
            ..term
        });
        self.with(term)
    }

    fn postponed(&self, now: Duration) -> Self {
        let later = |term: Term| {
            let pause = (term.ends_at.saturating_sub(now) / 4).max(RENEW_AGAIN_MIN);
            Term { renew_at: now.saturating_add(pause), ..term }
        };
        self.with(self.term.map(later))
    }
}

impl Term {
    /// `None` if it is good for ever.
    fn begin(now: Duration, time: Time) -> Option<Self> {
        let Time { ttl, renewable } = time;
        let after = |time| now.saturating_add(time);
        let (renew_at, ends_at) = (after(ttl / 3 * 2), after(ttl));
        (!ttl.is_zero()).then_some(Self { granted: ttl, renewable, renew_at, ends_at })
    }
}

/// Says an error with all its causes.
fn tell(error: &VaultTransitError) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told.push_str(": ");
        told.push_str(&error.to_string());
        cause = error.source();
    }
    told
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("auth", &self.auth).finish_non_exhaustive()
    }
}
