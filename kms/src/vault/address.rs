//! Where Vault is, and what is asked of it there.

use std::net::IpAddr;

use hyper::Uri;
use hyper::http::uri::Scheme;

use crate::vault::fault::VaultTransitError;

/// The checked address of a server.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// `https://host:8200`, and perhaps the path of a proxy, with no slash at its end.
    base: String,
    plain: PlainHttp,
}

/// To whom plain HTTP may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    Loopback,
    Anywhere,
}

impl Address {
    pub(super) fn parse(text: &str, plain: PlainHttp) -> Result<Self, VaultTransitError> {
        let url = parse_url(text, plain).map_err(VaultTransitError::Config)?;
        let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let scheme = url.scheme_str().unwrap_or_default();
        let base = format!("{scheme}://{authority}{}", url.path().trim_end_matches('/'));
        Ok(Self { base, plain })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.base
    }

    pub(super) fn is_https(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// Returns the URL of an API path, made of checked names.
    pub(super) fn api(&self, path: &str) -> Result<Uri, VaultTransitError> {
        let malformed = |_| VaultTransitError::Config("the address cannot be used in a URL");
        format!("{}/v1/{path}", self.base).parse().map_err(malformed)
    }

    /// Returns where a standby's `Location` leads, if it leads to another node's same path.
    ///
    /// See <https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection>.
    pub(super) fn follow(&self, from: &Uri, location: &str) -> Result<Uri, &'static str> {
        let to = parse_url(location, self.plain)?;
        if to.scheme() != from.scheme() {
            return Err("leads from HTTPS to HTTP or back");
        }
        // The node knows nothing of the path of a proxy in front of it.
        if !to.path().starts_with("/v1/") || !from.path().ends_with(to.path()) {
            return Err("leads to another path");
        }
        Ok(to)
    }
}

fn parse_url(text: &str, plain: PlainHttp) -> Result<Uri, &'static str> {
    if text.contains(['#', '?']) {
        return Err("the address has a query or a fragment");
    }
    let url: Uri = text.parse().map_err(|_invalid| "the address is no URL")?;
    let authority = url.authority().ok_or("the address names no host, as https://host:8200 does")?;
    // Whoever prints the address would print the password.
    if authority.as_str().contains('@') {
        return Err("the address has a user or password in it");
    }
    match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Ok(url),
        Some(scheme) if *scheme == Scheme::HTTP => {
            if plain == PlainHttp::Anywhere || is_loopback(authority.host()) {
                Ok(url)
            } else {
                Err(
                    "keys and tokens do not go over plain HTTP to other machines, unless danger_http allows it",
                )
            }
        }
        _ => Err("the address does not begin with https://"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Checks a path of names, as of a mount or a namespace, and returns it without slashes at its ends.
pub(super) fn check_path(text: &str, what: &'static str) -> Result<String, VaultTransitError> {
    let path = text.trim_matches('/');
    if path.split('/').all(is_name) { Ok(path.to_owned()) } else { Err(VaultTransitError::Config(what)) }
}

/// Returns `true` if it can stand in a URL as it is. Vault answers 404 to a path that ends in a dot.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(is_plain) && !name.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, VaultTransitError> {
        Address::parse(text, PlainHttp::Loopback)
    }

    #[test]
    fn addresses_are_read() {
        for (text, url) in [
            ("https://vault:8200", "https://vault:8200/v1/a/b"),
            ("https://vault.internal/", "https://vault.internal/v1/a/b"),
            ("https://proxy/team/vault/", "https://proxy/team/vault/v1/a/b"),
            ("https://[2001:db8::1]:8200", "https://[2001:db8::1]:8200/v1/a/b"),
            ("http://127.0.0.1:8200", "http://127.0.0.1:8200/v1/a/b"),
            ("http://127.9.9.9", "http://127.9.9.9/v1/a/b"),
            ("http://[::1]:8200", "http://[::1]:8200/v1/a/b"),
            ("http://localhost:8200", "http://localhost:8200/v1/a/b"),
        ] {
            assert_eq!(parse(text).unwrap().api("a/b").unwrap().to_string(), url);
        }
    }

    #[test]
    fn addresses_that_leak_or_are_none_are_refused() {
        for text in [
            "",
            "vault",
            "vault:8200",
            "/v1",
            "ftp://vault",
            "https://",
            "https://user@vault",
            "https://user:password@vault:8200",
            "https://vault/?a=b",
            "https://vault/#a",
            "https://va ult",
            "http://vault:8200",
            "http://10.0.0.1:8200",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://[::2]",
            "http://localhost@vault",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(Address::parse("http://vault:8200", PlainHttp::Anywhere).is_ok());
    }

    #[test]
    fn redirects_lead_to_the_same_path_of_another_node() {
        let address = parse("https://proxy/prefix").unwrap();
        let from = address.api("transit/encrypt/key").unwrap();
        for good in ["https://node:8200/v1/transit/encrypt/key", "https://n/prefix/v1/transit/encrypt/key"] {
            let followed = address.follow(&from, good);
            // A path before `/v1/` is the proxy's alone.
            assert_eq!(followed.is_ok(), !good.contains("prefix"), "{good}");
        }
        for bad in [
            "http://127.0.0.1:8200/v1/transit/encrypt/key",
            "https://node/v1/transit/encrypt/other",
            "https://node/encrypt/key",
            "https://user@node/v1/transit/encrypt/key",
            "https://node/v1/transit/encrypt/key?a=b",
            "/v1/transit/encrypt/key",
            "//node/v1/transit/encrypt/key",
            "",
        ] {
            assert!(address.follow(&from, bad).is_err(), "{bad:?}");
        }
        let local = parse("http://127.0.0.1:1").unwrap();
        let from = local.api("transit/encrypt/key").unwrap();
        assert!(local.follow(&from, "http://127.0.0.1:2/v1/transit/encrypt/key").is_ok());
        assert!(local.follow(&from, "http://node/v1/transit/encrypt/key").is_err());
        assert!(local.follow(&from, "https://node/v1/transit/encrypt/key").is_err());
    }

    #[test]
    fn names_are_what_a_url_holds_as_it_is() {
        for good in ["transit", "team/transit", "/ns1/ns2/", "a.b-c_1"] {
            assert_eq!(check_path(good, "").unwrap(), good.trim_matches('/'));
        }
        for bad in ["", "/", "a//b", "..", "a/../b", ".", "a b", "a?b", "a%2fb", "a#b", "\u{e9}", "a\n", "a."]
        {
            assert!(check_path(bad, "").is_err(), "{bad:?}");
        }
    }
}
