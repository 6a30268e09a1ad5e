use serde::{Deserialize, Deserializer};

use super::*;
use crate::describe::read;
use crate::error::SpecFault;
use crate::fields::read::Placed;

fn text(text: &str) -> Result<KmsSpec, SpecError> {
    KmsSpec::from_text(text, "--kms")
}

fn table(text: &str) -> Result<KmsSpec, (Option<usize>, SpecError)> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(deserialize_with = "placed")]
        kms: Result<KmsSpec, SpecError>,
    }

    fn placed<'de, D: Deserializer<'de>>(kms: D) -> Result<Result<KmsSpec, SpecError>, D::Error> {
        read::<_, Placed, D>(kms)
    }

    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let config: Config = toml::from_str(text).unwrap();
    config.kms.map_err(|error| (error.at().map(line), error))
}

/// What it was read as; secrets do not show.
fn shown(spec: Result<KmsSpec, impl std::fmt::Debug>) -> String {
    format!("{:?}", spec.unwrap())
}

#[test]
fn texts_and_tables_come_to_the_same() {
    for (given, as_table) in [
        ("local:/a/b.key", "kms = { type = \"local\", path = \"/a/b.key\" }"),
        ("static:@a.hex", "kms = { type = \"static\", file = \"a.hex\" }"),
        (
            "aws:us-east-1=arn:a,eu-west-1=arn:b,preferred=eu-west-1,previous.us-east-1=arn:c,\
             previous.us-east-1=arn:d,endpoint.us-east-1=http://127.0.0.1:1,min-regions=2,hedge-after=250ms,\
             call-deadline=3s,encryption-context=true,accept-no-context=true",
            "[kms]\ntype = \"aws\"\npreferred = \"eu-west-1\"\nmin-regions = 2\nhedge-after = \"250ms\"\n\
             call-deadline = \"3s\"\nencryption-context = true\naccept-no-context = true\n[kms.regions]\n\
             us-east-1 = { key = \"arn:a\", previous = [\"arn:c\", \"arn:d\"], endpoint = \"http://127.0.0.1:1\" }\n\
             eu-west-1 = \"arn:b\"\n",
        ),
        (
            "pkcs11:token=my%20token;object=%63laviger;type=secret-key?module-path=/lib/hsm.so&pin-source=file:///pin\
             &sessions=2&danger-extractable-key=true&mechanism=aes-gcm&call-deadline=500ms&previous-object=a+b&previous-object=c",
            "[kms]\ntype = \"pkcs11\"\ntoken = \"my token\"\nobject = \"claviger\"\nmodule-path = \"/lib/hsm.so\"\n\
             pin-source = \"/pin\"\nsessions = 2\ndanger-extractable-key = true\nmechanism = \"aes-gcm\"\ncall-deadline = \"500ms\"\n\
             previous-object = [\"a+b\", \"c\"]\n",
        ),
        (
            "vault:https://vault.example:8200/team/transit/claviger?auth=approle&role-id=r%20o&secret-id=%40sid\
             &auth-mount=roles&namespace=ns&ca=/ca.pem&call-deadline=1s",
            "[kms]\ntype = \"vault\"\naddress = \"https://vault.example:8200\"\nmount = \"team/transit\"\n\
             key = \"claviger\"\nauth = \"approle\"\nrole-id = \"r o\"\nsecret-id = \"@sid\"\nauth-mount = \"roles\"\n\
             namespace = \"ns\"\nca = \"/ca.pem\"\ncall-deadline = \"1s\"\n",
        ),
        (
            "vault:http://vault/transit/k?auth=kubernetes&role=checkout&token-path=/jwt&danger-http=true",
            "[kms]\ntype = \"vault\"\naddress = \"http://vault\"\nmount = \"transit\"\nkey = \"k\"\n\
             auth = \"kubernetes\"\nrole = \"checkout\"\ntoken-path = \"/jwt\"\ndanger-http = true\n",
        ),
        (
            "vault:https://vault/transit/k",
            "kms = { type = \"vault\", address = \"https://vault\", mount = \"transit\", key = \"k\", auth = \"token\" }",
        ),
    ] {
        assert_eq!(shown(text(given)), shown(table(as_table)), "{given}");
        assert_eq!(shown(table(&format!("kms = \"{given}\"\n"))), shown(text(given)));
    }
}

