use std::path::Path;

use super::*;
use crate::args::Options;

fn read(text: &str) -> KmsGiven {
    let options: Options = toml::from_str(text).unwrap();
    options.kms.unwrap().read_table().unwrap()
}

#[test]
fn a_secret_is_found_where_it_stands_and_is_not_where_it_does_not() {
    for given in [
        "static:8f0e6d5c",
        "pkcs11:token=t;object=o?module-path=/m&pin-value=1234",
        "pkcs11:token=t;pin-value=1234",
        "vault:https://host/transit/k?token=hvs.SECRET",
        "vault:https://host/transit/k?auth=approle&role-id=r&secret-id=SECRET",
        "vault:https://user:SECRET@host/transit/k",
        "vault:no url?token=SECRET",
    ] {
        let on_command_line = |option: &crate::given::Guarded| option.check_arguments([given]).is_err();
        assert!(on_command_line(&KMS) && on_command_line(&FROM), "{given}");
        assert!(Given::in_config(given.to_owned()).has_secret(&KMS));
        assert!(KMS.check_arguments([format!("--kms={given}")]).is_err(), "{given}");
    }
    for given in [
        "local:pin-value=a",
        "static:@file",
        "@file",
        "aws:us-east-1=arn",
        "pkcs11:token=t;object=o?module-path=/m&pin-source=file:/pin",
        "vault:https://host/transit/k?token=@file",
        "vault:https://host/transit/k?auth=approle&role-id=r&secret-id=%40file",
    ] {
        assert!(KMS.check_arguments([given]).is_ok(), "{given}");
        assert!(!KmsSpec::from_text(given, "--kms").is_ok_and(|spec| spec.has_secret()), "{given}");
    }
}

#[test]
fn no_debug_shows_a_secret() {
    for given in [
        "kms = \"pkcs11:token=t;object=o?module-path=/m&pin-value=SECRET\"",
        "kms = \"vault:https://host/transit/k?token=SECRET\"",
        "kms = { type = \"pkcs11\", token = \"t\", object = \"o\", module-path = \"/m\", pin-value = \"SECRET\" }",
        "kms = { type = \"vault\", address = \"https://h\", mount = \"t\", key = \"k\", token = \"SECRET\" }",
        "kms = { type = \"vault\", address = \"https://h\", key = \"k\", auth = \"approle\", secret-id = \"SECRET\" }",
        "kms = { type = \"any-of\", members = [{ name = \"m\", kms = \"vault:https://h/t/k?token=SECRET\" }] }",
    ] {
        let options: Options = toml::from_str(given).unwrap();
        let mut shown = format!("{options:?}");
        let kms = options.kms.unwrap().read_table().unwrap();
        assert!(kms.has_secret(), "{given}");
        shown += &format!("{kms:?}");
        shown += &format!("{:?}", kms.resolve(&KMS).unwrap());
        assert!(shown.contains("REDACTED"), "{shown}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn the_manuals_tables_can_be_read() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let blocks: Vec<&str> =
        manual.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let kinds: Vec<String> =
        blocks.iter().map(|block| format!("{:?}", read(block).resolve(&KMS).unwrap())).collect();
    for kind in ["Aws(", "Pkcs11(", "Vault(", "AnyOf("] {
        assert!(kinds.iter().any(|shown| shown.starts_with(kind)), "{kind}: {kinds:?}");
    }
}
