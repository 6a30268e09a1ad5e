//! Vault, as the fake one has it.

use claviger_testkit::{FakeVault, Grant};

use super::{json, with_mode};
use crate::kit::{Kit, Run, finish};

struct Client<'a> {
    kit: Kit,
    kms: String,
    variables: Vec<(&'a str, String)>,
}

impl<'a> Client<'a> {
    /// Whoever says no more has the token of a variable.
    fn new(vault: &FakeVault, parameters: &str) -> Self {
        let kit = Kit::new();
        kit.write("payload", "x");
        // A machine that is busy is no Vault that is down.
        let sign = if parameters.is_empty() { '?' } else { '&' };
        let kms = format!("vault:{}/transit/claviger{parameters}{sign}call-deadline=30s", vault.url());
        let variables = vec![("VAULT_TOKEN", vault.create_token(&Grant::new()))];
        Self { kit, kms, variables }
    }

    fn with(mut self, variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        self.variables = variables.into_iter().collect();
        self
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.kit.command(arguments);
        for name in ["VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_ROLE_ID", "VAULT_SECRET_ID"] {
            command.env_remove(name);
        }
        let run = finish(command.args(["--kms", &self.kms]).envs(self.variables.iter().cloned()));
        let secrets = self.variables.iter().filter(|(name, _)| *name != "VAULT_NAMESPACE");
        for (_, secret) in secrets {
            assert!(
                !run.stderr.contains(secret) && !run.text().contains(secret),
                "{}{}",
                run.text(),
                run.stderr
            );
        }
        run
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.text(), run.stderr);
        run
    }

    fn there_and_back(&self) {
        self.ends_with(0, &["encrypt", "payload", "-p", "me", "-o", "record"]);
        self.decrypts();
        assert!(self.ends_with(0, &["kms", "check"]).text().starts_with("vault: wrap "));
    }

    fn decrypts(&self) {
        assert_eq!(self.ends_with(0, &["decrypt", "record", "-p", "me"]).text(), "x");
    }
}

fn vault() -> FakeVault {
    let vault = FakeVault::start();
    vault.create_key("transit/claviger");
    vault
}

#[test]
fn vault_token_is_taken_from_its_variable_and_from_a_file() {
    let vault = vault();
    Client::new(&vault, "").there_and_back();
    let client = Client::new(&vault, "?token=@token").with([]);
    with_mode(&client.kit, "token", &(vault.create_token(&Grant::new()) + "\n"), 0o600);
    client.there_and_back();
    with_mode(&client.kit, "token", "hvs.SECRET", 0o644);
    let run = client.ends_with(77, &["kms", "check"]);
    assert!(run.stderr.contains("Vault's token token can be read by others"), "{}", run.stderr);
    for text in ["", "hvs.SECRET\nhvs.SECRET\n"] {
        with_mode(&client.kit, "token", text, 0o600);
        let run = client.ends_with(78, &["kms", "check"]);
        assert!(run.stderr.contains("token is not one line with Vault's token"), "{}", run.stderr);
        assert!(!run.stderr.contains("SECRET"), "{}", run.stderr);
    }
    for variables in [vec![], vec![("VAULT_TOKEN", " ".trim().to_owned())]] {
        let kit = Client::new(&vault, "").kit;
        let mut command =
            kit.command(&["kms", "check", "--kms", &format!("vault:{}/transit/claviger", vault.url())]);
        let run = finish(command.env_remove("VAULT_TOKEN").envs(variables));
        run.assert_failed(78);
        assert!(run.stderr.contains("set the variable VAULT_TOKEN, or say token=@FILE"), "{}", run.stderr);
    }
}

