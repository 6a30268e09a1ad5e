//! Where the key store's URL may stand, and where a password in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::kit::{Kit, Run, finish};

const PASSWORD: &str = "Tr0ub4dor";
const ENCRYPT: [&str; 4] = ["encrypt", "payload", "-p", "me"];

fn with_mode(kit: &Kit, name: &str, text: &str, mode: u32) {
    let path = kit.write(name, text);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A server that is not there: where its URL is taken, the run ends with 69, or with 78 if it was
/// built without this kind of server.
fn assert_taken(run: &Run) {
    assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    if cfg!(feature = "postgres") {
        run.assert_failed(69);
        assert!(
            run.stderr.contains("cannot open the key store postgres://user@127.0.0.1:1/keys"),
            "{}",
            run.stderr
        );
    } else {
        run.assert_failed(78);
        assert!(run.stderr.contains("--features postgres"), "{}", run.stderr);
    }
}

fn url() -> String {
    format!("postgres://user:{PASSWORD}@127.0.0.1:1/keys")
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let urls = [
        url(),
        format!("postgres://user@host/keys?password={PASSWORD}"),
        format!("mysql://user:{PASSWORD}@host/keys"),
        format!("mysql://user:1/{PASSWORD}@host/keys"),
        format!("dynamodb://AKIAEXAMPLE:{PASSWORD}@table"),
    ];
    for url in &urls {
        for command in
            [&ENCRYPT[..], &["decrypt", "payload", "-p", "me"], &["schema", "check"], &["schema", "show"]]
        {
            let joined = format!("--metastore={url}");
            for flag in [&["--metastore", url.as_str()][..], &[joined.as_str()]] {
                let run = kit.fails(78, &[command, flag].concat());
                for way in ["CLAVIGER_METASTORE", "configuration file", "@FILE", "PGPASSWORD"] {
                    assert!(run.stderr.contains(way), "{}", run.stderr);
                }
                assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
            }
        }
    }
}

#[test]
fn a_password_in_the_wrong_place_of_the_command_line_is_not_repeated() {
    let kit = Kit::new();
    for arguments in [
        &["schema", "check", &url()][..],
        &["schema", &url()],
        &["encrypt", "payload", "-p", "me", &format!("--metastroe={}", url())],
        &["encrypt", "payload", "-p", "me", "--cache", &url()],
        &[&url()],
    ] {
        let run = kit.fails(78, arguments);
        assert!(run.stderr.contains("CLAVIGER_METASTORE"), "{}", run.stderr);
        assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    }
}

#[test]
fn a_password_is_taken_from_the_variable_and_help_does_not_show_it() {
    let kit = Kit::new();
    kit.write("payload", "x");
    assert_taken(&finish(kit.command(&ENCRYPT).env("CLAVIGER_METASTORE", url())));
    for arguments in [&["encrypt", "--help"][..], &["encrypt", "-h"], &["schema", "check", "--help"]] {
        let help = finish(kit.command(arguments).env("CLAVIGER_METASTORE", url()));
        assert!(help.text().contains("CLAVIGER_METASTORE"), "{}", help.text());
        assert!(!help.text().contains(PASSWORD));
    }
}

#[test]
fn a_password_is_taken_from_a_configuration_file_that_only_its_owner_may_read() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let arguments = [&ENCRYPT[..], &["--config", "claviger.toml"]].concat();
    with_mode(&kit, "claviger.toml", &format!("metastore = \"{}\"\n", url()), 0o600);
    assert_taken(&kit.run(&arguments));
    for mode in [0o640, 0o604, 0o644] {
        with_mode(&kit, "claviger.toml", &format!("metastore = \"{}\"\n", url()), mode);
        let run = kit.fails(77, &arguments);
        assert!(
            run.stderr.contains("claviger.toml holds a password and can be read by others; say chmod 600")
        );
        assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    }
    // Without a password anybody may read it.
    with_mode(&kit, "claviger.toml", "metastore = \"sqlite:keys.db\"\nkms = \"local:master.key\"\n", 0o644);
    kit.ok(&arguments);
}

