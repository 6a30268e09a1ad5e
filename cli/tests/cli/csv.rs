//! Fields of CSV files.

use std::path::Path;

use crate::kit::Kit;

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "mail,card"];

fn there_and_back(kit: &Kit, file: &[u8]) -> Vec<u8> {
    kit.write("in.csv", file);
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], OPTIONS].concat());
    assert_eq!(kit.read("back.csv"), file, "{}", String::from_utf8_lossy(file));
    kit.read("sealed.csv")
}

/// Encrypts and requires a failure that leaves nothing but the input.
fn refused(file: impl AsRef<[u8]>, sentence: &str) {
    let kit = Kit::new();
    kit.write("in.csv", file);
    let run = kit.fails(65, &[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    assert!(run.stderr.contains(sentence), "{}", run.stderr);
    assert_eq!(kit.files(), ["in.csv"]);
}

#[test]
fn the_example_comes_back_byte_for_byte() {
    let kit = Kit::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/customers.csv");
    let example = example.to_str().unwrap();
    let options = ["--partition-field", "customer_id", "--fields", "email,card_number"];
    kit.ok(&[["encrypt", example, "-o", "sealed.csv"], options].concat());
    kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], options].concat());
    let original = std::fs::read(example).unwrap();
    assert_eq!(kit.read("back.csv"), original);
    let sealed = String::from_utf8(kit.read("sealed.csv")).unwrap();
    assert!(!sealed.contains("@example.com") && !sealed.contains("411111"));
    // Any CSV reader sees the other columns as they were, and a record in each named one.
    let mut before = ::csv::Reader::from_reader(original.as_slice());
    let mut after = ::csv::Reader::from_reader(sealed.as_bytes());
    let mut rows = 0;
    for (before, after) in before.records().zip(after.records()) {
        let (before, after) = (before.unwrap(), after.unwrap());
        for (column, (was, is)) in before.iter().zip(after.iter()).enumerate() {
            match column {
                3 | 4 => assert!(claviger::DataRowRecord::from_json(is.as_bytes()).is_ok()),
                _ => assert_eq!(was, is),
            }
        }
        rows += 1;
    }
    assert_eq!(rows, 1000);
}

#[test]
fn every_way_of_writing_csv_comes_back() {
    let kit = Kit::new();
    let files = [
        "id,mail,card\n1,a@b,4111\n",
        "id,mail,card\r\n1,a@b,4111\r\n",
        "id,mail,card\r1,a@b,4111\r2,,\r",
        "id,mail,card\n1,a@b,no line end",
        "\u{feff}id,mail,card\n1,a@b,4111\n",
        "\"id\",\"mail\",\"card\"\n\"1\",\"a@b\",\"4111\"\n",
        "\n\nid,mail,card\n\n1,a,b\n\r\n\n2,c,d\n\n",
        "mail,x,card,id\n\"two\nlines\",\"a,b\",\"say \"\"hi\"\"\",\"1,2\"\n",
        "id,mail,card\n1,,\"\"\n2,\"\",\n",
        "id,mail,card\n1,in\"side,\"in\"\"side\"\n",
        "id,mail,card\n1, \" spaced \" ,\t\n",
        "id,mail,card\n",
        "id,mail,card",
        "card,id,mail\n\"{\"\"Key\"\":1}\",œuvre,\u{10ffff}\n",
    ];
    for file in files {
        there_and_back(&kit, file.as_bytes());
    }
}

#[test]
fn order_is_kept_over_many_rows_and_partitions() {
    let kit = Kit::new();
    let mut file = b"id,mail,card\n".to_vec();
    for row in 0..20_000 {
        file.extend(format!("p{},{row},{}\n", row * 7 % 40, "x".repeat(row % 50)).bytes());
    }
    there_and_back(&kit, &file);
}

#[test]
fn a_field_of_ten_megabytes_works() {
    let kit = Kit::new();
    let large = "0123456789".repeat(1 << 20);
    there_and_back(&kit, format!("id,mail,card\n1,{large},x\n2,\"{large}\",y\n").as_bytes());
}

#[test]
fn a_field_over_the_limit_is_refused_with_its_line() {
    let large = "0".repeat((64 << 20) + 1);
    refused(
        format!("id,mail,card\n1,a,b\n2,{large},x\n"),
        "in.csv:3: field mail: the data is over the limit",
    );
}

#[test]
fn columns_that_are_missing_or_there_twice_are_named() {
    refused("id,mail\n1,a\n", "the header row has no column card; it has: id, mail");
    refused("mail,card\n1,a\n", "the header row has no column id");
    refused("id,mail,card,mail\n1,a,b,c\n", "the header row has the column mail twice");
    refused("", "in.csv has no header row");
    refused("\n\r\n", "in.csv has no header row");
    // Twice, but not named: no matter.
    there_and_back(&Kit::new(), b"id,mail,card,x,x\n1,a,b,c,d\n");
}

