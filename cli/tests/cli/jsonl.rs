//! Fields of JSON Lines files.

use crate::kit::Kit;

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "a,b"];

fn refused(file: &str, sentence: &str) {
    let kit = Kit::new();
    kit.write("in.jsonl", file);
    let run = kit.fails(65, &[["encrypt", "in.jsonl", "-o", "sealed.jsonl"], OPTIONS].concat());
    assert!(run.stderr.contains(sentence), "{}", run.stderr);
    assert!(!run.stderr.contains("SECRET"), "{}", run.stderr);
    assert_eq!(kit.files(), ["in.jsonl"]);
}

#[test]
fn values_come_back_with_their_types_and_the_rest_untouched() {
    let kit = Kit::new();
    let file = "\u{feff}{\"id\": \"p\", \"a\": 1.0, \"b\": \"caf\\u00e9 \\\"x\\\"\"}\r\n\
        \n\
        {\"b\":12345678901234567890123,\"x\":[1,  2,{\"a\":1e400}],\"a\":1e400,\"id\":17}\n\
        { \"a\" : null , \"b\":{\"deep\": [true,  false]} ,\"id\":\"p\\u0041\", \"x\":1,\"x\":-0.0 }\n\
        {\"id\":\"p\",\"a\":\"\",\"b\":[]}";
    for name in ["in.jsonl", "in.ndjson", "IN.JSONL"] {
        kit.write(name, file);
        kit.ok(&[["encrypt", name, "-o", "sealed.jsonl"], OPTIONS].concat());
        kit.ok(&[["decrypt", "sealed.jsonl", "-o", "back.jsonl"], OPTIONS].concat());
        assert_eq!(String::from_utf8(kit.read("back.jsonl")).unwrap(), file);
    }
    let sealed = String::from_utf8(kit.read("sealed.jsonl")).unwrap();
    assert!(sealed.contains("\"x\":[1,  2,{\"a\":1e400}],\"a\":{\"Key\":{"), "{sealed}");
    for line in sealed.lines().map(|line| line.trim_start_matches('\u{feff}')).filter(|line| !line.is_empty())
    {
        let line: serde_json::Value = serde_json::from_str(&line.replace("1e400", "0")).unwrap();
        assert!(line["a"]["Data"].is_string() && line["b"]["Data"].is_string());
    }
}

#[test]
fn a_service_reads_the_values_as_json() {
    let kit = Kit::new();
    kit.write("in.jsonl", "{\"id\":\"p\",\"a\":\"caf\\u00e9\",\"b\":1.50}\n");
    let sealed = kit.ok(&[&["encrypt", "in.jsonl"], OPTIONS.as_slice()].concat());
    let line: serde_json::Value = serde_json::from_slice(&sealed.stdout).unwrap();
    for (field, value) in [("a", "\"caf\\u00e9\""), ("b", "1.50")] {
        assert_eq!(kit.pipe(&["decrypt", "-p", "p"], line[field].to_string().as_bytes()).text(), value);
    }
}

#[test]
fn bad_lines_are_told_with_their_numbers() {
    refused("{\"id\":1,\"a\":1,\"b\":1}\n{\"id\":1,\"a\":\"SECRET\"}\n", "in.jsonl:2: there is no field b");
    refused("\n{\"id\":1,\"a\":\"SECRET\n", "in.jsonl:2: the line is not a JSON object");
    refused("\"SECRET\"\n", "in.jsonl:1: the line is not a JSON object");
    refused("{\"id\":1,\"a\":1,\"b\":1,\"a\":\"SECRET\"}\n", "in.jsonl:1: the field a is there twice");
    refused(
        "{\"id\":null,\"a\":1,\"b\":1}\n",
        "in.jsonl:1: the partition field is neither text nor a number",
    );
    refused("{\"id\":\"\",\"a\":1,\"b\":1}\n", "in.jsonl:1: the partition field is empty");
}