#[test]
fn a_url_is_taken_from_a_file_that_only_its_owner_may_read() {
    let kit = Kit::new();
    kit.write("payload", "x");
    with_mode(&kit, "metastore", &format!("  {}\n", url()), 0o600);
    let arguments = [&ENCRYPT[..], &["--metastore", "@metastore"]].concat();
    assert_taken(&kit.run(&arguments));
    assert_taken(&finish(kit.command(&ENCRYPT).env("CLAVIGER_METASTORE", "@metastore")));
    kit.write("claviger.toml", "metastore = \"@metastore\"\n");
    assert_taken(&kit.run(&[&ENCRYPT[..], &["--config", "claviger.toml"]].concat()));
    for mode in [0o640, 0o604, 0o660] {
        with_mode(&kit, "metastore", &url(), mode);
        let run = kit.fails(77, &arguments);
        assert!(
            run.stderr.contains("the file of --metastore metastore can be read by others; say chmod 600")
        );
        assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    }
    with_mode(&kit, "metastore", "sqlite:keys.db\n", 0o400);
    kit.ok(&[arguments.as_slice(), &["--kms", "local:master.key"]].concat());
    assert!(kit.path("keys.db").exists());
}

#[test]
fn a_file_that_names_no_store_is_told_and_not_repeated() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let arguments = [&ENCRYPT[..], &["--metastore", "@metastore"]].concat();
    let run = kit.fails(66, &arguments);
    assert!(run.stderr.contains("cannot read the file of --metastore metastore"), "{}", run.stderr);
    for (text, sentence) in [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("@other\n", "the file names a file"),
        ("postgres://u:Tr0ub4dor@h/k\npostgres://h/k\n", "more than one line"),
        ("url = \"Tr0ub4dor\"\n", "names no store that claviger knows"),
        ("postgres://user:Tr0ub/4dor@host/keys\n", "/ is %2F"),
    ] {
        with_mode(&kit, "metastore", text, 0o600);
        let run = kit.fails(78, &arguments);
        assert!(run.stderr.contains(sentence), "{}", run.stderr);
        assert!(!run.stderr.contains("Tr0ub"), "{}", run.stderr);
    }
    assert!(kit.fails(78, &[&ENCRYPT[..], &["--metastore", "@"]].concat()).stderr.contains("say @FILE"));
}

#[test]
fn parameters_that_are_not_known_are_refused_with_those_that_are() {
    let kit = Kit::new();
    for (url, known) in [
        (
            "postgres://host/keys?sslmod=require",
            "application_name, dbname, host, hostaddr, options, password",
        ),
        (
            "mysql://host/keys?sslmode=REQUIRED&zone=utc",
            "socket, ssl-ca, ssl-cert, ssl-key, ssl-mode, statement-cache-capacity, timezone",
        ),
        ("dynamodb://keys?regoin=eu-west-1", "endpoint, region"),
    ] {
        let run = kit.fails(78, &["schema", "check", "--metastore", url]);
        assert!(run.stderr.contains("has a parameter that is not known; there are "), "{}", run.stderr);
        assert!(run.stderr.contains(known), "{}", run.stderr);
    }
}

#[test]
fn s2_7_a_server_that_was_not_built_in_is_refused_and_its_feature_named() {
    let kit = Kit::new();
    for (url, feature, is_built_in) in [
        ("postgres://127.0.0.1:1/keys", "postgres", cfg!(feature = "postgres")),
        ("mysql://127.0.0.1:1/keys", "mysql", cfg!(feature = "mysql")),
        (
            "dynamodb://keys?region=us-east-1&endpoint=http://127.0.0.1:1",
            "dynamodb",
            cfg!(feature = "dynamodb"),
        ),
    ] {
        let mut command = kit.command(&["encrypt", "-p", "me", "--metastore", url]);
        let run = finish(command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret"));
        run.assert_failed(if is_built_in { 69 } else { 78 });
        let says = format!("cargo build --release -p claviger-cli --features {feature}");
        assert_eq!(run.stderr.contains(&says), !is_built_in, "{}", run.stderr);
    }
}