#[test]
fn bad_rows_are_told_with_their_lines() {
    refused(b"id,mail,card\n1,\"a\nb\",c\n2,caf\xe9,c\n", "in.csv:4: the row is not UTF-8 text; convert");
    refused(b"id,mail,caf\xe9\n", "the header row is not UTF-8");
    refused(b"\xff\xfei\0d\0", "it is UTF-16");
    refused("id,mail,card\n1,a,b\n2,c\n", "in.csv:3: the row has 2 columns where the header has 3");
    refused("id,mail,card\n1,a,b\n,a,b\n", "in.csv:3: the partition field is empty");
    refused("id,mail,card\n1,\"a\"b,c\n", "in.csv:2: the field mail has a quote");
    refused("id,mail,card\n1,a,\"b\n2,a,c\n", "in.csv:2: the field card has a quote that is not closed");
    refused("id,mail,card\n a,b,c\n", "in.csv:2: the partition begins or ends with white space");
}

#[test]
fn a_bad_row_late_in_a_large_file_leaves_nothing() {
    let mut file = "id,mail,card\n".to_owned() + &"1,a,b\n".repeat(100_000);
    file.push_str("1,a\n");
    refused(file, "in.csv:100002: the row has 2 columns");
}

#[test]
fn keep_going_writes_the_good_rows_and_lists_the_others() {
    let kit = Kit::new();
    kit.write("in.csv", b"id,mail,card\n1,a,b\n2,SECRET\n,SECRET,x\n3,c\xe9SECRET,d\n4,e,f\n");
    let run = kit.run(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    run.assert_failed(65);
    let options = [&["--keep-going"], OPTIONS.as_slice()].concat();
    let run = kit.run(&[&["encrypt", "in.csv", "-o", "sealed.csv"], options.as_slice()].concat());
    run.assert_failed(1);
    assert!(run.stderr.contains("left out 3 rows of in.csv, listed in sealed.csv.errors.jsonl"));
    let errors = String::from_utf8(kit.read("sealed.csv.errors.jsonl")).unwrap();
    let lines: Vec<i64> = errors
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_i64().unwrap())
        .collect();
    assert_eq!(lines, [3, 4, 5]);
    assert!(!errors.contains("SECRET") && !run.stderr.contains("SECRET"));
    kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], OPTIONS].concat());
    assert_eq!(kit.read("back.csv"), b"id,mail,card\n1,a,b\n4,e,f\n");
}

#[test]
fn keep_going_with_no_bad_row_exits_with_0_and_lists_none() {
    let kit = Kit::new();
    kit.write("in.csv", "id,mail,card\n1,a,b\n");
    kit.ok(&[
        &["encrypt", "in.csv", "-o", "sealed.csv", "--keep-going", "--errors", "bad.jsonl"],
        OPTIONS.as_slice(),
    ]
    .concat());
    assert_eq!(kit.read("bad.jsonl"), b"");
}

#[test]
fn what_was_not_encrypted_is_not_decrypted() {
    let kit = Kit::new();
    there_and_back(&kit, b"id,mail,card\n");
    kit.write("in.csv", "id,mail,card\n1,SECRET,b\n");
    let run = kit.fails(65, &[["decrypt", "in.csv", "-o", "out.csv"], OPTIONS].concat());
    assert!(run.stderr.contains("in.csv:2: field mail: this is no whole record"), "{}", run.stderr);
    assert!(!run.stderr.contains("SECRET"));
    assert!(!kit.path("out.csv").exists());
}

#[test]
fn services_read_the_values_without_their_quotes() {
    let kit = Kit::new();
    let sealed = there_and_back(&kit, b"id,mail,card\n1,\"a,b\",\"quoted\"\n");
    let mut reader = ::csv::Reader::from_reader(sealed.as_slice());
    let row = reader.records().next().unwrap().unwrap();
    for (column, value) in [(1, "a,b"), (2, "quoted")] {
        let opened = kit.pipe(&["decrypt", "-p", "1"], row[column].as_bytes());
        assert_eq!(opened.text(), value);
    }
}

#[test]
fn files_flow_through_standard_input_and_output() {
    let kit = Kit::new();
    let file = b"id,mail,card\n1,a,b\n";
    let sealed = kit.pipe(&[&["encrypt", "--format", "csv"], OPTIONS.as_slice()].concat(), file);
    assert_eq!(sealed.code, Some(0), "{}", sealed.stderr);
    let back = kit.pipe(&[&["decrypt", "-", "--format", "csv"], OPTIONS.as_slice()].concat(), &sealed.stdout);
    assert_eq!(back.stdout, file);
}

#[test]
fn a_file_can_be_replaced_by_its_own_result() {
    let kit = Kit::new();
    kit.write("in.csv", "id,mail,card\n1,a,b\n");
    kit.ok(&[["encrypt", "in.csv", "-o", "in.csv"], OPTIONS].concat());
    assert!(kit.read("in.csv").len() > 400);
    kit.ok(&[["decrypt", "in.csv", "-o", "in.csv"], OPTIONS].concat());
    assert_eq!(kit.read("in.csv"), b"id,mail,card\n1,a,b\n");
}
