//! Where the requests of a service go, and where they may go.

use std::net::IpAddr;

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

/// A service, as the settings of AWS name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "those that the back ends use")]
pub enum Service {
    /// The key management service.
    Kms,
    /// The store.
    DynamoDb,
}

/// The URL that the requests of a service go to, where that is not left to the SDK.
///
/// It is the only way from a setting to a client: a caller that has one had it checked.
#[derive(Clone, Debug)]
pub struct Endpoint(String);

impl Endpoint {
    /// Takes the endpoint that the caller gave, else the one that the machine's settings have for the service:
    /// `AWS_ENDPOINT_URL_KMS` and its kin, `AWS_ENDPOINT_URL`, a profile's `services` and `endpoint_url`,
    /// in the order of the SDK. Neither is an answer too: then the SDK's own rules make one, which is https.
    ///
    /// One that is not AWS's is logged, by its host.
    ///
    /// # Errors
    /// When it is neither `https://` nor of this machine, and `danger_http` does not allow it.
    pub fn choose(
        service: Service,
        given: Option<&str>,
        machine: Option<&SdkConfig>,
        danger_http: bool,
    ) -> Result<Option<Self>, InTheClear> {
        let (url, origin) = match (given, machine.and_then(|machine| configured(machine, service))) {
            (Some(given), _) => (given.to_owned(), Origin::Given),
            (None, Some(configured)) => (configured, Origin::Machine),
            (None, None) => return Ok(None),
        };
        if !(is_https(&url) || is_of_this_machine(&url) || danger_http) {
            return Err(InTheClear { service, origin });
        }
        let host = host(&url);
        if !is_of_aws(host) {
            let (service, set_by) = (service.id(), origin.told(service));
            tracing::info!(service, host, set_by, "the endpoint is not one of AWS's own");
        }
        Ok(Some(Self(url)))
    }

    /// Returns the URL.
    #[must_use]
    pub fn into_url(self) -> String {
        self.0
    }
}

/// An endpoint of another machine that is not https: anybody who listens on the way reads what is sent, and anybody who
/// answers in its place chooses the data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint of {} that {} is not https", .service.id(), .origin.told(*.service))]
pub struct InTheClear {
    service: Service,
    origin: Origin,
}

/// What says where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Given,
    Machine,
}

impl Origin {
    const fn told(self, service: Service) -> &'static str {
        match (self, service) {
            (Self::Given, _) => "was given",
            (Self::Machine, Service::Kms) => "AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS or a profile sets",
            (Self::Machine, Service::DynamoDb) => {
                "AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB or a profile sets"
            }
        }
    }
}

impl Service {
    const fn id(self) -> &'static str {
        match self {
            Self::Kms => "KMS",
            Self::DynamoDb => "DynamoDB",
        }
    }
}

/// Looks where the SDK's clients look when they are made.
fn configured(machine: &SdkConfig, service: Service) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id(service.id()).env("AWS_ENDPOINT_URL");
    let key = key.profile("endpoint_url").build().ok();
    let of_service = key.and_then(|key| machine.service_config()?.load_config(key));
    of_service.or_else(|| machine.endpoint_url().map(str::to_owned))
}

fn is_https(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

fn is_of_this_machine(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    // What is before an @ is a user's name, in which anything may stand.
    let authority = authority(rest);
    let host = without_port(authority);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The host alone: before it may be a password, after it a path.
fn host(url: &str) -> &str {
    let authority = authority(url.split_once("://").map_or(url, |(_, rest)| rest));
    without_port(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn without_port(authority: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host)
}

/// Returns `true` if a host is in one of AWS's own domains, VPC endpoints among them.
fn is_of_aws(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    AWS_DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(|name| name.ends_with('.')))
}

const AWS_DOMAINS: [&str; 4] =
    ["amazonaws.com", "amazonaws.com.cn", "api.aws", "api.amazonwebservices.com.cn"];

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write as _};
    use std::sync::{Arc, Mutex};

    use tracing::field::Field;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    #[test]
    fn an_endpoint_is_https_or_of_this_machine() {
        for refused in [
            "http://kms.us-east-1.amazonaws.com",
            "http://10.0.0.1:4566",
            "http://0.0.0.0:4566",
            "http://localhost.example.com/",
            "http://localhost@example.com/",
            "http://127.0.0.1@example.com:80/",
            "http://127.0.0.1:80@example.com",
            "http://example.com:80/127.0.0.1",
            "http://[::2]:80",
            "http://example.com\\@localhost",
            "ftp://localhost",
            "https:localhost",
            "localhost",
            "",
        ] {
            for service in [Service::Kms, Service::DynamoDb] {
                let error = Endpoint::choose(service, Some(refused), None, false).unwrap_err();
                assert!(error.to_string().ends_with("that was given is not https"), "{error}");
                let taken = Endpoint::choose(service, Some(refused), None, true).unwrap().unwrap();
                assert_eq!(taken.into_url(), refused);
            }
        }
        for taken in [
            "https://vpce-1a2b3c.kms.us-east-1.vpce.amazonaws.com",
            "HTTPS://example.com",
            "http://localhost",
            "http://localhost:4566/",
            "http://127.0.0.1:4566",
            "http://[::1]:4566/path",
        ] {
            let chosen = Endpoint::choose(Service::Kms, Some(taken), None, false).unwrap().unwrap();
            assert_eq!(chosen.into_url(), taken);
        }
        assert!(Endpoint::choose(Service::Kms, None, None, false).unwrap().is_none());
    }

    #[test]
    fn an_endpoint_that_is_not_of_aws_is_logged_once_by_its_host_alone() {
        let log = Log::default();
        let _scope = tracing::subscriber::set_default(log.clone());
        let choose = |url| Endpoint::choose(Service::Kms, Some(url), None, false).unwrap().unwrap();
        choose("https://user:canary@example.com:8443/canary?canary");
        let said = log.0.lock().unwrap().clone();
        assert!(said.contains("host=\"example.com\"") && said.contains("service=\"KMS\""), "{said}");
        assert_eq!((said.matches("message").count(), said.matches("canary").count()), (1, 0), "{said}");
        choose("https://kms.us-east-1.amazonaws.com");
        assert_eq!(*log.0.lock().unwrap(), said);
        assert_eq!((host("example.com"), host("http://[::1]:80/")), ("example.com", "[::1]"));
    }

    /// The fields of all events.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<String>>);

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut said = self.0.lock().unwrap();
            event.record(&mut |field: &Field, value: &dyn Debug| write!(said, "{field}={value:?} ").unwrap());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn only_names_below_a_domain_of_aws_are_of_aws() {
        for own in ["kms.us-east-1.amazonaws.com", "KMS.cn-north-1.amazonaws.com.cn", "kms.us-east-1.api.aws"]
        {
            assert!(is_of_aws(own), "{own}");
        }
        for other in ["amazonaws.com.example.com", "evilamazonaws.com", "amazonaws.com", "localhost", ""] {
            assert!(!is_of_aws(other), "{other}");
        }
    }
}
