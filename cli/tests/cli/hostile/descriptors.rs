//! Paths that name an open descriptor.

use std::fs;
use std::os::unix::fs::symlink;

use super::{CSV, ENOSYS, EPERM, OPTIONS, failing, shell};
use crate::kit::{CLAVIGER, Kit, finish};

/// All names of descriptor `N` of the program itself.
fn names(number: u32) -> Vec<String> {
    let folders =
        ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", "/proc/self/task/../fd", "/proc/$$/fd"];
    let mut names: Vec<String> = folders.iter().map(|folder| format!("{folder}/{number}")).collect();
    names.extend(["stdin", "stdout", "stderr"].get(number as usize).map(|name| format!("/dev/{name}")));
    names.extend([format!("link-{number}"), format!("folder/{number}")]);
    names
}

fn kit() -> Kit {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    for number in 0..=9 {
        symlink(format!("/dev/fd/{number}"), kit.path(&format!("link-{number}"))).unwrap();
    }
    symlink("/proc/self/fd", kit.path("folder")).unwrap();
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    kit
}

#[test]
fn what_is_behind_a_descriptor_is_written_to_as_it_is() {
    let kit = kit();
    let options = OPTIONS.join(" ");
    for number in [1, 2, 3, 9] {
        for name in names(number) {
            let decrypt = format!("\"$C\" decrypt sealed.csv -o {name} {options}");
            // In a shell of its own, whose process becomes the program's: so it knows its id.
            let run = |redirected: &str, around: &str| {
                let inner = format!("exec {decrypt}").replace('\'', "");
                let script = format!("printf 'before\\n' > log; sh -c '{inner}' {redirected}; {around}");
                let run = shell(&kit, &script);
                (String::from_utf8(kit.read("log")).unwrap(), run)
            };
            let (log, outcome) = run(&format!("{number}>> log"), "echo after >> log");
            assert_eq!(log, format!("before\n{CSV}after\n"), ">> {name}: {}", outcome.stderr);
            // The shell goes on where the program ended.
            let (log, outcome) = run(
                "",
                &format!(
                    "{{ echo begin >&{number}; sh -c 'exec {decrypt}'; echo after >&{number}; }} {number}> log"
                ),
            );
            assert_eq!(log, format!("begin\n{CSV}after\n"), "> {name}: {}", outcome.stderr);
        }
    }
}

/// Not by `/dev/stdout`: were it taken for a path, root would replace that one of this machine.
#[test]
fn a_deleted_file_behind_a_descriptor_is_written_to_and_nothing_takes_its_name() {
    let kit = kit();
    let options = OPTIONS.join(" ");
    for (number, name) in [(1, "link-1"), (1, "/proc/self/fd/1"), (5, "link-5"), (5, "/proc/self/fd/5")] {
        let script = format!(
            "exec 3<> log; rm log; \"$C\" decrypt sealed.csv -o {name} {options} {number}>&3; cat /proc/self/fd/3"
        );
        let before = kit.files();
        let run = shell(&kit, &script);
        assert_eq!((run.code, run.text()), (Some(0), CSV), "{name}: {}", run.stderr);
        assert!(fs::symlink_metadata(kit.path("link-1")).unwrap().is_symlink());
        assert_eq!(kit.files(), before);
    }
}

#[test]
fn another_processs_descriptor_is_appended_to_or_refused() {
    let kit = kit();
    let options = OPTIONS.join(" ");
    // The shell's own, who is not the program.
    let decrypt = format!("\"$C\" decrypt sealed.csv -o /proc/$$/fd/3 {options}; code=$?; exit $code");
    let log = || String::from_utf8(kit.read("log")).unwrap();
    let run = shell(&kit, &format!("echo before > log; exec 3>> log; {decrypt}"));
    assert_eq!((run.code, log()), (Some(0), format!("before\n{CSV}")), "{}", run.stderr);
    shell(&kit, &format!("exec 3> log; echo before >&3; {decrypt}")).assert_failed(73);
    assert_eq!(log(), "before\n");
}

#[test]
fn an_errors_file_that_is_a_descriptor_is_written_to_as_it_is() {
    let kit = kit();
    kit.write("bad.csv", "id,mail\n,x\n1,a\n");
    let options = OPTIONS.join(" ");
    for (name, number) in [("/dev/stderr", 2), ("/dev/fd/5", 5)] {
        let script = format!(
            "echo before > log; \"$C\" encrypt bad.csv -o out.csv --keep-going --errors {name} {options} {number}>> log"
        );
        assert_eq!(shell(&kit, &script).code, Some(1));
        let log = String::from_utf8(kit.read("log")).unwrap();
        assert!(log.starts_with("before\n") && log.contains("\n{\"line\":2,"), "{log}");
    }
}

