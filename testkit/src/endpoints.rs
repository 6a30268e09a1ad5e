//! What says where requests to an AWS service go, besides a program itself.

use std::fs;
use std::path::Path;

use crate::{AwsStandIn, in_environment};

/// The settings of one service, by AWS's name for it.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSettings {
    service: &'static str,
}

const A_PROFILE: &str = "a profile";
const ITS_SERVICES: &str = "a profile's services";

impl EndpointSettings {
    /// Those of a service such as `kms`.
    #[must_use]
    pub const fn of(service: &'static str) -> Self {
        Self { service }
    }

    /// Returns all that say where requests go.
    #[must_use]
    pub fn sources(self) -> [String; 4] {
        let own = format!("AWS_ENDPOINT_URL_{}", self.service.to_uppercase());
        ["AWS_ENDPOINT_URL".to_owned(), own, A_PROFILE.to_owned(), ITS_SERVICES.to_owned()]
    }

    /// Returns the variables that make this source say this URL. Files are made in the folder.
    #[must_use]
    pub fn saying(self, source: &str, url: &str, folder: &Path) -> Vec<(String, String)> {
        let service = self.service;
        let profile = match source {
            A_PROFILE => format!("[default]\nendpoint_url = {url}\n"),
            ITS_SERVICES => {
                format!("[default]\nservices = here\n[services here]\n{service} =\n  endpoint_url = {url}\n")
            }
            variable => return vec![(variable.to_owned(), url.to_owned())],
        };
        let path = folder.join("config");
        fs::write(&path, profile).unwrap();
        vec![("AWS_CONFIG_FILE".to_owned(), path.to_string_lossy().into_owned())]
    }
}

/// Runs the test of this name as [`in_environment`] does, with credentials and these settings.
pub async fn said_with(test: &str, settings: &[(String, String)]) -> String {
    let mut variables =
        vec![("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "canary-secret")];
    variables.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    in_environment(test, "", &variables).await
}

/// Returns this machine's listener by an address that does not say so.
#[must_use]
pub fn as_another_machine(server: &AwsStandIn) -> String {
    server.endpoint().replace("127.0.0.1", "0.0.0.0")
}
