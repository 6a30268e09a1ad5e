//! The services of a move. Each can be switched off, and tells how often it was asked.

use std::path::Path;
use std::sync::Arc;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use claviger::testing::{Fault, Faults, FaultyKms, Operation};
use claviger::{BoxedKms, FailureClass, KeyManagementService};
use claviger_kms::{AnyOfKms, AwsKms, LocalKms, Pkcs11Kms};
use claviger_testkit::SoftHsm;
use secrecy::SecretString;

/// One service, by a name, as every process of a fleet opens it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) kms: BoxedKms,
    faults: Faults,
}

impl Service {
    pub(crate) fn new(name: &'static str, kms: impl KeyManagementService) -> Self {
        let kms = FaultyKms::new(kms);
        let faults = kms.faults().clone();
        Self { name, kms: BoxedKms::new(kms), faults }
    }

    pub(crate) fn local(folder: &Path) -> Self {
        Self::new("local", LocalKms::open_or_create(folder.join("master.key")).unwrap())
    }

    /// Two regions of one server, which forgets its keys when it is killed.
    pub(crate) async fn aws(endpoint: &str) -> Self {
        let mut builder = AwsKms::builder();
        for region in ["us-east-1", "eu-west-1"] {
            let config = aws_sdk_kms::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(region))
                .endpoint_url(endpoint)
                .credentials_provider(Credentials::new("id", "secret", None, None, "drills"))
                .http_client(aws_smithy_http_client::Builder::new().build_http());
            let client = Client::from_conf(config.build());
            let arn = client.create_key().send().await.unwrap().key_metadata.unwrap().arn.unwrap();
            builder = builder.region(region, arn).client(region, client);
        }
        Self::new("aws", builder.open().await.unwrap())
    }

    pub(crate) async fn hsm(token: &SoftHsm) -> Self {
        let key = "system-keys-1";
        token.add_key(key);
        let builder = Pkcs11Kms::builder(token.module(), token.label(), key);
        let kms = builder.pin(SecretString::from(token.pin().to_owned())).open().await.unwrap();
        Self::new("hsm", kms)
    }

    /// From now on it does nothing for anybody. Returns how often it had been asked.
    pub(crate) fn switch_off(&self) -> usize {
        self.faults.always(Fault::Fail(FailureClass::Permanent));
        self.faults.calls()
    }

    /// It works again.
    pub(crate) fn switch_on(&self) {
        self.faults.heal();
    }

    pub(crate) fn calls(&self) -> usize {
        self.faults.calls()
    }

    pub(crate) fn calls_of(&self, operation: Operation) -> usize {
        self.faults.calls_of(operation)
    }
}

/// What a process of the fleet is configured with: one service alone, or the first, while the others
/// are read.
#[derive(Clone, Debug)]
pub(crate) struct Configuration(pub(crate) Vec<Service>);

impl Configuration {
    pub(crate) fn of(services: &[&Service]) -> Arc<Self> {
        Arc::new(Self(services.iter().map(|service| (*service).clone()).collect()))
    }

    pub(crate) fn name(&self) -> String {
        self.0.iter().map(|service| service.name).collect::<Vec<_>>().join(" + ")
    }

    /// Opens what it says, as a process does when it starts.
    pub(crate) fn open(&self) -> BoxedKms {
        match self.0.as_slice() {
            [service] => service.kms.clone(),
            services => {
                let add = |builder: claviger_kms::AnyOfKmsBuilder, service: &Service| {
                    builder.member(service.name, service.kms.clone())
                };
                BoxedKms::new(services.iter().fold(AnyOfKms::builder(), add).build().unwrap())
            }
        }
    }
}