#[test]
fn vault_roles_log_in_with_secrets_from_variables_and_files() {
    let vault = vault();
    vault.create_app_role("approle", "the-role", "the-secret-id", &Grant::new());
    vault.create_app_role("others", "the-role", "other-secret-id", &Grant::new());
    let variables =
        || [("VAULT_ROLE_ID", "the-role".to_owned()), ("VAULT_SECRET_ID", "the-secret-id".to_owned())];
    Client::new(&vault, "?auth=approle").with(variables()).there_and_back();
    let client =
        Client::new(&vault, "?auth=approle&role-id=the-role&secret-id=@sid&auth-mount=others").with([]);
    with_mode(&client.kit, "sid", "other-secret-id", 0o600);
    client.there_and_back();
    vault.create_kubernetes_role("kubernetes", "checkout", "the.service.account", &Grant::new());
    let client = Client::new(&vault, "?auth=kubernetes&role=checkout&token-path=jwt").with([]);
    client.kit.write("jwt", "the.service.account");
    client.there_and_back();
}

#[test]
fn vault_namespace_is_taken_from_the_parameter_and_from_its_variable() {
    let vault = FakeVault::start();
    vault.create_key("team/transit/claviger");
    vault.create_app_role("team/approle", "the-role", "the-secret-id", &Grant::new());
    let role = "?auth=approle&role-id=the-role";
    let secret = || ("VAULT_SECRET_ID", "the-secret-id".to_owned());
    let namespace = |name: &str| ("VAULT_NAMESPACE", name.to_owned());
    let in_parameter = format!("{role}&namespace=team");
    Client::new(&vault, &in_parameter).with([secret()]).there_and_back();
    Client::new(&vault, role).with([secret(), namespace("team")]).there_and_back();
    Client::new(&vault, &in_parameter).with([secret(), namespace("nowhere")]).there_and_back();
    Client::new(&vault, role).with([secret(), namespace("nowhere")]).ends_with(3, &["kms", "check"]);
}

#[test]
fn vault_that_is_sealed_is_told_with_69_and_one_that_denies_with_3_and_77() {
    let vault = vault();
    let client = Client::new(&vault, "");
    vault.seal();
    let run = client.ends_with(69, &["kms", "check", "--format", "json"]);
    assert_eq!(json(&run)["copies"][0]["wrap"]["class"], "transient", "{}", run.text());
    let run = client.ends_with(69, &["encrypt", "payload", "-p", "me"]);
    assert!(run.stderr.contains("the master key cannot be used now"), "{}", run.stderr);
    vault.unseal();
    client.there_and_back();
    vault.revoke_tokens();
    let run = client.ends_with(3, &["kms", "check", "--format", "json"]);
    assert_eq!(json(&run)["copies"][0]["wrap"]["class"], "permanent", "{}", run.text());
    let run = client.ends_with(77, &["decrypt", "record", "-p", "me"]);
    assert!(run.stderr.contains("the master key's service refuses"), "{}", run.stderr);
}

#[test]
fn vault_settings_that_cannot_work_are_told_with_78() {
    let vault = vault();
    for (kms, says) in [
        ("vault:http://vault.example/transit/claviger", "plain HTTP"),
        ("vault:https://127.0.0.1:1/transit/claviger?ca=missing.pem", "missing.pem"),
        ("vault:https://127.0.0.1:1/a%20b/claviger", "mount"),
    ] {
        let client = Client { kms: kms.to_owned(), ..Client::new(&vault, "") };
        let run = client.ends_with(78, &["kms", "check"]);
        assert!(run.stderr.contains("cannot open the master key's service"), "{}", run.stderr);
        assert!(run.stderr.contains(says) && run.stderr.ends_with("; check --kms\n"), "{}", run.stderr);
    }
}

#[test]
fn vault_keys_are_brought_to_the_newest_version_before_old_ones_are_forbidden() {
    let vault = vault();
    let client = Client::new(&vault, "");
    client.there_and_back();
    vault.rotate("transit/claviger");
    client.decrypts();
    let run = client.ends_with(0, &["kms", "rewrap"]);
    assert!(run.text().ends_with(": wrapped anew\n"), "{}", run.text());
    vault.set_min_decryption_version("transit/claviger", 2);
    client.decrypts();
    let late = Client::new(&vault, "");
    late.there_and_back();
    vault.rotate("transit/claviger");
    vault.set_min_decryption_version("transit/claviger", 3);
    assert_ne!(late.run(&["decrypt", "record", "-p", "me"]).code, Some(0));
}
