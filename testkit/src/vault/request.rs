//! A request, as it was read.

use serde_json::Value;

/// A request that was read.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns a header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The token, the body, and each text in it alone: what hides one of them need not hide another.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let token = self.header("x-vault-token").unwrap_or_default().to_owned();
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let fields = self.json().as_object().cloned().unwrap_or_default();
        let texts = fields.values().filter_map(|value| value.as_str().map(str::to_owned));
        [token, body].into_iter().chain(texts).collect()
    }

    pub(crate) fn line(&self) -> String {
        let namespace = self.header("x-vault-namespace").map(|namespace| format!("{namespace}:"));
        format!("{} {}{}", self.method, namespace.unwrap_or_default(), self.path)
    }
}
