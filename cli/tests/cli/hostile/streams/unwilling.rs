//! Streams that answer at once, since another program that shares them set them so.

use std::io::{PipeReader, Read as _, Write as _, pipe};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;

use super::{FIELDS, kit};
use crate::kit::{Kit, Run};

fn set_not_to_wait(stream: impl AsFd) {
    let flags = fcntl_getfl(&stream).unwrap();
    fcntl_setfl(&stream, flags | OFlags::NONBLOCK).unwrap();
}

fn takes_more(stream: impl AsFd) -> bool {
    poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

fn rows() -> String {
    let rows = (0..3000).map(|row| format!("{},{}\n", row % 3, "é".repeat(row % 150)));
    "id,mail\n".to_owned() + &rows.collect::<String>()
}

fn decrypted(kit: &Kit, sealed: &[u8]) -> String {
    let run = kit.pipe(&[["decrypt"].as_slice(), &FIELDS].concat(), sealed);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn an_input_that_does_not_wait_is_waited_for() {
    let kit = kit();
    let (reader, mut writer) = pipe().unwrap();
    set_not_to_wait(&reader);
    let watched = reader.try_clone().unwrap();
    let mut command = kit.command(&[["encrypt"].as_slice(), &FIELDS].concat());
    let mut child = command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Each piece once that before it was read: then the next read finds nothing.
    for piece in rows().as_bytes().chunks(4000) {
        if has_ended(&mut child) {
            break;
        }
        writer.write_all(piece).unwrap();
        while ioctl_fionread(&watched).unwrap() > 0 && !has_ended(&mut child) {
            thread::yield_now();
        }
    }
    drop(writer);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(decrypted(&kit, &run.stdout), rows());
}

/// Reads to the end, but never before the pipe takes no more.
fn read_from_full(mut reader: PipeReader, writer: impl AsFd, child: &mut Child) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        while takes_more(&writer) && !has_ended(child) {
            thread::yield_now();
        }
        if has_ended(child) {
            drop(writer);
            reader.read_to_end(&mut read).unwrap();
            return read;
        }
        let mut piece = vec![0; 20_000];
        let len = reader.read(&mut piece).unwrap();
        read.extend_from_slice(&piece[..len]);
    }
}

#[test]
fn an_output_that_does_not_wait_is_waited_for_and_no_byte_is_lost_or_written_twice() {
    let kit = kit();
    kit.write("long.csv", rows());
    let encrypt = [["encrypt", "long.csv"].as_slice(), &FIELDS].concat();
    kit.ok(&[encrypt.as_slice(), &["-o", "long.sealed"]].concat());
    let decrypt = [["decrypt", "long.sealed"].as_slice(), &FIELDS].concat();
    for arguments in [encrypt, decrypt] {
        let (reader, writer) = pipe().unwrap();
        set_not_to_wait(&writer);
        let watched = writer.try_clone().unwrap();
        let mut child = kit.command(&arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let written = read_from_full(reader, watched, &mut child);
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let back = if arguments[0] == "encrypt" {
            decrypted(&kit, &written)
        } else {
            String::from_utf8(written).unwrap()
        };
        assert!(back == rows(), "{} bytes", back.len());
    }
}

#[test]
fn a_report_and_a_message_wait_for_a_stream_that_does_not() {
    let kit = kit();
    let unknown = format!("--{}", "x".repeat(10_000));
    for arguments in [["completions", "bash"], ["encrypt", &unknown]] {
        let (reader, writer) = pipe().unwrap();
        set_not_to_wait(&writer);
        fcntl_setpipe_size(&writer, 4096).unwrap();
        let mut command = kit.command(&arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        drop(command);
        let told = read_from_full(reader, writer, &mut child);
        let expected = kit.run(&arguments);
        assert_eq!(child.wait().unwrap().code(), expected.code);
        assert!(told == [&expected.stdout, expected.stderr.as_bytes()].concat(), "{} bytes", told.len());
    }
}
