//! How long things are: records as the README says, and whatever encrypt takes, decrypt reads.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use crate::kit::Kit;

const MIB: usize = 1 << 20;
const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "a,b"];

/// Writes texts, each with so many MiB of letters behind it.
fn write_row(kit: &Kit, name: &str, parts: &[(&str, usize)]) {
    let mut file = BufWriter::new(File::create(kit.path(name)).unwrap());
    let letters = vec![b'x'; MIB];
    for (text, mib) in parts {
        file.write_all(text.as_bytes()).unwrap();
        for _ in 0..*mib {
            file.write_all(&letters).unwrap();
        }
    }
    file.flush().unwrap();
}

fn assert_same(kit: &Kit, one: &str, other: &str) {
    let (mut one, mut other) = (File::open(kit.path(one)).unwrap(), File::open(kit.path(other)).unwrap());
    assert_eq!(one.metadata().unwrap().len(), other.metadata().unwrap().len());
    let (mut ones, mut others) = (vec![0; MIB], vec![0; MIB]);
    loop {
        let len = one.read(&mut ones).unwrap();
        other.read_exact(&mut others[..len]).unwrap();
        assert!(ones[..len] == others[..len]);
        if len == 0 {
            return;
        }
    }
}

/// The rows of the README's table of sizes, without units and blanks.
fn sizes_in_the_readme() -> Vec<[usize; 3]> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let table = readme.split_once("| value | record as JSON | in CSV |\n").unwrap().1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let size = |cell: &str| {
        let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().unwrap() * if cell.contains("KiB") { 1024 } else { 1 }
    };
    rows.map(|row| row.trim_matches('|').split('|').map(size).collect::<Vec<_>>().try_into().unwrap())
        .collect()
}

#[test]
fn records_have_the_sizes_that_the_readme_tells() {
    let kit = Kit::new();
    let key_id = "_IK_customer-17_claviger_default";
    let sizes = sizes_in_the_readme();
    assert_eq!(sizes.len(), 5);
    for [value, json, csv] in sizes {
        assert_eq!(json, 179 + key_id.len() + 4 * (value + 28).div_ceil(3));
        assert_eq!(csv, json + 22);
        kit.write("value", vec![b'x'; value]);
        let record = kit.ok(&["encrypt", "value", "-p", "customer-17"]).stdout;
        assert_eq!(record.trim_ascii().len(), json, "{value}");
        kit.write("in.csv", format!("a,id,b\n,customer-17,{}\n", "x".repeat(value)));
        let sealed = kit.ok(&["encrypt", "in.csv", "--partition-field", "id", "--fields", "b"]).stdout;
        assert_eq!(sealed.len(), "a,id,b\n,customer-17,\n".len() + csv, "{value}");
    }
}

#[test]
fn a_row_that_decrypt_would_not_read_is_refused_and_the_file_is_left_as_it_was() {
    let kit = Kit::new();
    for (name, parts) in [
        ("two.csv", &[("id,a,b,c\n1,", 50), (",", 50), (",\n", 0)][..]),
        ("beside.jsonl", &[("{\"id\":1,\"b\":0,\"a\":\"", 63), ("\",\"c\":\"", 60), ("\"}\n", 0)]),
    ] {
        write_row(&kit, name, parts);
        let len = kit.path(name).metadata().unwrap().len();
        let run = kit.fails(65, &[["encrypt", name, "-o", name], OPTIONS].concat());
        assert!(run.stderr.contains("over 134217728 bytes once it is encrypted"), "{}", run.stderr);
        assert_eq!(kit.path(name).metadata().unwrap().len(), len);
        fs::remove_file(kit.path(name)).unwrap();
    }
}

#[test]
fn the_longest_field_comes_back() {
    let kit = Kit::new();
    write_row(&kit, "in.csv", &[("id,a,b,c\n1,", 64), (",b,", 40), ("\n2,a,b,c\n", 0)]);
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], OPTIONS].concat());
    assert_same(&kit, "in.csv", "back.csv");
}

#[test]
fn the_longest_payload_comes_back_also_with_the_escapes_of_another_program() {
    let kit = Kit::new();
    let partition = "p".repeat(200);
    write_row(&kit, "in", &[("", 64)]);
    kit.ok(&["encrypt", "in", "-p", &partition, "-o", "record"]);
    kit.ok(&["decrypt", "record", "-p", &partition, "-o", "back"]);
    assert_same(&kit, "in", "back");
    // As .NET's writer has it, which makes the record a thirteenth longer.
    let record = String::from_utf8(kit.read("record")).unwrap().replace('+', "\\u002B");
    kit.write("record", record);
    kit.ok(&["decrypt", "record", "-p", &partition, "-o", "back"]);
    assert_same(&kit, "in", "back");
}
