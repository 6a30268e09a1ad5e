//! A test in a process of its own, in which nothing is another test's.

use std::process::{Command, ExitStatus};

/// Runs the test of this name in a process of its own, this program again, and returns how that ended and
/// what it wrote. In that process it runs `body` and returns `None`.
#[expect(clippy::disallowed_methods, reason = "how the parent tells its child that it is one")]
pub(crate) fn run(test: &str, body: impl FnOnce()) -> Option<(ExitStatus, String)> {
    const CHILD: &str = "CLAVIGER_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    Some((output.status, said.join("\n")))
}
