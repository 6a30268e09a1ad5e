//! Credentials that are missing, refused, or come from the environment.

use std::process::Command;
use std::time::Duration;

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use claviger::testing::call;
use claviger::{CallContext, KeyManagementService as _};
use claviger_kms::AwsKms;
use claviger_testkit::{AwsStandIn, in_environment, told_by_parent};

use crate::stand_in::honest;
use crate::support::{
    EAST, PERMANENT, TRANSIENT, arn, assert_failed, chain, client_config, meta, new_secret,
};

#[tokio::test]
async fn failures_of_credentials_have_their_class() {
    let cases: [(fn() -> CredentialsError, _); 5] = [
        (CredentialsError::not_loaded_no_source, PERMANENT),
        (|| CredentialsError::invalid_configuration("canary"), PERMANENT),
        (|| CredentialsError::unhandled("canary"), PERMANENT),
        (|| CredentialsError::provider_error("canary"), TRANSIENT),
        (|| CredentialsError::provider_timed_out(Duration::from_secs(1)), TRANSIENT),
    ];
    let server = AwsStandIn::start(honest).await;
    for (failure, class) in cases {
        let failing = provide_credentials_fn(move || async move { Err(failure()) });
        let config = client_config(server.endpoint(), EAST).credentials_provider(failing).build();
        let kms = AwsKms::builder().region(EAST, arn(EAST)).client(EAST, Client::from_conf(config));
        let kms = kms.open().await.unwrap();
        assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, class, "no credentials");
    }
    assert!(server.seen().is_empty(), "nothing was sent");
}

/// As a child, opens a service that has no client, and prints what comes of a wrap.
async fn wrap_as_child() -> bool {
    let Some(endpoint) = told_by_parent() else { return false };
    let kms = AwsKms::builder().region(EAST, arn(EAST)).endpoint(EAST, endpoint).open().await.unwrap();
    match kms.wrap_key(&new_secret(), &meta(), &call()).await {
        Ok(_) => println!("wrapped"),
        Err(error) => println!("{:?} {}", error.class(), chain(&error)),
    }
    true
}

#[tokio::test]
async fn credentials_are_found_in_the_environment() {
    if wrap_as_child().await {
        return;
    }
    let server = AwsStandIn::start(honest).await;
    let found = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "canary-secret")];
    let test = "credentials::credentials_are_found_in_the_environment";
    let said = in_environment(test, server.endpoint(), &found).await;
    assert!(said.contains("wrapped"), "{said}");
    assert_eq!(server.operations(), ["GenerateDataKey"]);
    let said = in_environment(test, server.endpoint(), &[]).await;
    assert!(said.contains("Permanent") && said.contains("no credentials: none in the environment"), "{said}");
}

/// A program that gives out credentials, and waits for a word before it does.
struct SlowProgram {
    folder: tempfile::TempDir,
}

impl SlowProgram {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Self { folder };
        let made = Command::new("mkfifo").arg(program.path("word")).status().unwrap();
        assert!(made.success());
        let credentials = r#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"canary-secret"}"#;
        let script = format!(
            "echo >> {}; read word < {}; echo '{credentials}'",
            program.path("starts"),
            program.path("word")
        );
        std::fs::write(program.path("script"), script).unwrap();
        let profile = format!("[default]\ncredential_process = sh {}\n", program.path("script"));
        std::fs::write(program.path("config"), profile).unwrap();
        program
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// How often it was started.
    fn starts(&self) -> usize {
        std::fs::read(self.path("starts")).map_or(0, |lines| lines.len())
    }
}

/// Credentials that take longer than a call waits are asked for once, and come in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_come_late_do_come() {
    if let Some(endpoint) = told_by_parent() {
        #[expect(clippy::disallowed_methods, reason = "so the child is told where the pipe is")]
        let word = std::env::var("WORD").unwrap();
        let soon = || CallContext::within(Duration::from_millis(100));
        let builder = AwsKms::builder().region(EAST, arn(EAST)).endpoint(EAST, endpoint);
        let kms = builder.open().await.unwrap();
        assert_failed(
            kms.wrap_key(&new_secret(), &meta(), &soon()).await,
            TRANSIENT,
            "no answer within 100ms",
        );
        // Opened for both, a pipe waits for nobody at its other end.
        let mut word = std::fs::OpenOptions::new().read(true).write(true).open(word).unwrap();
        std::io::Write::write_all(&mut word, b"now\n").unwrap();
        // The program ends soon after it has the word; until then, and while the region is left alone
        // for its silence, calls go on to fail.
        let come = async {
            while let Err(error) = kms.wrap_key(&new_secret(), &meta(), &soon()).await {
                assert_eq!(error.class(), TRANSIENT, "{}", chain(&error));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), come).await.expect("credentials come");
        return;
    }
    let (server, program) = (AwsStandIn::start(honest).await, SlowProgram::new());
    let (config, word) = (program.path("config"), program.path("word"));
    let found = [("AWS_CONFIG_FILE", config.as_str()), ("WORD", &word), ("PATH", "/usr/bin:/bin")];
    in_environment("credentials::credentials_that_come_late_do_come", server.endpoint(), &found).await;
    assert_eq!(program.starts(), 1);
    assert_eq!(server.operations(), ["GenerateDataKey"]);
}
