//! Fields of CSV files.

use std::path::Path;

use crate::kit::Kit;

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "mail,card"];

fn there_and_back(kit: &Kit, file: &[u8]) -> Vec<u8> {
    kit.write("in.csv", file);
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], OPTIONS].concat());
    assert_eq!(kit.read("back.csv"), file, "{}", String::from_utf8_lossy(file));
    let sealed = kit.read("sealed.csv");
    // Mostly what `mail` holds; no record has it.
    assert!(!sealed.windows(3).any(|part| part == b"a@b"), "{}", String::from_utf8_lossy(file));
    sealed
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
    // As the README says.
    assert_eq!((sealed.len() + original.len() / 2) / original.len(), 7);
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
        "\u{feff}\"customer\nid\",id,mail,card\r\nq,1,a@b,4111\r\n",
        "\u{feff}\"Name (Last, First,\",id,mail,card\r\nq,1,a@b,4111\r\nq,2,b@b,4112\r\n",
        "\u{feff}\"a,\",id,mail,card\nv,1,a@b,4111\n",
        "\u{feff}\r\n\n\"a,\r\n\",id,mail,card\n\nv,1,a@b,4111\n",
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
    refused(
        "id,mail\n1,a\n",
        "in.csv: the header row has no column card, nor one with a name near it, among its 2",
    );
    refused("id,mail,Cards\n1,a,b\n", "in.csv: the header row has no column card; did you mean \"Cards\"?");
    refused("mail,card\n1,a\n", "the header row has no column id");
    refused("id,mail,card,mail\n1,a,b,c\n", "the header row has the column mail twice");
    refused("", "in.csv has no header row");
    refused("\n\r\n", "in.csv has no header row");
    refused("\u{feff}\n", "in.csv has no header row");
    // Twice, but not named: no matter.
    there_and_back(&Kit::new(), b"id,mail,card,x,x\n1,a,b,c,d\n");
}