#[test]
fn regions_are_tried_in_the_order_given() {
    let written =
        "[kms]\ntype = \"aws\"\n[kms.regions]\nus-west-2 = \"a\"\nap-south-1 = \"b\"\neu-west-1 = \"c\"\n";
    let shown = shown(table(written));
    let places: Vec<_> =
        ["us-west-2", "ap-south-1", "eu-west-1"].map(|name| shown.find(name).unwrap()).into();
    assert!(places.is_sorted(), "{shown}");
    assert_eq!(shown, self::shown(text("aws:us-west-2=a,ap-south-1=b,eu-west-1=c")));
}

#[test]
fn members_are_texts_or_tables_and_each_may_have_members() {
    let choice = table(
        "[kms]\ntype = \"any-of\"\nasherah-compatible = false\nmin-copies = 2\nhedge-after = \"1s\"\n\
         [[kms.members]]\nname = \"old\"\nkms = \"local:a.key\"\n\
         [[kms.members]]\nname = \"new\"\n[kms.members.kms]\ntype = \"k-of-n\"\nk = 2\nprevious-k = 1\nmin-shares = 2\n\
         legacy-members = [\"x\"]\nmembers = [{ name = \"x\", kms = \"local:x.key\" }, { name = \"y\", kms = { type = \
         \"local\", path = \"y.key\" } }]\n",
    )
    .unwrap();
    let files = ["a.key", "x.key", "y.key"].map(|file| (KmsFile::LocalKey, Path::new(file)));
    assert_eq!(choice.files(), files);
    assert!(matches!(&choice, KmsSpec::AnyOf(choice) if choice.members.len() == 2), "{choice:?}");
}