#[test]
fn an_input_that_is_a_descriptor_is_read_from_where_it_stands() {
    let kit = kit();
    kit.write("rows", format!("skipped\n{CSV}"));
    let options = format!("{} --format csv", OPTIONS.join(" "));
    for number in [0, 3] {
        for name in names(number) {
            // What `read` leaves of a file: it puts its place behind the line.
            let script = format!(
                "{{ read skipped <&{number}; sh -c 'exec \"$C\" encrypt {name} -o out.csv {options}'; }} {number}< rows && \
                 \"$C\" decrypt out.csv {options}"
            );
            let run = shell(&kit, &script);
            assert_eq!((run.code, run.text()), (Some(0), CSV), "{name}: {}", run.stderr);
        }
    }
}

#[test]
fn a_descriptor_that_is_not_open_or_not_for_that_is_told_before_any_work() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let options = format!("{} --format csv", OPTIONS.join(" "));
    // The program opens these for itself.
    let closed = "3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
    for number in 3..10 {
        let write = format!("\"$C\" encrypt in.csv -o /dev/fd/{number} {options} {closed}");
        shell(&kit, &write).assert_failed(73);
        shell(&kit, &format!("\"$C\" encrypt /dev/fd/{number} -o out {options} {closed}")).assert_failed(66);
    }
    shell(&kit, &format!("\"$C\" encrypt in.csv -o /dev/fd/4 {options} 4< in.csv")).assert_failed(73);
    shell(&kit, &format!("\"$C\" encrypt /dev/fd/4 -o out {options} 4>> in.csv")).assert_failed(66);
    assert_eq!(kit.files(), ["in.csv"]);
    assert!(!kit.path("home").exists());
}

/// As in a container, where by default nothing may look into processes.
#[test]
fn where_a_descriptor_cannot_be_duplicated_nothing_is_overwritten() {
    let kit = kit();
    kit.write("rows", format!("skipped\n{CSV}"));
    let options = format!("{} --format csv", OPTIONS.join(" "));
    for error in [EPERM, ENOSYS] {
        let run = |script: &str| {
            let mut command = kit.program("sh");
            command.args(["-c", script]).env("C", CLAVIGER);
            failing(&mut command, &[("GETFD", error)]);
            finish(&mut command)
        };
        let decrypt = format!("\"$C\" decrypt sealed.csv -o /dev/fd/3 {options}");
        let log = || String::from_utf8(kit.read("log")).unwrap();

        assert_eq!(run(&format!("echo before > log; {decrypt} 3>> log")).code, Some(0));
        assert_eq!(log(), format!("before\n{CSV}"));
        let piped = run(&format!("{{ {decrypt} 3>&1 >&4 | cat; }} 4>&1"));
        assert_eq!((piped.code, piped.text()), (Some(0), CSV), "{}", piped.stderr);
        let refused = run(&format!("echo before > log; {decrypt} 3<> log"));
        refused.assert_failed(73);
        assert_eq!(log(), "before\n");
        let read = format!("\"$C\" encrypt /dev/fd/3 -o out.csv {options}");
        let back =
            run(&format!("{{ read skipped <&3; {read}; }} 3< rows && \"$C\" decrypt out.csv {options}"));
        assert_eq!((back.code, back.text()), (Some(0), CSV), "{}", back.stderr);
    }
}

#[test]
fn the_target_of_a_dangling_link_is_made_and_the_link_stays() {
    let kit = kit();
    fs::create_dir(kit.path("elsewhere")).unwrap();
    let absolute = kit.path("elsewhere/absolute.csv");
    symlink("elsewhere/first", kit.path("link")).unwrap();
    symlink("second", kit.path("elsewhere/first")).unwrap();
    symlink(&absolute, kit.path("absolute")).unwrap();
    for (link, target) in [("link", "elsewhere/second"), ("absolute", "elsewhere/absolute.csv")] {
        kit.ok(&[["decrypt", "sealed.csv", "-o", link], OPTIONS].concat());
        assert!(fs::symlink_metadata(kit.path(link)).unwrap().is_symlink());
        assert_eq!(kit.read(target), CSV.as_bytes());
    }
    assert!(fs::symlink_metadata(kit.path("elsewhere/first")).unwrap().is_symlink());
    symlink("nowhere/third", kit.path("lost")).unwrap();
    symlink("loop", kit.path("loop")).unwrap();
    for link in ["lost", "loop"] {
        kit.fails(73, &[["decrypt", "sealed.csv", "-o", link], OPTIONS].concat());
    }
}
