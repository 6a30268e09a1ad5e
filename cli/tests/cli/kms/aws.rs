//! AWS KMS in two regions, as moto has it, each behind a proxy that can be cut.

use claviger_testkit::{AWS_VARIABLES, AwsService, Direction, Fault, Proxy, shared_localstack, shared_moto};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::json;
use crate::kit::{Kit, Run, finish};

const NAMES: [&str; 2] = ["us-east-1", "eu-west-1"];
/// A machine that is busy is no region that is down.
const PATIENT: &str = "hedge-after=10s,call-deadline=30s";
/// Two regions, each with a key of its own.
struct Regions {
    kit: Kit,
    arns: [String; 2],
    proxies: [Proxy; 2],
    /// The proxies run in it.
    _runtime: Runtime,
}

impl Regions {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = shared_moto().strip_prefix("http://").unwrap().trim_end_matches('/');
        let proxies = [0, 1].map(|_| runtime.block_on(Proxy::start(address)));
        let kit = Kit::new();
        kit.write("payload", "x");
        Self { kit, arns: NAMES.map(|name| create_key(shared_moto(), name)), proxies, _runtime: runtime }
    }

    fn kms(&self) -> String {
        let region = |place: usize| {
            let (name, arn) = (NAMES[place], &self.arns[place]);
            format!("{name}={arn},endpoint.{name}=http://{}", self.proxies[place].address())
        };
        format!("aws:{},{},preferred=us-east-1,{PATIENT}", region(0), region(1))
    }

    fn run_with(&self, kms: &str, arguments: &[&str]) -> Run {
        let mut command = self.kit.command(arguments);
        finish(command.env("CLAVIGER_KMS", kms).envs(AWS_VARIABLES))
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(&self.kms(), arguments)
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.text(), run.stderr);
        assert!(!run.stderr.contains("a-secret-access-key"), "{}", run.stderr);
        run
    }

    fn encrypt(&self) -> Run {
        self.ends_with(0, &["encrypt", "payload", "-p", "me", "-o", "record"])
    }

    fn decrypt(&self) {
        assert_eq!(self.ends_with(0, &["decrypt", "record", "-p", "me"]).text(), "x");
    }

    fn set_down(&self, place: usize) {
        self.proxies[place].set(Fault::Cut { direction: Direction::ToServer, after: 0 });
    }

    fn set_up(&self, place: usize) {
        self.proxies[place].set(Fault::None);
    }

    /// What a check says of each region.
    fn good(&self, code: i32) -> Vec<(String, bool)> {
        let report = json(&self.ends_with(code, &["kms", "check", "--format", "json"]));
        assert_eq!(report["good"], code == 0);
        let copies = report["copies"].as_array().unwrap().iter();
        copies.map(|copy| (copy["name"].as_str().unwrap().to_owned(), copy["good"] == true)).collect()
    }

    fn key(&self, code: i32, arguments: &[&str]) -> Value {
        let run = self.ends_with(code, &[arguments, &["--format", "json"]].concat());
        json(&run)["keys"][0].clone()
    }
}

fn request(endpoint: &str, region: &str, operation: &str, body: &str) -> Value {
    AwsService::Kms.done(endpoint, region, operation, body)
}

fn create_key(endpoint: &str, region: &str) -> String {
    let made = request(endpoint, region, "CreateKey", "{}");
    let arn = made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned();
    assert!(arn.contains(region), "{arn}");
    arn
}

#[test]
fn aws_either_region_decrypts_what_was_encrypted_with_both() {
    let regions = Regions::new();
    assert_eq!(regions.encrypt().stderr.lines().count(), 1);
    assert_eq!(regions.good(0), NAMES.map(|name| (name.to_owned(), true)));
    for place in [0, 1] {
        regions.set_down(place);
        regions.decrypt();
        regions.set_up(place);
    }
    assert_eq!(regions.key(0, &["kms", "repair"])["outcome"], "up-to-date");
}

