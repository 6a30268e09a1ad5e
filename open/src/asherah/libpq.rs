//! The connection strings of PostgreSQL's libpq: `host=db.example user=app password='a b' dbname=keys`.

use std::iter::Peekable;
use std::str::Chars;

use super::dsn::escaped;
use crate::error::SpecError;
use crate::nearest::nearest;

/// Returns the URL that says the same. Nothing of the text is repeated by an error: there is a password in it.
pub(super) fn to_url(text: &str, called: &str) -> Result<String, SpecError> {
    let wrong = |why: &str| SpecError::wrong(&format!("{called} {why}; {USAGE}"));
    let [mut host, mut port, mut user, mut password, mut database] = [const { String::new() }; 5];
    let mut parameters = Vec::new();
    for (name, value) in pairs(text).ok_or_else(|| wrong("is not made of name=value"))? {
        match &*name {
            // A folder with a socket is no name that a URL can have for a host.
            "host" if value.starts_with('/') => parameters.push(format!("host={}", escaped(&value))),
            "host" => host = value,
            "port" => port = format!(":{value}"),
            "user" => user = escaped(&value),
            "password" => password = format!(":{}", escaped(&value)),
            "dbname" => database = escaped(&value),
            _ if PARAMETERS.contains(&&*name) => parameters.push(format!("{name}={}", escaped(&value))),
            // Claviger's limits have the deadlines.
            "connect_timeout" => {}
            _ => {
                let known = [PARAMETERS, &["connect_timeout", "dbname", "host", "password", "port", "user"]];
                let meant = nearest(&name, &known.concat()).map(|name| format!(", did you mean {name}?"));
                let meant = meant.unwrap_or_default();
                return Err(wrong(&format!("has a parameter that claviger does not know{meant}")));
            }
        }
    }
    if host.contains(['/', '@', '?', '#']) || !port.bytes().skip(1).all(|digit| digit.is_ascii_digit()) {
        return Err(wrong("has an address that is none"));
    }
    let host = if host.is_empty() { "localhost".to_owned() } else { host };
    let at = if user.is_empty() && password.is_empty() { "" } else { "@" };
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    Ok(format!("postgres://{user}{password}{at}{host}{port}/{database}{query}"))
}

/// Takes it apart; `None` if it cannot be.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return Some(pairs);
        }
        let mut name = String::new();
        loop {
            match letters.next()? {
                '=' => break,
                letter => name.push(letter),
            }
        }
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        pairs.push((name.trim_end().to_owned(), value(&mut letters)?));
    }
}

/// Takes a value, which blanks end unless it stands in quotes. A backslash takes what is behind it as it is.
fn value(letters: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    let is_quoted = letters.next_if_eq(&'\'').is_some();
    loop {
        match letters.next() {
            Some('\\') => value.push(letters.next()?),
            Some('\'') if is_quoted => return Some(value),
            Some(letter) if letter.is_whitespace() && !is_quoted => return Some(value),
            Some(letter) => value.push(letter),
            None => return (!is_quoted).then_some(value),
        }
    }
}

const PARAMETERS: &[&str] = &[
    "application_name",
    "hostaddr",
    "options",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
];

const USAGE: &str = "say host=HOST user=USER password=PASSWORD dbname=DATABASE, or a postgres:// URL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_of_libpq_says_what_its_url_says() {
        for (text, url) in [
            ("host=db.example port=5433 user=app dbname=keys", "postgres://app@db.example:5433/keys"),
            (
                r"user = app password='it\'s a \\ b' host = h dbname=k sslmode=verify-full",
                "postgres://app:it%27s%20a%20%5C%20b@h/k?sslmode=verify%2Dfull",
            ),
            ("dbname=k user=u password='' host=h", "postgres://u:@h/k"),
            (r"password=a\ b host=h", "postgres://:a%20b@h/"),
            (
                "host=/run/postgresql dbname=k connect_timeout=5",
                "postgres://localhost/k?host=%2Frun%2Fpostgresql",
            ),
        ] {
            assert_eq!(to_url(text, "ConnectionString").unwrap(), url);
        }
    }

    #[test]
    fn what_is_wrong_with_one_is_told_and_not_repeated() {
        for (text, says) in [
            ("SECRET", "is not made of name=value"),
            ("host=h password='SECRET", "is not made of name=value"),
            ("host=h password=SECRET\\", "is not made of name=value"),
            ("host=h pasword=SECRET", "did you mean password?"),
            ("host=h password=SEC RET=SECRET", "does not know"),
            ("host=h@SECRET", "an address that is none"),
            ("host=h port=SECRET", "an address that is none"),
        ] {
            let error = to_url(text, "ConnectionString").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }
}