#[test]
fn keep_going_lists_bad_lines() {
    let kit = Kit::new();
    let input = "{\"id\":1,\"a\":1,\"b\":1}\nSECRET\n{\"id\":2,\"a\":2,\"b\":2}\n";
    let arguments = ["encrypt", "--format", "jsonl", "--keep-going", "--errors", "bad.jsonl"];
    let run = kit.pipe(&[arguments.as_slice(), OPTIONS.as_slice()].concat(), input.as_bytes());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.text().lines().count(), 2);
    let errors = String::from_utf8(kit.read("bad.jsonl")).unwrap();
    assert!(errors.starts_with("{\"line\":2,\"reason\":\"the line is not a JSON object"), "{errors}");
    assert!(!errors.contains("SECRET"));
}

#[test]
fn what_was_not_sealed_as_json_cannot_break_a_line() {
    let kit = Kit::new();
    let record = kit.pipe(&["encrypt", "-p", "p"], b"1,\"admin\":true").stdout;
    let record = std::str::from_utf8(record.trim_ascii()).unwrap();
    kit.write("in.jsonl", format!("{{\"id\":\"p\",\"a\":{record},\"b\":{record}}}\n"));
    let run = kit.fails(65, &[["decrypt", "in.jsonl", "-o", "back.jsonl"], OPTIONS].concat());
    assert!(run.stderr.contains("no JSON value on one line"), "{}", run.stderr);
}

#[test]
fn numbers_that_other_programs_respell_are_no_partitions() {
    refused(
        "{\"id\":1.0,\"a\":1,\"b\":1}\n",
        "in.jsonl:1: the partition field is a number that other programs",
    );
    refused("{\"id\":9007199254740993,\"a\":1,\"b\":1}\n", "write it as text");
}

#[test]
fn what_nobody_asked_for_is_copied_though_it_is_no_text() {
    let kit = Kit::new();
    let file = "{\"id\":\"a\",\"\\ud800\":\"\\udc00\",\"a\":\"\\ud800\",\"b\":{\"\\ud800\":1}}\n";
    kit.write("in.jsonl", file);
    kit.ok(&[["encrypt", "in.jsonl", "-o", "sealed.jsonl"], OPTIONS].concat());
    kit.ok(&[["decrypt", "sealed.jsonl", "-o", "back.jsonl"], OPTIONS].concat());
    assert_eq!(kit.read("back.jsonl"), file.as_bytes());
}

#[test]
fn utf_16_is_named() {
    let kit = Kit::new();
    for mark in ["\u{feff}", ""] {
        let file = format!("{mark}{{\"id\":1,\"a\":1,\"b\":1}}\n");
        kit.write("in.jsonl", file.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        let run = kit.fails(65, &[["encrypt", "in.jsonl", "-o", "sealed.jsonl"], OPTIONS].concat());
        assert!(run.stderr.contains("in.jsonl: the file is UTF-16; convert it"), "{}", run.stderr);
    }
}

#[test]
fn a_value_that_is_a_record_already_is_not_sealed_again_unasked() {
    let kit = Kit::new();
    kit.write("in.jsonl", "{\"id\":\"p\",\"a\":\"x\",\"b\":{}}\n");
    kit.ok(&[["encrypt", "in.jsonl", "-o", "sealed.jsonl"], OPTIONS].concat());
    let run = kit.fails(65, &[["encrypt", "sealed.jsonl", "-o", "twice.jsonl"], OPTIONS].concat());
    assert!(run.stderr.contains("sealed.jsonl:1: the field a is a record already"), "{}", run.stderr);
    // As a text, too, which is how other programs keep them.
    let sealed: serde_json::Value = serde_json::from_slice(&kit.read("sealed.jsonl")).unwrap();
    let text = serde_json::json!({ "id": "p", "a": 1, "b": sealed["b"].to_string() });
    refused(&text.to_string(), "in.jsonl:1: the field b is a record already");
    refused("{\"id\":\"p\",\"a\":\"clv2.AAAA\",\"b\":1}", "in.jsonl:1: the field a is a record already");

    let options = [&["--allow-sealed"], OPTIONS.as_slice()].concat();
    kit.ok(&[&["encrypt", "sealed.jsonl", "-o", "twice.jsonl"], options.as_slice()].concat());
    kit.ok(&[&["decrypt", "twice.jsonl", "-o", "once.jsonl"], OPTIONS.as_slice()].concat());
    assert_eq!(kit.read("once.jsonl"), kit.read("sealed.jsonl"));
}