#[test]
fn aws_region_that_was_down_is_told_and_gets_its_copy_when_it_is_back() {
    let regions = Regions::new();
    regions.set_down(1);
    let told = regions.encrypt();
    assert!(told.stderr.contains("_SK_claviger_default has no copy of eu-west-1; "), "{}", told.stderr);
    assert_eq!(regions.good(69), [("us-east-1".to_owned(), true), ("eu-west-1".to_owned(), false)]);
    let text = regions.ends_with(69, &["kms", "check"]);
    let lines: Vec<&str> = text.text().lines().collect();
    assert!(lines[0].starts_with("us-east-1: wrap ") && lines[0].ends_with(" ms"), "{lines:?}");
    assert!(lines[1].starts_with("eu-west-1: wrap failed: "), "{lines:?}");
    assert!(lines[1].contains("GenerateDataKey in eu-west-1: "), "{lines:?}");
    // It cannot be repaired yet.
    let still = regions.key(69, &["kms", "repair"]);
    assert_eq!(still["outcome"], "failed");
    assert!(still["error"].as_str().unwrap().contains("eu-west-1"), "{still}");
    regions.set_up(1);
    regions.good(0);
    let due = regions.key(3, &["kms", "repair", "--dry-run"]);
    assert_eq!((&due["outcome"], &due["missing"][0]), (&"due".into(), &"eu-west-1".into()));
    assert_eq!(regions.key(3, &["kms", "repair", "--dry-run"])["outcome"], "due");
    let repaired = regions.ends_with(0, &["kms", "repair"]);
    assert!(repaired.text().ends_with(": wrapped anew\n"), "{}", repaired.text());
    assert_eq!(regions.key(0, &["kms", "repair"])["outcome"], "up-to-date");
    // Now the region that was missing opens it alone.
    regions.set_down(0);
    regions.decrypt();
    assert_eq!(regions.good(69), [("us-east-1".to_owned(), false), ("eu-west-1".to_owned(), true)]);
}

#[test]
fn aws_too_few_regions_are_an_error_that_has_every_cause() {
    let regions = Regions::new();
    regions.set_down(1);
    let run =
        regions.run_with(&format!("{},min-regions=2", regions.kms()), &["encrypt", "payload", "-p", "me"]);
    run.assert_failed(69);
    assert!(run.stderr.contains("the master key cannot be used now"), "{}", run.stderr);
    assert!(
        run.stderr.contains("only 1 of the 2 regions") && run.stderr.contains("eu-west-1: "),
        "{}",
        run.stderr
    );
    regions.set_down(0);
    let run = regions.run(&["encrypt", "payload", "-p", "me"]);
    run.assert_failed(69);
    assert!(NAMES.iter().all(|name| run.stderr.contains(name)), "{}", run.stderr);
}

#[test]
fn aws_key_that_is_not_there_is_told_with_3_and_77() {
    let mut regions = Regions::new();
    regions.arns[1] =
        regions.arns[1].rsplit_once('/').unwrap().0.to_owned() + "/00000000-0000-0000-0000-000000000000";
    let report = regions.ends_with(3, &["kms", "check", "--format", "json"]);
    let second = &json(&report)["copies"][1];
    assert_eq!(second["wrap"]["class"], "permanent", "{second}");
    assert!(second["wrap"]["error"].as_str().unwrap().contains("NotFoundException"), "{second}");
    let alone = format!("aws:eu-west-1={},endpoint.eu-west-1={},{PATIENT}", regions.arns[1], shared_moto());
    let run = regions.run_with(&alone, &["encrypt", "payload", "-p", "me"]);
    run.assert_failed(77);
    assert!(run.stderr.contains("the master key's service refuses"), "{}", run.stderr);
}