/// Each is told with this, and nothing of it repeated.
fn assert_told(cases: &[(&str, &str)]) {
    for (given, says) in cases {
        let failure = text(given).unwrap_err();
        let message = failure.to_string();
        assert!(matches!(failure.into_fault(), SpecFault::Wrong(_)), "{given}");
        assert!(message.contains(says), "{given}: {message}");
        assert!(message.starts_with("--kms ") && !message.contains("SECRET"), "{given}: {message}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_told_and_not_repeated() {
    assert_told(&[
        ("", "--kms names no master key that claviger knows"),
        ("SECRET", "--kms names no master key that claviger knows"),
        ("gcp:SECRET", "say local:PATH, static:@FILE, aws:REGION=ARN, pkcs11:token=…"),
        ("local:", "--kms local: lacks its path"),
        ("static:@", "--kms static:@ lacks its file"),
        ("static:SECRET", "--kms static: takes no key"),
        ("aws:", "--kms aws: lacks its regions; say aws:REGION=ARN"),
        ("aws:SECRET", "--kms aws: has a part without its =; say aws:REGION=ARN"),
        ("aws:preferred=us-east-1", "lacks its regions"),
        ("aws:us-east-1=arn,preferred=eu-west-1", "prefers a region that has no key"),
        ("aws:us-east-1=arn,us-east-1=SECRET", "says us-east-1 twice; say it once"),
        ("aws:us-east-1=arn,preferred=a,preferred=SECRET", "says preferred twice"),
        ("aws:us-east-1=arn,min-regions=1,min-regions=2", "says min-regions twice"),
        ("aws:us-east-1=arn,previous.eu-west-1=SECRET", "lacks its key; say the ARN of the key of eu-west-1"),
        ("aws:us-east-1=arn,endpoint.us-east-1=http://a,endpoint.us-east-1=http://b", "says endpoint twice"),
        (
            "aws:us-east-1=arn,endpoint.us-east-1=http://user:SECRET@host",
            "has an endpoint that is none; say http://HOST",
        ),
        ("aws:us-east-1=arn,endpoint.us-east-1=SECRET", "has an endpoint that is none"),
        ("aws:us-east-1=arn,min-regions=SECRET", "min-regions is not a number that fits"),
        ("aws:us-east-1=arn,min-regions=-1", "min-regions is not a number that fits"),
        ("aws:us-east-1=arn,hedge-after=300", "hedge-after is not a time such as 300ms or 2s"),
        ("aws:us-east-1=arn,hedge-after=-1s", "hedge-after is not a time"),
        ("aws:us-east-1=arn,encryption-context=yes", "encryption-context is not true or false"),
        (
            "aws:us-east-1=arn,SECRET=x",
            "has a parameter that is not known; there are accept-no-context, call-deadline, encryption-context, \
             hedge-after, min-regions, preferred, regions",
        ),
        ("aws:regions=SECRET,us-east-1=arn", "regions is not a table"),
    ]);
    assert!(KmsSpec::from_text("aws:", "--from").unwrap_err().to_string().starts_with("--from aws: lacks"));
}

#[test]
fn what_is_wrong_with_a_uri_is_told_and_not_repeated() {
    assert_told(&[
        ("pkcs11:", "--kms pkcs11: lacks its module-path; say the path of the module"),
        ("pkcs11:token=t;object=o?module-path", "has a part that is no NAME=VALUE"),
        ("pkcs11:token=t?module-path=/m", "lacks its object; say the label of the key"),
        ("pkcs11:object=o?module-path=/m", "lacks its token; say the label of the token"),
        ("pkcs11:token=t;token=SECRET;object=o?module-path=/m", "says token twice"),
        ("pkcs11:token=t;object=o;type=private?module-path=/m", "say type=secret-key, or nothing"),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-source=/p&pin-value=SECRET",
            "has both pin-source and pin-value",
        ),
        ("pkcs11:token=t;object=o?module-path=/m&pin-source=|SECRET", "has a pin-source that is no file"),
        ("pkcs11:token=t;object=o?module-path=/m&pin-source=file:", "has a pin-source that is no file"),
        ("pkcs11:token=t;object=o?module-path=/m&mechanism=SECRET", "there are auto, aes-kwp, aes-gcm"),
        (
            "pkcs11:token=t;object=o;serial=SECRET?module-path=/m",
            "there are call-deadline, danger-extractable-key, mechanism, module-path, object",
        ),
        ("pkcs11:token=%FF;object=o?module-path=/m", "has a part that is no NAME=VALUE"),
        ("vault:", "--kms vault: has a URL that cannot be read; say vault:https://HOST:8200/MOUNT/KEY"),
        ("vault:SECRET", "has a URL that cannot be read"),
        ("vault:ftp://host/SECRET/k", "has a URL of another kind"),
        ("vault:https://user:SECRET@host/transit/k", "names a user"),
        ("vault:https://host/transit/k#SECRET", "has a #"),
        ("vault:https://host/SECRET", "lacks its mount or its key"),
        ("vault:https://host/SECRET/", "lacks its mount or its key"),
        ("vault:https://host/transit/k?auth=SECRET", "there are token, approle, kubernetes"),
        ("vault:https://host/transit/k?auth=kubernetes", "lacks its role; say the role that Vault knows"),
        (
            "vault:https://host/transit/k?tokn=SECRET",
            "there are address, auth, ca, call-deadline, danger-http, key",
        ),
        ("vault:https://host/transit/k?key=SECRET", "has a parameter that is not known"),
        ("vault:https://host/transit/k?role-id=SECRET", "has a parameter that is not known"),
    ]);
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_its_line() {
    for (given, line, says) in [
        (
            "[kms]\npath = \"a\"\n",
            2,
            "lacks its type; say local, static, aws, pkcs11, vault, any-of or k-of-n",
        ),
        ("[kms]\ntype = \"gcp\"\n", 2, "is of a type that is not known; say local"),
        ("[kms]\ntype = 7\n", 2, "type is not a text"),
        ("[kms]\ntype = \"local\"\n", 2, "lacks its path"),
        (
            "[kms]\ntype = \"local\"\n\nfile = \"a\"\npath = \"b\"\n",
            4,
            "unknown field `file`; there are path, type",
        ),
        ("[kms]\ntype = \"aws\"\n", 2, "lacks its regions"),
        ("[kms]\ntype = \"aws\"\nregions = 7\n", 3, "regions is not a table"),
        ("[kms]\ntype = \"aws\"\n[kms.regions]\nus-east-1 = 7\n", 4, "us-east-1 is not a text or a table"),
        ("[kms]\ntype = \"aws\"\n[kms.regions]\nus-east-1 = {}\n", 4, "lacks its key; say the ARN"),
        (
            "[kms]\ntype = \"aws\"\n[kms.regions.us-east-1]\nkey = \"a\"\nprevius = \"b\"\n",
            5,
            "unknown field `previus`; there are endpoint, key, previous",
        ),
        (
            "[kms]\ntype = \"aws\"\nmin-regions = \"2\"\n[kms.regions]\nus-east-1 = \"a\"\n",
            3,
            "min-regions is not a number",
        ),
        (
            "[kms]\ntype = \"aws\"\nhedge-after = 300\n[kms.regions]\nus-east-1 = \"a\"\n",
            3,
            "hedge-after is not a time",
        ),
        (
            "[kms]\ntype = \"aws\"\nencryption-context = 1\n[kms.regions]\nus-east-1 = \"a\"\n",
            3,
            "is not true or false",
        ),
        (
            "[kms]\ntype = \"aws\"\n[kms.regions.us-east-1]\nkey = \"a\"\nprevious = [\n  \"b\",\n  7,\n]\n",
            7,
            "previous is not a text",
        ),
        ("[kms]\ntype = \"any-of\"\n", 2, "lacks its members; say [[kms.members]]"),
        ("[kms]\ntype = \"any-of\"\nmembers = [\"local:a\"]\n", 3, "members is not a list of tables"),
        ("[kms]\ntype = \"k-of-n\"\nk = 300\n", 3, "k is not a number that fits"),
        ("[kms]\ntype = \"k-of-n\"\n", 2, "lacks its k; say how many"),
        ("[kms]\ntype = \"any-of\"\n[[kms.members]]\nkms = \"local:a\"\n", 3, "lacks its name"),
        (
            "[kms]\ntype = \"any-of\"\n[[kms.members]]\nname = \"a\"\n",
            3,
            "lacks its kms; say what --kms would say",
        ),
        (
            "[kms]\ntype = \"any-of\"\n[[kms.members]]\nname = \"a\"\nkms = \"local:\"\n",
            5,
            "kms local: lacks its path",
        ),
        (
            "[kms]\ntype = \"any-of\"\n[[kms.members]]\nname = \"a\"\n[kms.members.kms]\ntype = \"aws\"\npreferd = \"x\"\n",
            7,
            "unknown field `preferd`",
        ),
    ] {
        let (found, failure) = table(given).unwrap_err();
        let message = failure.to_string();
        assert!(message.contains(says), "{given}: {message}");
        assert_eq!(found, Some(line), "{given}: {message}");
        assert!(matches!(failure.into_fault(), SpecFault::Wrong(_)), "{given}");
    }
}

#[test]
fn a_table_of_json_comes_to_the_same_as_one_of_toml_and_null_is_not_given() {
    let json = r#"{ "type": "aws", "regions": { "us-west-2": "a", "eu-west-1": { "key": "b" } }, "preferred": null }"#;
    let read: KmsSpec = serde_json::from_str(json).unwrap();
    assert_eq!(format!("{read:?}"), shown(text("aws:us-west-2=a,eu-west-1=b")));
    let error = serde_json::from_str::<KmsSpec>(r#"{ "type": "local", "pth": "a" }"#).unwrap_err();
    assert!(error.to_string().contains("lacks its path"), "{error}");
}

#[test]
fn a_name_that_is_not_known_is_told_with_the_nearest_one() {
    for (given, meant) in [
        ("kms = { type = \"local\", path = \"a\", pth = \"b\" }", "did you mean path?"),
        (
            "kms = { type = \"aws\", regions = { us-east-1 = \"a\" }, encryption_context = true }",
            "did you mean encryption-context?",
        ),
        ("kms = \"vault:https://host/transit/k?tokn=SECRET\"", "did you mean token?"),
        ("kms = \"pkcs11:token=t;object=o?module-path=/m&pin-sorce=SECRET\"", "did you mean pin-source?"),
    ] {
        let (_, error) = table(given).unwrap_err();
        assert!(error.to_string().ends_with(meant), "{error}");
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }
}

#[test]
fn a_secret_may_be_in_a_file_or_a_variable_wherever_it_may_stand() {
    for given in [
        "kms = { type = \"static\", key = \"env:NAME\" }",
        "kms = { type = \"static\", key = \"@file\" }",
        "kms = { type = \"pkcs11\", token = \"t\", object = \"o\", module-path = \"/m\", pin-source = \"env:NAME\" }",
        "kms = \"vault:https://host/transit/k?token=env:NAME\"",
        "kms = \"vault:https://host/transit/k?token=@file\"",
    ] {
        let spec = table(given).unwrap();
        assert!(!spec.has_secret(), "{given}");
        let shown = format!("{spec:?}");
        assert!(shown.contains("File(\"file\")") || shown.contains("Variable(\"NAME\")"), "{shown}");
    }
    assert!(!KmsSpec::text_has_secret("vault:https://host/transit/k?token=env%3ANAME"));
}

#[test]
fn no_debug_shows_a_secret() {
    for given in [
        "kms = \"pkcs11:token=t;object=o?module-path=/m&pin-value=SECRET\"",
        "kms = \"vault:https://host/transit/k?token=SECRET\"",
        "kms = { type = \"static\", key = \"SECRET\" }",
        "kms = { type = \"vault\", address = \"https://h\", key = \"k\", auth = \"approle\", secret-id = \"SECRET\" }",
        "kms = { type = \"any-of\", members = [{ name = \"m\", kms = \"vault:https://h/t/k?token=SECRET\" }] }",
    ] {
        let spec = table(given).unwrap();
        assert!(spec.has_secret(), "{given}");
        let shown = format!("{spec:?}");
        assert!(shown.contains("REDACTED") && !shown.contains("SECRET"), "{shown}");
    }
}
