//! What Vault answers to a request.

use serde_json::{Value, json};

use crate::vault::request::Request;
use crate::vault::state::State;
use crate::vault::{Cluster, Node, NodeRole, lock};

/// A status, headers (`Location: …`), and a body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// See <https://developer.hashicorp.com/vault/api-docs#error-response>.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::errors(status, &[message.to_owned()])
    }

    pub(crate) fn errors(status: u16, messages: &[String]) -> Self {
        let body = serde_json::to_vec(&json!({ "errors": messages })).unwrap();
        Self { status, headers: vec!["Content-Type: application/json".to_owned()], body }
    }

    fn ok(auth: Value, data: Value) -> Self {
        let body = json!({
            "auth": auth, "data": data, "lease_duration": 0, "lease_id": "", "mount_type": "transit",
            "renewable": false, "request_id": "ab00ba0f-9e45-0aca-e3c1-7765fd83fc3c", "warnings": null,
            "wrap_info": null,
        });
        let body = serde_json::to_vec(&body).unwrap();
        Self { status: 200, headers: vec!["Content-Type: application/json".to_owned()], body }
    }
}

/// Answers as this node.
pub(crate) fn answer(cluster: &Cluster, node: &Node, request: &Request) -> Reply {
    let mut state = lock(&cluster.state);
    // https://developer.hashicorp.com/vault/docs/concepts/seal
    if state.is_sealed {
        return Reply::error(503, "Vault is sealed");
    }
    // https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent#require_request_header: an
    // agent may want it, so it is wanted here.
    if request.header("x-vault-request") != Some("true") {
        return Reply::error(412, "missing 'X-Vault-Request' header");
    }
    // https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection
    match lock(&node.role).clone() {
        NodeRole::Active => {}
        NodeRole::Standby(active) => {
            let location = format!("Location: {active}{}", request.path);
            return Reply { status: 307, headers: vec![location], body: Vec::new() };
        }
        NodeRole::Orphan => {
            return Reply::error(500, "local node not active but active cluster node not found");
        }
    }
    // https://developer.hashicorp.com/vault/docs/enterprise/namespaces
    let namespace =
        request.header("x-vault-namespace").map(|namespace| format!("{}/", namespace.trim_matches('/')));
    let Some(path) = request.path.strip_prefix("/v1/") else {
        return Reply::error(404, "404 page not found");
    };
    let path = format!("{}{path}", namespace.unwrap_or_default());
    active(&mut state, request, &path)
}

fn active(state: &mut State, request: &Request, path: &str) -> Reply {
    let is_post = request.method == "POST" || request.method == "PUT";
    if path.contains("auth/") && path.ends_with("/login") && is_post {
        return log_in(state, request, path);
    }
    let token = request.header("x-vault-token").unwrap_or_default().to_owned();
    if !state.use_token(&token, path) {
        // https://developer.hashicorp.com/vault/api-docs#http-status-codes
        return Reply::error(403, "permission denied");
    }
    match (request.method.as_str(), path) {
        ("GET", "auth/token/lookup-self") => Reply::ok(Value::Null, state.look_up(&token)),
        (_, "auth/token/renew-self") if is_post => match state.renew(&token) {
            Ok(()) => Reply::ok(state.auth(&token), Value::Null),
            Err(message) => Reply::error(400, message),
        },
        _ => transit(state, request, path, is_post),
    }
}

fn log_in(state: &mut State, request: &Request, path: &str) -> Reply {
    let body = request.json();
    let is_at = |mount: &str| {
        let (namespace, method) =
            mount.rsplit_once('/').map_or(("", mount), |(namespace, method)| (namespace, method));
        let slash = if namespace.is_empty() { "" } else { "/" };
        path == format!("{namespace}{slash}auth/{method}/login")
    };
    let mut here = state.roles.iter().filter(|role| is_at(&role.mount)).peekable();
    let Some(fields) = here.peek().map(|role| role.fields) else {
        return Reply::error(403, "permission denied");
    };
    match here.find(|role| role.accepts(&body)).map(|role| role.grant().clone()) {
        Some(grant) => {
            let token = state.issue(&grant);
            Reply::ok(state.auth(&token), Value::Null)
        }
        // https://developer.hashicorp.com/vault/docs/auth/approle
        None if fields == ["role_id", "secret_id"] => Reply::error(400, "invalid role or secret ID"),
        // https://developer.hashicorp.com/vault/docs/auth/kubernetes
        None if !state.roles.iter().any(|role| is_at(&role.mount) && role.is_named(&body)) => {
            Reply::error(400, "invalid role name")
        }
        None => Reply::error(403, "permission denied"),
    }
}

/// See <https://developer.hashicorp.com/vault/api-docs/secret/transit>.
fn transit(state: &State, request: &Request, path: &str, is_post: bool) -> Reply {
    let parts: Vec<&str> = path.rsplitn(3, '/').collect();
    let &[name, operation, mount] = parts.as_slice() else { return no_route() };
    let inside = format!("{mount}/");
    if !state.keys.keys().any(|key| key.starts_with(&inside)) {
        return no_route();
    }
    let key = state.keys.get(&format!("{mount}/{name}"));
    let body = request.json();
    let field = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (operation, key) {
        ("keys", None) => Reply { status: 404, headers: Vec::new(), body: b"{\"errors\":[]}".to_vec() },
        ("keys", Some(key)) if !is_post => Reply::ok(
            Value::Null,
            json!({ "name": name, "type": "aes256-gcm96", "latest_version": key.latest_version() }),
        ),
        ("encrypt" | "decrypt" | "rewrap", _) if !is_post => Reply::error(405, "unsupported operation"),
        ("encrypt" | "decrypt" | "rewrap", None) => Reply::error(400, "encryption key not found"),
        ("encrypt", Some(key)) => {
            let made = key.encrypt(&field("plaintext"));
            reply(made.map(|text| json!({ "ciphertext": text, "key_version": key.latest_version() })))
        }
        ("decrypt", Some(key)) => {
            reply(key.decrypt(&field("ciphertext")).map(|text| json!({ "plaintext": text })))
        }
        ("rewrap", Some(key)) => {
            let made = key.decrypt(&field("ciphertext")).and_then(|plaintext| key.encrypt(&plaintext));
            reply(made.map(|text| json!({ "ciphertext": text, "key_version": key.latest_version() })))
        }
        _ => no_route(),
    }
}

fn reply(made: Result<Value, &str>) -> Reply {
    match made {
        Ok(data) => Reply::ok(Value::Null, data),
        Err(message) => Reply::error(400, message),
    }
}

fn no_route() -> Reply {
    Reply::error(404, "no handler for route")
}