#[test]
fn aws_key_that_was_disabled_is_told_and_the_other_region_goes_on() {
    let (kit, server) = (Kit::new(), shared_localstack());
    kit.write("payload", "x");
    let arns = NAMES.map(|name| create_key(server, name));
    let region = |place: usize| format!("{0}={1},endpoint.{0}={server}", NAMES[place], arns[place]);
    let kms = format!("aws:{},{},{PATIENT}", region(0), region(1));
    let run =
        |arguments: &[&str]| finish(kit.command(arguments).env("CLAVIGER_KMS", &kms).envs(AWS_VARIABLES));
    let record = kit.path("record");
    let run_ok = |arguments: &[&str]| {
        let run = run(arguments);
        assert_eq!(run.code, Some(0), "{}{}", run.text(), run.stderr);
        run
    };
    run_ok(&["encrypt", "payload", "-p", "me", "-o", record.to_str().unwrap()]);
    run_ok(&["kms", "check"]);
    request(server, NAMES[0], "DisableKey", &format!("{{\"KeyId\":\"{}\"}}", arns[0]));
    let checked = run(&["kms", "check"]);
    assert_eq!(checked.code, Some(3), "{}{}", checked.text(), checked.stderr);
    assert!(
        checked.text().contains("us-east-1: wrap failed: ") && checked.text().contains("DisabledException")
    );
    assert!(checked.text().lines().nth(1).unwrap().starts_with("eu-west-1: wrap "), "{}", checked.text());
    assert_eq!(run_ok(&["decrypt", "record", "-p", "me"]).text(), "x");
    let told = run_ok(&["encrypt", "payload", "-p", "you", "--service", "other"]);
    assert!(told.stderr.contains("_SK_other_default has no copy of us-east-1; "), "{}", told.stderr);
    request(server, NAMES[0], "EnableKey", &format!("{{\"KeyId\":\"{}\"}}", arns[0]));
    assert!(run_ok(&["kms", "repair", "--all"]).text().contains("_SK_other_default of "));
    let quiet = run_ok(&["encrypt", "payload", "-p", "you", "--service", "other"]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn aws_settings_that_cannot_work_are_told_with_78() {
    let regions = Regions::new();
    for (text, says) in [
        (regions.kms() + ",min-regions=3", "min_regions is 3 of 2 regions"),
        (regions.kms() + ",accept-no-context=true", "accept_no_context is for when encryption_context is on"),
        (format!("aws:us-west-2={}", regions.arns[0]), "is of region us-east-1, not of us-west-2"),
        ("aws:us-east-1=not a key".to_owned(), "is no key of KMS"),
    ] {
        let run = regions.run_with(&text, &["kms", "check"]);
        run.assert_failed(78);
        assert!(run.stderr.contains(says) && run.stderr.ends_with("; check --kms\n"), "{}", run.stderr);
    }
}

#[test]
fn aws_table_of_the_file_does_the_same() {
    let regions = Regions::new();
    let region = |place: usize| {
        let endpoint = regions.proxies[place].address();
        format!(
            "[kms.regions.{}]\nkey = \"{}\"\nendpoint = \"http://{endpoint}\"\n",
            NAMES[place], regions.arns[place]
        )
    };
    let table = format!(
        "[kms]\ntype = \"aws\"\nencryption-context = true\ncall-deadline = \"30s\"\n{}{}",
        region(1),
        region(0)
    );
    regions.kit.write("claviger.toml", table);
    let run = |arguments: &[&str]| {
        let mut command = regions.kit.command(&[arguments, &["--config", "claviger.toml"]].concat());
        let run = finish(command.envs(AWS_VARIABLES));
        assert_eq!(run.code, Some(0), "{}{}", run.text(), run.stderr);
        run
    };
    run(&["encrypt", "payload", "-p", "me", "-o", "record"]);
    assert_eq!(run(&["decrypt", "record", "-p", "me"]).text(), "x");
    let report = json(&run(&["kms", "check", "--format", "json"]));
    assert_eq!(
        (&report["copies"][0]["name"], &report["copies"][1]["name"]),
        (&"eu-west-1".into(), &"us-east-1".into())
    );
    // What is bound to its key is not what Asherah wraps, and is not taken for it.
    let unbound = regions.run(&["decrypt", "record", "-p", "me"]);
    assert_eq!(unbound.code, Some(66), "{}", unbound.stderr);
}

#[test]
fn aws_without_credentials_is_told() {
    let regions = Regions::new();
    let mut command = regions.kit.command(&["encrypt", "payload", "-p", "me"]);
    command.env("CLAVIGER_KMS", regions.kms()).envs([AWS_VARIABLES[2], AWS_VARIABLES[3]]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    let run = finish(command.env("AWS_EC2_METADATA_DISABLED", "true"));
    run.assert_failed(77);
    assert!(run.stderr.contains("credentials"), "{}", run.stderr);
}

#[test]
fn aws_takes_over_from_a_local_master_key() {
    let regions = Regions::new();
    let kms = regions.kms();
    regions.run_with("local:old.key", &["encrypt", "payload", "-p", "me", "-o", "record"]);
    let refused = regions.run(&["decrypt", "record", "-p", "me"]);
    assert_eq!(refused.code, Some(66), "{}", refused.stderr);
    assert!(refused.stderr.contains("the master key does not open the system key"), "{}", refused.stderr);
    let moved = ["kms", "rewrap", "--from", "local:old.key", "--kms", &kms];
    assert_eq!(regions.key(0, &moved)["outcome"], "rewrapped");
    std::fs::remove_file(regions.kit.path("old.key")).unwrap();
    regions.decrypt();
}
