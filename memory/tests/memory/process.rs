//! Helpers: children of the test binary, forks, system calls made to fail, memory maps.

use std::{
    collections::BTreeMap,
    fs,
    fs::File,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Output},
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Runs `body` in a process of its own, which it may change beyond repair: the test binary
/// again, told to run the test of this name only.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_child_for(test) {
        body();
        println!("\n{DONE}");
        return;
    }
    let output = run_child(test);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.lines().any(|line| line == DONE),
        "{test} in its own process: {}\n{said}\n{complained}",
        output.status
    );
}

/// As [`alone`], for a body that must be ended by SIGSEGV after it said [`READY`].
pub(crate) fn dies_by_sigsegv(test: &str, body: impl FnOnce()) {
    if is_child_for(test) {
        return body();
    }
    let output = run_child(test);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().any(|line| line == READY), "{test} never came to its access: {said}");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{said}");
}

#[expect(clippy::disallowed_methods, reason = "how the parent tells its child which test it is")]
fn is_child_for(test: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|value| value == *test)
}

fn run_child(test: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        // A sanitizer's handler would turn the signal into an exit code.
        .env("ASAN_OPTIONS", "handle_segv=0:detect_leaks=0:allow_user_segv_handler=1")
        .output()
        .unwrap()
}

/// Forks, and asserts that `child` returns in the child; a hang there counts as failure.
pub(crate) fn fork(child: impl FnOnce()) {
    // SAFETY: the child calls nothing that another thread's lock could block but malloc,
    // which glibc makes usable after a fork, and ends by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: concerns this process only.
            unsafe { libc::alarm(20) };
            let code = if catch_unwind(AssertUnwindSafe(child)).is_ok() { 0 } else { 1 };
            // SAFETY: as above.
            unsafe { libc::_exit(code) };
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            let status = std::process::ExitStatus::from_raw(status);
            assert!(status.success(), "the forked child: {status}");
        }
    }
}

/// Makes the calling thread's `call` answer `errno`, when its argument is as given.
pub(crate) fn refuse(call: i64, argument: Option<(u8, u64)>, errno: i32) {
    let condition = argument.map(|(index, value)| {
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value).unwrap()
    });
    let rules = condition.map(|condition| vec![SeccompRule::new(vec![condition]).unwrap()]);
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, rules.unwrap_or_default())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    apply_filter(&program).unwrap();
}

pub(crate) fn set_limit(resource: libc::__rlimit_resource_t, bytes: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// One line of `/proc/self/smaps` with its flags.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) permissions: String,
    pub(crate) flags: Vec<String>,
}

pub(crate) fn areas() -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap();
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let last = areas.last_mut().unwrap();
            last.flags = flags.split_ascii_whitespace().map(str::to_owned).collect();
        } else if let Some((start, end)) = first.split_once('-') {
            areas.push(Area {
                start: usize::from_str_radix(start, 16).unwrap(),
                end: usize::from_str_radix(end, 16).unwrap(),
                permissions: words.next().unwrap().to_owned(),
                flags: Vec::new(),
            });
        }
    }
    areas
}

pub(crate) fn area_of<T>(value: &T) -> Area {
    let address = std::ptr::from_ref(value).addr();
    areas().into_iter().find(|area| (area.start..area.end).contains(&address)).unwrap()
}

/// Reads memory as the kernel sees it, so that no compiler may assume what is there.
pub(crate) fn read_memory(address: usize, bytes: usize) -> Vec<u8> {
    let mut read = vec![0xEE; bytes];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut read, address as u64).unwrap();
    read
}

pub(crate) const READY: &str = "about to touch it";
const DONE: &str = "the child came to its end";
const CHILD: &str = "CLAVIGER_MEMORY_TEST_CHILD";