#[test]
fn bad_rows_are_told_with_their_lines() {
    refused(b"id,mail,card\n1,\"a\nb\",c\n2,caf\xe9,c\n", "in.csv:4: the row is not UTF-8 text; convert");
    refused(b"id,mail,caf\xe9\n", "the header row is not UTF-8");
    for utf_16 in [&b"\xff\xfei\0d\0"[..], b"\xfe\xff\0i\0d", b"i\0d\0,\0", b"\0i\0d\0,"] {
        refused(utf_16, "in.csv: the file is UTF-16; convert it to UTF-8, with iconv");
    }
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
    assert!(!String::from_utf8(kit.read("sealed.csv.errors.jsonl")).unwrap().contains("last_line"));
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

#[test]
fn a_header_is_judged_before_anything_is_written() {
    let kit = Kit::new();
    for file in [
        "id,mail\n1,a\n",
        "\n\nid,mail,card,card\n",
        "id,mail,\"card\n",
        "i\0d\0,\0",
        "\u{feff}1,a,b\n",
        "\n",
    ] {
        let run = kit.pipe(&[&["encrypt", "--format", "csv"], OPTIONS.as_slice()].concat(), file.as_bytes());
        run.assert_failed(65);
        assert_eq!(run.text(), "", "{file}");
    }
}

#[test]
fn a_file_without_a_header_is_not_repeated() {
    let kit = Kit::new();
    let long = "SECRET".repeat(10_000);
    for file in [
        format!("1,SECRET@example.com,\u{1b}[31mSECRET\n2,{long},x\n"),
        format!("1,{long},\"\u{1b}]0;SECRET\u{7}\n\"\n"),
        format!("{}\n", "SECRET,".repeat(10_000)),
    ] {
        let run = kit.pipe(&[&["encrypt", "--format", "csv"], OPTIONS.as_slice()].concat(), file.as_bytes());
        run.assert_failed(65);
        assert!(run.stderr.len() < 400 && !run.stderr.contains("SECRET"), "{}", run.stderr);
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn names_with_commas_are_quoted_and_the_option_may_be_repeated() {
    let kit = Kit::new();
    let file = "\"Name (Last, First)\",id,email,\"a,\"\"b\"\"\"\nSECRET,1,SECRET,SECRET\n";
    kit.write("in.csv", file);
    for fields in [
        &["--fields", "\"Name (Last, First)\",email", "--fields", "\"a,\"\"b\"\"\""][..],
        &["--fields", "email", "--fields", "\"a,\"\"b\"\"\",\"Name (Last, First)\""],
    ] {
        let options = [&["--partition-field", "id"], fields].concat();
        kit.ok(&[&["encrypt", "in.csv", "-o", "sealed.csv"], options.as_slice()].concat());
        assert!(!String::from_utf8(kit.read("sealed.csv")).unwrap().contains("SECRET"));
        kit.ok(&[&["decrypt", "sealed.csv", "-o", "back.csv"], options.as_slice()].concat());
        assert_eq!(kit.read("back.csv"), file.as_bytes());
    }
    let run = kit.fails(2, &["encrypt", "in.csv", "--partition-field", "id", "--fields", "\"a"]);
    assert!(run.stderr.contains("a name in --fields has a quote that is not closed"), "{}", run.stderr);
    kit.fails(2, &["encrypt", "in.csv", "--partition-field", "id", "--fields", "a", "--fields", "b,a"]);
}

#[test]
fn a_stray_quote_is_told_with_all_the_lines_that_it_swallows() {
    let kit = Kit::new();
    let row = "1,a,b\n";
    let file =
        "id,mail,card\n".to_owned() + &row.repeat(3) + "1,\"a,b\n" + &row.repeat(9994) + "1,\"q\",b\n" + row;
    kit.write("in.csv", &file);
    let run = kit.fails(65, &[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    let range = "the row ends on line 10000: a quote may be missing";
    assert!(run.stderr.contains("in.csv:5: ") && run.stderr.contains(range), "{}", run.stderr);

    let run =
        kit.run(&[&["encrypt", "in.csv", "-o", "sealed.csv", "--keep-going"], OPTIONS.as_slice()].concat());
    run.assert_failed(1);
    assert!(run.stderr.contains("9996 lines"), "{}", run.stderr);
    let errors = String::from_utf8(kit.read("sealed.csv.errors.jsonl")).unwrap();
    let error: serde_json::Value = serde_json::from_str(&errors).unwrap();
    assert_eq!((&error["line"], &error["last_line"]), (&5.into(), &10_000.into()));
    assert!(error["reason"].as_str().unwrap().contains("a quote may be missing"), "{errors}");

    // Without a line end at the end of the file, too.
    kit.write("in.csv", "id,mail,card\n1,\"a,b\n1,a,b\n1,a,b");
    kit.run(&[&["encrypt", "in.csv", "-o", "sealed.csv", "--keep-going"], OPTIONS.as_slice()].concat());
    let errors = String::from_utf8(kit.read("sealed.csv.errors.jsonl")).unwrap();
    let error: serde_json::Value = serde_json::from_str(&errors).unwrap();
    assert_eq!((&error["line"], &error["last_line"]), (&2.into(), &4.into()));
}

#[test]
fn a_field_that_is_a_record_already_is_not_sealed_again_unasked() {
    let kit = Kit::new();
    let file = b"id,mail,card\n1,a@b,4111\n2,,\n";
    let sealed = there_and_back(&kit, file);
    kit.write("sealed.csv", &sealed);
    let run = kit.fails(65, &[["encrypt", "sealed.csv", "-o", "twice.csv"], OPTIONS].concat());
    assert!(
        run.stderr.contains("sealed.csv:2: the field mail is a record already; decrypt it first"),
        "{}",
        run.stderr
    );
    // One field is enough, and what is to come of records is known, too.
    refused("id,mail,card\n1,x,clv2.AAAA\n", "in.csv:2: the field card is a record already");
    let half = [
        ["encrypt", "sealed.csv", "-o", "x.csv", "--partition-field"],
        ["id", "--keep-going", "--fields", "mail", "--errors"],
    ];
    let run = kit.run(&[half.as_flattened(), &["bad.jsonl"]].concat());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(kit.read("x.csv"), b"id,mail,card\n");

    let options = [&["--allow-sealed"], OPTIONS.as_slice()].concat();
    kit.ok(&[&["encrypt", "sealed.csv", "-o", "twice.csv"], options.as_slice()].concat());
    kit.ok(&[&["decrypt", "twice.csv", "-o", "once.csv"], OPTIONS.as_slice()].concat());
    assert_eq!(kit.read("once.csv"), sealed);
}
