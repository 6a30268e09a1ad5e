//! Damaged records and missing keys: an error, never a wrong answer.

use std::collections::HashMap;
use std::fs;

use crate::kit::Kit;

const PAYLOAD: &str = "4111 1111 1111 1111";

fn sealed(kit: &Kit) -> Vec<u8> {
    kit.pipe(&["encrypt", "-p", "alice"], PAYLOAD.as_bytes()).stdout.trim_ascii().to_owned()
}

/// Where the data row key's creation time stands: information that decides nothing, so that a
/// flipped digit there changes nothing.
fn is_informational(record: &[u8], position: usize) -> bool {
    let start = b"{\"Key\":{\"Created\":".len();
    let len = record[start..].iter().position(|&byte| byte == b',').unwrap();
    (start..start + len).contains(&position)
}

/// Decrypts every record as a row of one CSV file; returns the rows that failed by number.
fn decrypt_all(kit: &Kit, records: &[Vec<u8>]) -> (HashMap<usize, String>, Vec<String>) {
    let mut file = b"id,number,card\n".to_vec();
    for (number, record) in records.iter().enumerate() {
        file.extend(format!("alice,{number},\"").bytes());
        file.extend(record.iter().flat_map(|&byte| if byte == b'"' { vec![b'"', b'"'] } else { vec![byte] }));
        file.extend(b"\"\n");
    }
    kit.write("records.csv", file);
    let run = kit.run(&[
        "decrypt",
        "records.csv",
        "--fields",
        "card",
        "--partition-field",
        "id",
        "--keep-going",
        "-o",
        "back.csv",
    ]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let errors = String::from_utf8(kit.read("back.csv.errors.jsonl")).unwrap();
    let reasons = errors.lines().map(|line| {
        let error: serde_json::Value = serde_json::from_str(line).unwrap();
        error["reason"].as_str().unwrap().to_owned()
    });
    let good: Vec<String> =
        String::from_utf8(kit.read("back.csv")).unwrap().lines().skip(1).map(str::to_owned).collect();
    let survivors: Vec<usize> =
        good.iter().map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
    let failed = (0..records.len()).filter(|number| !survivors.contains(number));
    let failed: HashMap<usize, String> = failed.zip(reasons).collect();
    assert_eq!(failed.len() + good.len(), records.len());
    (failed, good)
}

#[test]
fn every_flipped_bit_of_every_byte_fails_or_changes_nothing() {
    let kit = Kit::new();
    let record = sealed(&kit);
    let places: Vec<(usize, u8)> =
        (0..record.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))).collect();
    let damaged: Vec<Vec<u8>> = places
        .iter()
        .map(|&(byte, bit)| {
            let mut damaged = record.clone();
            damaged[byte] ^= 1 << bit;
            damaged
        })
        .collect();
    let (failed, good) = decrypt_all(&kit, &damaged);
    for row in &good {
        assert!(row.ends_with(&format!(",{PAYLOAD}")), "{row}");
    }
    for (number, &(byte, bit)) in places.iter().enumerate() {
        assert!(
            failed.contains_key(&number) || is_informational(&record, byte),
            "byte {byte} bit {bit} was accepted"
        );
    }
    assert!(failed.values().all(|reason| !reason.contains("4111")));
}

#[test]
fn a_flipped_bit_in_each_byte_ends_a_run_with_65_or_66_and_no_output() {
    let kit = Kit::new();
    let record = sealed(&kit);
    for byte in 0..record.len() {
        let mut damaged = record.clone();
        damaged[byte] ^= 1 << (byte % 8);
        let run = kit.pipe(&["decrypt", "-p", "alice"], &damaged);
        if run.code == Some(0) {
            assert!(is_informational(&record, byte), "byte {byte}");
            assert_eq!(run.text(), PAYLOAD);
        } else {
            assert!(matches!(run.code, Some(65 | 66)), "byte {byte}: {:?} {}", run.code, run.stderr);
            assert!(run.stdout.is_empty());
        }
    }
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    let kit = Kit::new();
    let record = sealed(&kit);
    let cut: Vec<Vec<u8>> = (0..record.len()).map(|len| record[..len].to_owned()).collect();
    let (failed, good) = decrypt_all(&kit, &cut);
    assert!(good.is_empty(), "{good:?}");
    assert_eq!(failed.len(), record.len());
    for len in [0, 1, record.len() / 2, record.len() - 1] {
        let run = kit.pipe(&["decrypt", "-p", "alice"], &record[..len]);
        run.assert_failed(65);
        assert!(run.stderr.contains("no whole record"), "{}", run.stderr);
    }
}

#[test]
fn a_key_store_without_the_key_is_told() {
    let (kit, other) = (Kit::new(), Kit::new());
    let record = sealed(&kit);
    sealed(&other);
    let run = other.pipe(&["decrypt", "-p", "alice"], &record);
    // Both stores have a key of alice; made in the same minute it has the same name, and does not
    // open the record.
    run.assert_failed(66);
    let run = other.pipe(&["decrypt", "-p", "bob"], &sealed_for(&kit, "bob"));
    run.assert_failed(66);
    assert!(run.stderr.contains("does not hold the record's key (_IK_#"), "{}", run.stderr);
}

fn sealed_for(kit: &Kit, partition: &str) -> Vec<u8> {
    kit.pipe(&["encrypt", "-p", partition], PAYLOAD.as_bytes()).stdout
}

#[test]
fn another_master_key_is_told() {
    let (kit, other) = (Kit::new(), Kit::new());
    let record = sealed(&kit);
    sealed(&other);
    fs::copy(other.path("home/master.key"), kit.path("home/master.key")).unwrap();
    for (command, input) in [("decrypt", record.as_slice()), ("encrypt", PAYLOAD.as_bytes())] {
        let run = kit.pipe(&[command, "-p", "alice"], input);
        run.assert_failed(66);
        assert!(run.stderr.contains("the master key does not open the system key"), "{}", run.stderr);
    }
}

#[test]
fn another_master_key_ends_a_run_that_keeps_going() {
    let (kit, other) = (Kit::new(), Kit::new());
    let options = ["--fields", "card", "--partition-field", "id", "--keep-going", "-o"];
    for kit in [&kit, &other] {
        kit.write("in.csv", "id,card\nalice,1\nbob,2\n");
        kit.ok(&[["encrypt", "in.csv"].as_slice(), &options, &["sealed.csv"]].concat());
    }
    fs::copy(other.path("home/master.key"), kit.path("home/master.key")).unwrap();
    let run = kit.fails(66, &[["decrypt", "sealed.csv"].as_slice(), &options, &["back.csv"]].concat());
    assert!(run.stderr.contains("the master key does not open the system key"), "{}", run.stderr);
    assert_eq!(kit.files(), ["in.csv", "sealed.csv", "sealed.csv.errors.jsonl"]);
}

#[test]
fn decrypting_with_no_keys_makes_none() {
    let (kit, other) = (Kit::new(), Kit::new());
    let run = other.pipe(&["decrypt", "-p", "alice"], &sealed(&kit));
    run.assert_failed(66);
    assert!(run.stderr.contains("there are no keys at"), "{}", run.stderr);
    assert!(!other.path("home").exists());
}
