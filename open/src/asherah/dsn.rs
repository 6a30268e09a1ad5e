//! The connection strings of Go's MySQL driver: `user:password@tcp(host:port)/database?tls=true&parseTime=true`.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::SpecError;
use crate::nearest::nearest;

/// Returns the URL that says the same. Nothing of the text is repeated by an error: there is a password in it.
pub(super) fn to_url(text: &str, called: &str) -> Result<String, SpecError> {
    let wrong = |why: &str| SpecError::wrong(&format!("{called} {why}; {USAGE}"));
    // A password may have slashes and at signs: what is behind the last ones counts.
    let (before, query) = match text.rsplit_once('/') {
        Some((before, rest)) => (before, rest),
        None => return Err(wrong("lacks its / before the database")),
    };
    let (database, query) = query.split_once('?').unwrap_or((query, ""));
    let (user, server) = before.rsplit_once('@').unwrap_or(("", before));
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    let (protocol, address) = match server.split_once('(') {
        Some((protocol, address)) => {
            (protocol, address.strip_suffix(')').ok_or_else(|| wrong("lacks the ) behind its address"))?)
        }
        None => (server, ""),
    };
    let mut parameters = Vec::new();
    let host = match protocol {
        "" | "tcp" if address.is_empty() => "127.0.0.1".to_owned(),
        "" | "tcp" => address.to_owned(),
        "unix" => {
            parameters.push(format!("socket={}", escaped(address)));
            "localhost".to_owned()
        }
        _ => return Err(wrong("has a protocol that is not known; there are tcp and unix")),
    };
    if host.contains(['/', '@', '?', '#']) {
        return Err(wrong("has an address that is none"));
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        parameters.extend(self::parameter(name, &value).map_err(|why| wrong(&why))?);
    }
    let mut url = "mysql://".to_owned();
    if !user.is_empty() {
        url.push_str(&escaped(user));
        url.extend(password.map(|password| format!(":{}", escaped(password))));
        url.push('@');
    }
    url.push_str(&format!("{host}/{}", escaped(&percent_decode_str(database).decode_utf8_lossy())));
    if !parameters.is_empty() {
        url.push_str(&format!("?{}", parameters.join("&")));
    }
    Ok(url)
}

/// Returns what the URL says in place of a parameter, if it says anything.
fn parameter(name: &str, value: &str) -> Result<Option<String>, String> {
    match (name, value) {
        ("tls", "true") => Ok(Some("ssl-mode=VERIFY_IDENTITY".to_owned())),
        ("tls", "skip-verify") => Ok(Some("ssl-mode=REQUIRED".to_owned())),
        ("tls", "preferred") => Ok(Some("ssl-mode=PREFERRED".to_owned())),
        ("tls", "false" | "") => Ok(Some("ssl-mode=DISABLED".to_owned())),
        ("tls", _) => {
            Err("has a tls that names a configuration of a Go program's; give a mysql:// URL with \
                           ssl-mode and ssl-ca"
                .to_owned())
        }
        // As it is written to the row; the table's check at the start finds rows of another zone.
        ("loc", "UTC" | "") => Ok(None),
        ("loc", _) => {
            Err("has a loc other than UTC; leave it out, and say time_zone if rows are of another zone"
                .to_owned())
        }
        ("time_zone", zone) => Ok(Some(format!("timezone={}", escaped(zone.trim_matches('\''))))),
        _ if WITHOUT_EFFECT.contains(&name) => Ok(None),
        _ => {
            let known = [WITHOUT_EFFECT, &["loc", "time_zone", "tls"]].concat();
            let meant = nearest(name, &known).map(|name| format!(", did you mean {name}?"));
            Err(format!("has a parameter that claviger does not know{}", meant.unwrap_or_default()))
        }
    }
}

/// Escapes whatever a URL could take for its own.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// They concern the driver, whose work the store does in its own way: it reads times as they are, speaks
/// `utf8mb4`, and is told its deadlines.
const WITHOUT_EFFECT: &[&str] = &[
    "allowNativePasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "interpolateParams",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "timeout",
    "writeTimeout",
];

const USAGE: &str = "say user:password@tcp(host:port)/database?tls=true, or a mysql:// or postgres:// URL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_says_what_its_url_says() {
        for (dsn, url) in [
            (
                "user:p/w@x:y@tcp(db.example:3307)/keys?tls=true&parseTime=true",
                "mysql://user:p%2Fw%40x%3Ay@db.example:3307/keys?ssl-mode=VERIFY_IDENTITY",
            ),
            ("user@tcp([::1]:3306)/keys?tls=skip-verify", "mysql://user@[::1]:3306/keys?ssl-mode=REQUIRED"),
            ("user:@unix(/run/my.sock)/keys", "mysql://user:@localhost/keys?socket=%2Frun%2Fmy%2Esock"),
            ("/keys?parseTime=true&loc=UTC", "mysql://127.0.0.1/keys"),
            ("u@tcp/k?time_zone=%27%2B02:00%27&charset=utf8mb4", "mysql://u@127.0.0.1/k?timezone=%2B02%3A00"),
            ("u@tcp(h)/k?tls=preferred", "mysql://u@h/k?ssl-mode=PREFERRED"),
            ("u@tcp(h)/k?tls=false", "mysql://u@h/k?ssl-mode=DISABLED"),
        ] {
            assert_eq!(to_url(dsn, "ConnectionString").unwrap(), url);
        }
    }

    #[test]
    fn what_is_wrong_with_a_dsn_is_told_and_not_repeated() {
        for (dsn, says) in [
            ("SECRET", "lacks its /"),
            ("user:SECRET@tcp(host/keys", "lacks the )"),
            ("user:SECRET@pipe(host)/keys", "there are tcp and unix"),
            ("user:SECRET@tcp(host)/keys?tls=SECRET", "a configuration of a Go program's"),
            ("user:SECRET@tcp(host)/keys?loc=SECRET", "other than UTC"),
            ("user:SECRET@tcp(host)/keys?parseTme=true", "did you mean parseTime?"),
        ] {
            let error = to_url(dsn, "ConnectionString").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }
}
