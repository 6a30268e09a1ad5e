//! A test in a process of its own, whose environment is another.

use std::env;
use std::process::Command;

/// Tells a child that it is one.
const CHILD: &str = "CLAVIGER_TEST_CHILD";

/// Runs `body` in a process of its own, this program again, as the test of this name.
pub fn alone<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if told_by_parent().is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.unwrap().block_on(body());
    }
    let output = this_program(test).env(CHILD, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Runs this program again, as the test of this name, and returns what it prints. In its environment is
/// nothing of AWS but these variables; [`told_by_parent`] returns there what is `told` here.
pub async fn in_environment(test: &str, told: &str, variables: &[(&str, &str)]) -> String {
    let mut command = this_program(test);
    command.env_clear().env(CHILD, told);
    // No profile, and no waiting for a machine's metadata service that is not there.
    command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn this_program(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
}

/// Returns what the test that runs this one by [`in_environment`] tells it; `None` if none does.
#[must_use]
pub fn told_by_parent() -> Option<String> {
    env::var(CHILD).ok()
}
