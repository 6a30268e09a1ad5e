//! Several processes on one file.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use claviger::testing::call;
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::SqliteMetastore;

use crate::support::{NOW, Place, block_on, record};

/// Tells a child what it is to work on; unset in the parent.
const CHILD: &str = "CLAVIGER_TEST_CHILD";

/// Says that a child came to its end.
const DONE: &str = "child: done";

#[test]
fn processes_that_come_first_at_once_share_one_file() {
    const PROCESSES: usize = 6;
    const KEYS: i64 = 40;
    const NAME: &str = "processes::processes_that_come_first_at_once_share_one_file";
    if let Some(file) = child_argument() {
        return block_on(async {
            wait_for_go();
            let store = SqliteMetastore::migrate(&file).await.unwrap();
            let mut inserted = 0;
            for second in 0..KEYS {
                let own = claviger::EnvelopeKeyRecord::new(
                    record("_IK_a_svc_prod", NOW + second).meta().clone(),
                    std::process::id().to_be_bytes(),
                    None,
                );
                inserted += u32::from(store.insert(&own, &call()).await.unwrap() == Insert::Inserted);
            }
            println!("child: {inserted}");
        });
    }
    let place = Place::new();
    let mut children: Vec<_> = (0..PROCESSES).map(|_| Running::start(NAME, &place.file)).collect();
    children.iter_mut().for_each(|child| assert_eq!(child.next_line(), "ready"));
    children.iter_mut().for_each(Running::go);
    let inserted: i64 = children.iter_mut().map(|child| child.next_line().parse::<i64>().unwrap()).sum();
    assert_eq!(inserted, KEYS);
    children.into_iter().for_each(Running::finish);
    block_on(async {
        let listed = place.open().await.list("", None, 1_000, &call()).await.unwrap().records;
        let seconds: Vec<_> = listed.iter().map(|record| record.meta().created().unix_seconds()).collect();
        assert_eq!(seconds, (NOW..NOW + KEYS).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_killed_process_was_told_is_there() {
    const NAME: &str = "processes::what_a_killed_process_was_told_is_there";
    const WRITERS: usize = 16;
    if let Some(file) = child_argument() {
        return block_on(async {
            wait_for_go();
            let store = SqliteMetastore::migrate(&file).await.unwrap();
            // Several at once, so that commits are shared.
            let writers = (0..WRITERS).map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    for second in (NOW..).skip(writer).step_by(WRITERS) {
                        let inserted =
                            store.insert(&record("_IK_a_svc_prod", second), &call()).await.unwrap();
                        assert_eq!(inserted, Insert::Inserted);
                        println!("child: {second}");
                    }
                })
            });
            for writer in writers.collect::<Vec<_>>() {
                writer.await.unwrap();
            }
        });
    }
    let place = Place::new();
    let mut child = Running::start(NAME, &place.file);
    assert_eq!(child.next_line(), "ready");
    child.go();
    let told: Vec<_> =
        (0..500).map(|_| record("_IK_a_svc_prod", child.next_line().parse::<i64>().unwrap())).collect();
    child.process.kill().unwrap();
    child.process.wait().unwrap();
    block_on(async {
        let listed = place.open().await.list("", None, 100_000, &call()).await.unwrap();
        assert_eq!(listed.damaged.len(), 0);
        assert!(told.iter().all(|record| listed.records.contains(record)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pools_on_one_file_insert_each_version_once() {
    let place = Place::new();
    let stores = [place.open().await, place.open().await];
    for second in 0..50 {
        let mut tasks = tokio::task::JoinSet::new();
        for store in stores.iter().cycle().take(8) {
            let store = store.clone();
            let record = record("_IK_a_svc_prod", NOW + second);
            tasks.spawn(async move { store.insert(&record, &call()).await.unwrap() });
        }
        let outcomes = tasks.join_all().await;
        assert_eq!(outcomes.into_iter().filter(|outcome| *outcome == Insert::Inserted).count(), 1);
    }
    assert_eq!(place.rows_of("_IK_a_svc_prod").await, 50);
}

/// Runs `body` in a process of its own: the test binary again, told to run the test of this name
/// only; if asked, without root's right to open what its mode forbids.
pub(crate) fn alone(test: &str, obey_modes: bool, body: impl AsyncFnOnce()) {
    if child_argument().is_some() {
        block_on(body());
        println!("{DONE}");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    if obey_modes && may_ignore_modes() {
        command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]);
        command.arg(std::env::current_exe().unwrap());
    }
    assert_done(command.args(["--exact", test, "--nocapture"]).env(CHILD, ""));
}

/// Runs `body` in a process of its own, as [`alone`] does, and gives it a folder on a disk of a few
/// megabytes that no other process sees.
pub(crate) fn on_a_small_disk(test: &str, body: impl AsyncFnOnce(&Path)) {
    if let Some(folder) = child_argument() {
        block_on(body(Path::new(&folder)));
        println!("{DONE}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-ec"]);
    command.arg("mount -t tmpfs -o size=4m tmpfs \"$1\"; shift; exec \"$@\"");
    command.arg("sh").arg(folder.path()).arg(std::env::current_exe().unwrap());
    assert_done(command.args(["--exact", test, "--nocapture"]).env(CHILD, folder.path()));
}

fn assert_done(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.lines().any(|line| line == DONE),
        "{}\n{said}\n{complained}",
        output.status
    );
}

fn may_ignore_modes() -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("read-only");
    std::fs::File::options().write(true).create_new(true).mode(0o400).open(&file).unwrap();
    std::fs::File::options().write(true).open(&file).is_ok()
}

/// A child that runs one test of this binary, and talks.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(test: &str, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, file);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn next_line(&mut self) -> String {
        self.lines.find_map(|line| Some(line.unwrap().split_once("child: ")?.1.to_owned())).unwrap()
    }

    fn go(&mut self) {
        self.process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    fn finish(mut self) {
        // Drained, so that the child never writes into a closed pipe.
        self.lines.by_ref().for_each(drop);
        assert!(self.process.wait().unwrap().success());
    }
}

fn wait_for_go() {
    println!("child: ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "tells the child from its parent")]
fn child_argument() -> Option<std::ffi::OsString> {
    std::env::var_os(CHILD)
}
