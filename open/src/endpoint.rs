//! URLs that requests are sent to.

use url::Url;

use crate::error::SpecError;
use crate::fields::Fields;

/// Reads one in which there is nothing secret.
pub(crate) fn endpoint(fields: &mut Fields, name: &'static str) -> Result<Option<String>, SpecError> {
    let called = fields.called(name);
    let Some(text) = fields.text(name)? else { return Ok(None) };
    if is_endpoint(&text) {
        return Ok(Some(text));
    }
    Err(fields
        .wrong(&format!("has an {called} that is none; say http://HOST or https://HOST, without a user")))
}

/// Returns `true` if requests can go there, and nothing secret is in it.
fn is_endpoint(text: &str) -> bool {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.is_some_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
}
