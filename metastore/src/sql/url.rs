//! What the URLs of database servers have in common: several hosts, and parameters of ours.

/// A URL taken apart.
#[derive(Debug)]
pub(crate) struct ServerUrl<'a> {
    /// Up to the hosts: the scheme, user and password.
    before: &'a str,
    hosts: &'a str,
    /// The database, with the slash before it.
    path: &'a str,
    /// Names and values, as they are written.
    pub(crate) parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> ServerUrl<'a> {
    /// Takes a URL apart that begins with one of these schemes.
    pub(crate) fn parse(url: &'a str, schemes: &[&str]) -> Option<Self> {
        let url = url.split('#').next().unwrap_or_default();
        let scheme = schemes.iter().find(|scheme| url.starts_with(**scheme))?;
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let authority_end = url.get(scheme.len()..)?.find('/').map_or(url.len(), |end| scheme.len() + end);
        let (authority, path) = url.split_at(authority_end);
        let hosts_begin = authority.rfind('@').map_or(scheme.len(), |at| at + 1);
        let (before, hosts) = authority.split_at(hosts_begin);
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        let parameters =
            parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))).collect();
        Some(Self { before, hosts, path, parameters })
    }

    /// Takes the value of a parameter that the driver does not know out of it. Of several the last one
    /// counts.
    pub(crate) fn take(&mut self, names: &[&str]) -> Option<&'a str> {
        let value =
            self.parameters.iter().rev().find(|(name, _)| names.contains(name)).map(|(_, value)| *value);
        self.parameters.retain(|(name, _)| !names.contains(name));
        value
    }

    /// Returns the URL for each host.
    pub(crate) fn of_each_host(&self) -> impl Iterator<Item = String> {
        let query: Vec<_> = self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        self.hosts.split(',').map(move |host| format!("{}{host}{}{query}", self.before, self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(url: &str) -> Vec<String> {
        ServerUrl::parse(url, &["db://"]).unwrap().of_each_host().collect()
    }

    #[test]
    fn each_host_has_the_same_user_database_and_parameters() {
        assert_eq!(
            each("db://a:p%40w@h1:1,h2,[::1]:3/keys?x=1&y=2#z"),
            [
                "db://a:p%40w@h1:1/keys?x=1&y=2",
                "db://a:p%40w@h2/keys?x=1&y=2",
                "db://a:p%40w@[::1]:3/keys?x=1&y=2"
            ]
        );
        assert_eq!(each("db://h1"), ["db://h1"]);
        assert_eq!(each("db://a,b@h1,h2/k"), ["db://a,b@h1/k", "db://a,b@h2/k"]);
        assert!(ServerUrl::parse("other://h", &["db://"]).is_none());
    }

    #[test]
    fn parameters_of_ours_are_not_the_drivers() {
        let mut url = ServerUrl::parse("db://h/k?ours=1&x=1&ours=2", &["db://"]).unwrap();
        assert_eq!(url.take(&["ours", "mine"]), Some("2"));
        assert_eq!(url.of_each_host().collect::<Vec<_>>(), ["db://h/k?x=1"]);
        assert_eq!(url.take(&["ours"]), None);
    }
}
