//! URLs of key stores on servers.

use std::fmt;
use std::path::PathBuf;

use url::{ParseError, Url, form_urlencoded};

use crate::error::SpecError;
use crate::nearest::nearest;

/// A server's URL, taken apart: what goes on to its store as it is, and what claviger reads.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    /// Without what claviger reads, and with the first of several hosts. It may hold a password.
    url: Url,
    /// The other hosts, as they were written.
    others: Vec<String>,
    /// What claviger reads, in the order given.
    options: Vec<(String, String)>,
}

/// What the URLs of one kind of server may say.
pub(crate) struct Form {
    /// How such a URL is written.
    usage: &'static str,
    /// The parameters that claviger reads.
    ours: &'static [&'static str],
    /// Those that the store and its driver read.
    drivers: &'static [&'static str],
    /// Other names that the driver has for the same.
    other_names: &'static [&'static str],
    takes_user: bool,
}

pub(crate) const POSTGRES: Form = Form {
    usage: "postgres://USER@HOST[:PORT]/DATABASE",
    ours: &[],
    drivers: &[
        "application_name",
        "dbname",
        "host",
        "hostaddr",
        "options",
        "password",
        "port",
        "prepared-statements",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "statement-cache-capacity",
        "target_session_attrs",
        "user",
    ],
    other_names: &["target-session-attrs", "ssl-mode", "ssl-root-cert", "ssl-ca", "ssl-cert", "ssl-key"],
    takes_user: true,
};

pub(crate) const MYSQL: Form = Form {
    usage: "mysql://USER@HOST[:PORT]/DATABASE",
    ours: &[],
    drivers: &["socket", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode", "statement-cache-capacity", "timezone"],
    other_names: &["sslca", "sslcert", "sslkey", "sslmode", "time-zone"],
    takes_user: true,
};

pub(crate) const DYNAMODB: Form = Form {
    usage: "dynamodb://TABLE[?region=REGION&endpoint=URL]",
    ours: &["endpoint", "region"],
    drivers: &[],
    other_names: &[],
    takes_user: false,
};

impl ServerUrl {
    pub(crate) fn parse(text: &str, form: &Form, called: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| SpecError::wrong(&format!("the URL of {called} {why}"));
        // Without them all of it would be hosts, parameters too.
        if !text.split_once(':').is_some_and(|(_scheme, rest)| rest.starts_with("//")) {
            return Err(wrong(&format!("lacks its //; say {}", form.usage)));
        }
        let (text, others) = if form.takes_user { hosts_apart(text) } else { (text.to_owned(), Vec::new()) };
        let read = |text: &str| {
            Url::parse(text).map_err(|error| {
                let why = match error {
                    ParseError::InvalidPort => "has a port that is no number",
                    ParseError::EmptyHost => "names no host",
                    _ => "cannot be read",
                };
                wrong(&format!("{why}; say {}, {ESCAPES}", form.usage))
            })
        };
        let mut url = read(&text)?;
        for host in &others {
            read(&format!("{}://{host}", url.scheme()))?;
        }
        if !is_as_meant(&url) {
            return Err(wrong(&format!("has a # or a second @, {ESCAPES}")));
        }
        if !form.takes_user && (!url.username().is_empty() || url.password().is_some()) {
            return Err(wrong(
                "names a user; leave it out: the credentials come from where AWS's tools look for them",
            ));
        }
        let (mut options, mut drivers) = (Vec::new(), Vec::new());
        let query = url.query().unwrap_or_default().to_owned();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let Some((name, value)) = form_urlencoded::parse(parameter.as_bytes()).next() else { continue };
            if form.ours.contains(&&*name) {
                if options.iter().any(|(other, _)| *other == name) {
                    return Err(wrong(&format!("says {name} twice; say it once")));
                }
                options.push((name.into_owned(), value.into_owned()));
            } else if form.goes_through(&name) {
                // As it was written: the store decodes it.
                drivers.push(parameter);
            } else {
                // Not repeated: who forgot to escape a password finds a piece of it here.
                let known = form.parameters();
                let meant = nearest(&name, &known);
                let meant = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                let known = known.join(", ");
                return Err(wrong(&format!("has a parameter that is not known; there are {known}{meant}")));
            }
        }
        url.set_query(Some(&*drivers.join("&")).filter(|query| !query.is_empty()));
        Ok(Self { url, others, options })
    }

    /// Returns the URL for the store, which may hold a password: this one, in place of its own.
    #[cfg(any(test, feature = "postgres", feature = "mysql"))]
    pub(crate) fn reveal(&self, password: Option<&str>) -> String {
        let mut url = self.url.clone();
        if password.is_some() {
            // A URL of a server takes one: that it has no host has been looked for.
            let _ = url.set_password(password);
        }
        let text = url.as_str();
        let (authority, rest) = text.split_at(authority_end(text));
        format!("{authority}{}{rest}", self.other_hosts())
    }

    fn other_hosts(&self) -> String {
        self.others.iter().map(|host| format!(",{host}")).collect()
    }

    /// Returns the value of a parameter that claviger reads.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The files with certificates and keys for the connection.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let is_file = |name: &str| {
            let name = name.replace('-', "");
            ["sslrootcert", "sslca", "sslcert", "sslkey"].contains(&&*name)
        };
        let files = self.url.query_pairs().filter(|(name, _)| is_file(name));
        files.map(|(_, path)| path.into_owned().into()).collect()
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

