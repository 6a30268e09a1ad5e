//! Drives the built binary with a master key in SoftHSM.
//!
//! It is a test binary of its own, since the first token of a process starts that anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../cli/kit.rs"]
mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use claviger_testkit::{HsmFault, HsmFunction, SoftHsm};
use serde_json::Value;

use crate::kit::{Kit, Run, finish};

struct Client {
    kit: Kit,
    hsm: SoftHsm,
}

impl Client {
    fn new() -> Self {
        let client = Self { kit: Kit::new(), hsm: SoftHsm::token("cli") };
        client.hsm.add_key("master");
        client.kit.write("payload", "x");
        client.write("pin", &(client.hsm.pin().to_owned() + "\n"), 0o600);
        client
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::set_permissions(self.kit.write(name, text), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn uri(&self, query: &str) -> String {
        format!(
            "pkcs11:token={};object=master?module-path={}&call-deadline=30s{query}",
            self.hsm.label(),
            self.hsm.module().display()
        )
    }

    fn run_with(&self, kms: &str, pin: Option<&str>, arguments: &[&str]) -> Run {
        let mut command = self.kit.command(arguments);
        let run = finish(command.args(["--kms", kms]).envs(pin.map(|pin| ("CLAVIGER_PKCS11_PIN", pin))));
        assert!(!run.stderr.contains(self.hsm.pin()), "{}", run.stderr);
        run
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run_with(&self.uri("&pin-source=file:pin"), None, arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.text(), run.stderr);
        run
    }

    fn there_and_back(&self) {
        self.ends_with(0, &["encrypt", "payload", "-p", "me", "-o", "record"]);
        assert_eq!(self.ends_with(0, &["decrypt", "record", "-p", "me"]).text(), "x");
    }
}

#[test]
fn pkcs11_token_wraps_and_unwraps_with_the_pin_of_a_file_or_the_variable() {
    let client = Client::new();
    client.there_and_back();
    let checked = client.ends_with(0, &["kms", "check"]);
    assert!(checked.text().starts_with("pkcs11: wrap "), "{}", checked.text());
    client.ends_with(0, &["kms", "repair"]);
    let decrypt = ["decrypt", "record", "-p", "me"];
    let by_variable = client.run_with(&client.uri(""), Some(client.hsm.pin()), &decrypt);
    assert_eq!(by_variable.text(), "x", "{}", by_variable.stderr);
    let missing = client.run_with(&client.uri(""), None, &decrypt);
    missing.assert_failed(78);
    assert!(
        missing.stderr.contains("set the variable CLAVIGER_PKCS11_PIN, or say pin-source="),
        "{}",
        missing.stderr
    );
    client.write("pin", client.hsm.pin(), 0o644);
    let seen = client.ends_with(77, &decrypt);
    assert!(seen.stderr.contains("the PIN of the token pin can be read by others"), "{}", seen.stderr);
}

#[test]
fn pkcs11_table_of_the_file_does_the_same_with_the_pin_in_it() {
    let client = Client::new();
    let table = format!(
        "[kms]\ntype = \"pkcs11\"\ntoken = \"{}\"\nobject = \"master\"\nmodule-path = \"{}\"\npin-value = \"{}\"\n\
         mechanism = \"aes-gcm\"\nsessions = 1\n",
        client.hsm.label(),
        client.hsm.module().display(),
        client.hsm.pin()
    );
    client.write("claviger.toml", &table, 0o600);
    let config = ["--config", "claviger.toml"];
    client.kit.ok(&[&["encrypt", "payload", "-p", "me", "-o", "record"][..], &config].concat());
    assert_eq!(client.kit.ok(&[&["decrypt", "record", "-p", "me"][..], &config].concat()).text(), "x");
    // What one mechanism wrapped the token unwraps whichever is asked for.
    assert_eq!(client.ends_with(0, &["decrypt", "record", "-p", "me"]).text(), "x");
    client.write("claviger.toml", &table, 0o640);
    let run = client.kit.fails(77, &[&["decrypt", "record", "-p", "me"][..], &config].concat());
    assert!(run.stderr.contains("claviger.toml holds a secret") && !run.stderr.contains(client.hsm.pin()));
}

#[test]
fn pkcs11_wrong_pin_and_missing_key_are_told_and_not_repeated() {
    let client = Client::new();
    client.write("pin", "NotThePin", 0o600);
    let run = client.ends_with(78, &["kms", "check"]);
    assert!(
        run.stderr.contains("token refused the PIN") && !run.stderr.contains("NotThePin"),
        "{}",
        run.stderr
    );
    client.write("pin", client.hsm.pin(), 0o600);
    let other = client.uri("&pin-source=pin").replace("object=master", "object=other");
    let run = client.run_with(&other, None, &["kms", "check"]);
    run.assert_failed(78);
    assert!(run.stderr.contains("token has no secret key with the label \"other\""), "{}", run.stderr);
    let nowhere = client.uri("&pin-source=pin").replace("token=cli", "token=nowhere");
    let run = client.run_with(&nowhere, None, &["kms", "check"]);
    run.assert_failed(69);
    assert!(run.stderr.contains("there is no token with the label"), "{}", run.stderr);
}

/// It is code that runs in this process.
#[test]
fn pkcs11_module_that_others_may_write_to_or_exchange_is_not_loaded() {
    let client = Client::new();
    let folder = client.kit.path("lib");
    fs::create_dir(&folder).unwrap();
    let module = folder.join("module.so");
    fs::copy(client.hsm.module(), &module).unwrap();
    let mode =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let original = client.hsm.module().display().to_string();
    let copied = client.uri("&pin-source=pin").replace(&original, &module.display().to_string());
    for (file_mode, folder_mode, told) in [
        (0o666, 0o755, "module.so can be written to by others; say chmod go-w"),
        (0o664, 0o755, "module.so can be written to by others; say chmod go-w"),
        (0o644, 0o775, "module.so can be exchanged by others, who may write to "),
    ] {
        mode(&module, file_mode);
        mode(&folder, folder_mode);
        let run = client.run_with(&copied, None, &["kms", "check"]);
        run.assert_failed(77);
        assert!(run.stderr.contains("the PKCS#11 module ") && run.stderr.contains(told), "{}", run.stderr);
    }
    let missing = copied.replace("module.so", "missing.so");
    // One that is not there, neither.
    client.run_with(&missing, None, &["kms", "check"]).assert_failed(77);
    mode(&folder, 0o755);
    client.run_with(&missing, None, &["kms", "check"]).assert_failed(78);
}

#[test]
fn pkcs11_master_key_is_rotated_by_a_previous_object_and_a_rewrap() {
    let client = Client::new();
    client.there_and_back();
    client.hsm.add_key("next");
    let next = client.uri("&pin-source=pin&previous-object=master").replace("object=master?", "object=next?");
    let run = |kms: &str, arguments: &[&str]| {
        let run = client.run_with(kms, None, arguments);
        assert_eq!(run.code, Some(0), "{}{}", run.text(), run.stderr);
        run
    };
    assert_eq!(run(&next, &["decrypt", "record", "-p", "me"]).text(), "x");
    let moved = run(&next, &["kms", "rewrap", "--format", "json"]);
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["keys"][0]["outcome"], "rewrapped");
    let alone = client.uri("&pin-source=pin").replace("object=master", "object=next");
    assert_eq!(run(&alone, &["decrypt", "record", "-p", "me"]).text(), "x");
}

#[test]
fn pkcs11_member_that_is_out_is_told_and_the_other_goes_on() {
    let client = Client::new();
    let (uri, hsm) = (client.uri("&pin-source=pin"), &client.hsm);
    let table = format!(
        "[kms]\ntype = \"any-of\"\nasherah-compatible = false\n[[kms.members]]\nname = \"hsm\"\nkms = \"{uri}\"\n\
         [[kms.members]]\nname = \"file\"\nkms = \"local:file.key\"\n"
    );
    client.kit.write("claviger.toml", table);
    let config = ["--config", "claviger.toml"];
    let encrypt = [&["encrypt", "payload", "-p", "me", "-o", "record"][..], &config].concat();
    let decrypt = [&["decrypt", "record", "-p", "me"][..], &config].concat();
    let check = [&["kms", "check"][..], &config].concat();
    let device_error = 0x30;
    hsm.fault(HsmFunction::OpenSession, HsmFault::Fail(device_error, u32::MAX));
    let told = client.kit.ok(&encrypt);
    assert!(told.stderr.contains("has no copy of hsm; "), "{}", told.stderr);
    assert_eq!(client.kit.ok(&decrypt).text(), "x");
    let checked = client.kit.run(&check);
    assert_eq!(checked.code, Some(69), "{}{}", checked.text(), checked.stderr);
    assert!(checked.text().starts_with("hsm: wrap failed: "), "{}", checked.text());
    assert!(checked.text().lines().nth(1).unwrap().starts_with("file: wrap "), "{}", checked.text());
    hsm.fault(HsmFunction::OpenSession, HsmFault::None);
    client.kit.ok(&check);
    let repaired = client.kit.ok(&[&["kms", "repair"][..], &config].concat());
    assert!(repaired.text().ends_with(": wrapped anew\n"), "{}", repaired.text());
    assert_eq!(client.kit.ok(&decrypt).stderr, "");
}
