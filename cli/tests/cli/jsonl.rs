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