impl Form {
    fn goes_through(&self, name: &str) -> bool {
        // PostgreSQL's settings may also be given one by one, as options[NAME].
        let is_setting =
            self.drivers.contains(&"options") && name.starts_with("options[") && name.ends_with(']');
        is_setting || self.drivers.contains(&name) || self.other_names.contains(&name)
    }

    pub(super) const fn usage(&self) -> &'static str {
        self.usage
    }

    fn parameters(&self) -> Vec<&'static str> {
        let mut names = [self.ours, self.drivers].concat();
        names.sort_unstable();
        names
    }
}

/// Names the server, without password and parameters.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.url.scheme())?;
        if !self.url.username().is_empty() {
            write!(f, "{}@", self.url.username())?;
        }
        f.write_str(self.host())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.other_hosts())?;
        f.write_str(self.url.path())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns `true` if a text is a URL with a password in it, also one that cannot be read as a URL: most
/// often it is an unescaped password that makes it so.
pub(super) fn has_password(text: &str) -> bool {
    let (first, _) = hosts_apart(text);
    match Url::parse(&first) {
        Ok(url) if is_as_meant(&url) => {
            has_authority_password(&url)
                || url.query_pairs().any(|(name, value)| {
                    let is_password = name.eq_ignore_ascii_case("password") && !value.is_empty();
                    // No parameter is called so: it is a password's end, and the user's host.
                    is_password
                        || name.contains('@')
                        || Url::parse(&value).is_ok_and(|url| has_authority_password(&url))
                })
        }
        _ => text
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once('@'))
            .is_some_and(|(authority, _)| authority.contains(':')),
    }
}

/// Returns `true` if what stands before the path is all of user, password and host: a password that is
/// not escaped can end there and go on behind.
fn is_as_meant(url: &Url) -> bool {
    url.fragment().is_none() && !url.path().contains('@')
}

/// Returns the URL with the first of its hosts, and the other hosts: a URL proper has but one.
fn hosts_apart(text: &str) -> (String, Vec<String>) {
    let (authority, rest) = text.split_at(authority_end(text));
    let hosts_begin = authority.rfind('@').map_or(0, |at| at + 1);
    let (before, hosts) = authority.split_at(hosts_begin);
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    (format!("{before}{first}{rest}"), hosts.map(str::to_owned).collect())
}

/// Where user, password and hosts end.
fn authority_end(text: &str) -> usize {
    let begin = text.find("://").map_or(text.len(), |scheme_end| scheme_end + 3);
    let rest = text.get(begin..).unwrap_or_default();
    rest.find(['/', '?', '#']).map_or(text.len(), |end| begin + end)
}

fn has_authority_password(url: &Url) -> bool {
    url.password().is_some_and(|password| !password.is_empty())
}

const ESCAPES: &str =
    "and escape what is special in its password: @ is %40, / is %2F, : is %3A, # is %23, ? is %3F, % is %25";

#[cfg(test)]
mod tests;
