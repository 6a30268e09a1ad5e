//! What all nodes of a cluster have in common: keys, tokens, and the roles that log in to have them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::vault::transit::{Key, random};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) now: Duration,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) roles: Vec<Role>,
    pub(crate) is_sealed: bool,
}

/// What a token may do, and for how long.
#[derive(Clone, Debug)]
#[must_use]
pub struct Grant {
    pub(crate) ttl: Duration,
    max_ttl: Option<Duration>,
    is_renewable: bool,
    uses: Option<u32>,
    denied: Vec<String>,
}

impl Default for Grant {
    fn default() -> Self {
        Self::new()
    }
}

impl Grant {
    /// Everything, for an hour at a time, renewable for ever.
    pub const fn new() -> Self {
        let ttl = Duration::from_secs(3600);
        Self { ttl, max_ttl: None, is_renewable: true, uses: None, denied: Vec::new() }
    }

    /// How long at a time; zero for ever, as root tokens.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long at most, with all renewals.
    pub const fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = Some(max_ttl);
        self
    }

    /// Not renewable, as batch tokens.
    pub const fn not_renewable(mut self) -> Self {
        self.is_renewable = false;
        self
    }

    /// For so many requests.
    pub const fn uses(mut self, uses: u32) -> Self {
        self.uses = Some(uses);
        self
    }

    /// Not for requests whose path holds `part`.
    pub fn denied(mut self, part: &str) -> Self {
        self.denied.push(part.to_owned());
        self
    }
}

pub(crate) struct Token {
    grant: Grant,
    created: Duration,
    ends: Option<Duration>,
    uses_left: Option<u32>,
}

/// The roles that can log in.
pub(crate) struct Role {
    pub(crate) mount: String,
    pub(crate) fields: [&'static str; 2],
    credentials: [String; 2],
    grant: Grant,
}

impl Role {
    pub(crate) fn new(mount: &str, fields: [&'static str; 2], credentials: [&str; 2], grant: &Grant) -> Self {
        let credentials = credentials.map(str::to_owned);
        Self { mount: mount.to_owned(), fields, credentials, grant: grant.clone() }
    }

    pub(crate) fn accepts(&self, body: &Value) -> bool {
        self.matches(body).all(|matches| matches)
    }

    /// Returns `true` if the role's name is the one in the body, whatever the secret.
    pub(crate) fn is_named(&self, body: &Value) -> bool {
        self.matches(body).next() == Some(true)
    }

    fn matches(&self, body: &Value) -> impl Iterator<Item = bool> {
        let given = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        self.fields.iter().zip(&self.credentials).map(move |(field, credential)| given(field) == credential)
    }

    pub(crate) const fn grant(&self) -> &Grant {
        &self.grant
    }
}

impl State {
    pub(crate) fn issue(&mut self, grant: &Grant) -> String {
        let name = format!("hvs.{}", base64_simd::URL_SAFE_NO_PAD.encode_to_string(random::<24>()));
        let mut token = Token { grant: grant.clone(), created: self.now, ends: None, uses_left: grant.uses };
        token.extend(self.now);
        self.tokens.insert(name.clone(), token);
        name
    }

    /// Uses the token once for a path, if it may.
    pub(crate) fn use_token(&mut self, name: &str, path: &str) -> bool {
        let now = self.now;
        let Some(token) = self.tokens.get_mut(name) else { return false };
        let is_over = token.ends.is_some_and(|ends| now >= ends) || token.uses_left == Some(0);
        // A use is spent on what is then denied, too.
        token.uses_left = token.uses_left.map(|left| left.saturating_sub(1));
        !is_over && !token.grant.denied.iter().any(|part| path.contains(part))
    }

    /// See <https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self>.
    pub(crate) fn look_up(&self, name: &str) -> Value {
        let Some(token) = self.tokens.get(name) else { return Value::Null };
        json!({
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed", "creation_time": 1_523_979_354,
            "creation_ttl": token.grant.ttl.as_secs(), "display_name": "fake", "entity_id": "",
            "expire_time": null, "explicit_max_ttl": 0, "id": name, "meta": null, "num_uses": token.uses_left.unwrap_or(0),
            "orphan": true, "path": "auth/token/create", "policies": ["default"],
            "renewable": token.grant.is_renewable, "ttl": token.left(self.now).as_secs(), "type": "service",
        })
    }

    /// See <https://developer.hashicorp.com/vault/api-docs/auth/token#renew-a-token-self>.
    pub(crate) fn renew(&mut self, name: &str) -> Result<(), &'static str> {
        let now = self.now;
        let token = self.tokens.get_mut(name).ok_or("token not found")?;
        if !token.grant.is_renewable {
            return Err("lease is not renewable");
        }
        token.extend(now);
        Ok(())
    }

    /// What a login and a renewal answer under `auth`.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle>.
    pub(crate) fn auth(&self, name: &str) -> Value {
        let Some(token) = self.tokens.get(name) else { return Value::Null };
        json!({
            "accessor": "afa306d0-be3d-c8d2-b0d7-2676e1c0d9b4", "client_token": name, "entity_id": "",
            "lease_duration": token.left(self.now).as_secs(), "metadata": null, "orphan": true,
            "policies": ["default"], "renewable": token.grant.is_renewable, "token_policies": ["default"],
            "token_type": "service",
        })
    }
}

impl Token {
    fn extend(&mut self, now: Duration) {
        if self.grant.ttl.is_zero() {
            return;
        }
        let end = now + self.grant.ttl;
        self.ends = Some(self.grant.max_ttl.map_or(end, |max| end.min(self.created + max)));
    }

    fn left(&self, now: Duration) -> Duration {
        self.ends.map_or(Duration::ZERO, |ends| ends.saturating_sub(now))
    }
}

impl State {
    pub(crate) fn key(&mut self, path: &str) -> &mut Key {
        self.keys.get_mut(path).unwrap_or_else(|| panic!("there is no transit key {path}"))
    }
}
