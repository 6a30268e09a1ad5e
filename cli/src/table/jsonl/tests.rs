use super::*;
use proptest::prelude::*;

fn layout() -> JsonLayout {
    JsonLayout::new("id", &["b".to_owned(), "a".to_owned()])
}

fn fault(line: &str) -> String {
    layout().find(line).unwrap_err().to_string()
}

#[test]
fn values_are_found_where_they_stand_whatever_their_type() {
    for value in [
        "1",
        "-1.0e+5",
        "1e400",
        "12345678901234567890123",
        "null",
        "true",
        "\"\\u00e9,\\\"\"",
        "[1, 2]",
        "{\"x\": {}}",
    ] {
        let line = format!("\u{feff} {{ \"id\" : \"p\", \"a\" :{value} ,\"z\":[{{}}], \"b\":{value}}}\r\n");
        let found = layout().find(&line).unwrap().unwrap();
        assert_eq!(found.partition, "p");
        assert_eq!(found.cells.iter().map(|cell| cell.field).collect::<Vec<_>>(), [1, 0]);
        for cell in found.cells {
            assert_eq!(&line[cell.span], value);
        }
    }
}

#[test]
fn partitions_are_texts_or_numbers() {
    for (id, partition) in [("\"a\\u0062\"", "ab"), ("17", "17"), ("1.50", "1.50")] {
        let line = format!("{{\"id\":{id},\"a\":0,\"b\":0}}");
        assert_eq!(layout().find(&line).unwrap().unwrap().partition, partition);
    }
    for id in ["null", "true", "{}", "[]", "\"\\ud800\""] {
        assert!(fault(&format!("{{\"id\":{id},\"a\":0,\"b\":0}}")).contains("cannot be a partition"), "{id}");
    }
    assert!(fault("{\"id\":\"\",\"a\":0,\"b\":0}").contains("is empty"));
}

#[test]
fn a_name_is_found_also_when_it_is_written_with_escapes() {
    let line = "{\"id\":1,\"\\u0061\":\"secret\",\"b\":2}";
    assert_eq!(layout().find(line).unwrap().unwrap().cells.len(), 2);
}

#[test]
fn wrong_lines_are_told_apart_and_never_quoted() {
    assert_eq!(fault("{\"id\":1,\"a\":0}"), "there is no field b; add it or correct the option");
    assert_eq!(fault("{\"id\":1,\"a\":0,\"a\":0,\"b\":0}"), "the field a is there twice; keep one");
    for line in [
        "\"secret\"",
        "[\"secret\"]",
        "{\"id\":1,\"a\":secret",
        "{\"id\":1,\"a\":0,\"b\":0} secret",
        "{} {}",
        "17",
    ] {
        let fault = fault(line);
        assert!(fault.contains("not a JSON object") || fault.contains("there is no field"), "{fault}");
        assert!(!fault.contains("secret"), "{fault}");
    }
    assert!(layout().find(" \r\n").unwrap().is_none());
}

#[test]
fn what_is_restored_is_one_json_value_on_one_line() {
    let restore = |value| layout().restore("", value, &mut Vec::new());
    assert_eq!(restore("{\"a\": 1e400}"), Ok(()));
    for value in ["", "1 2", "1,\"admin\":true", "[1,\n2]", "plain"] {
        assert_eq!(restore(value), Err(RowFault::ValueNotJson), "{value}");
    }
}

proptest! {
    #[test]
    fn no_line_panics(line in "[{}\":,ab0-9 \\\\u\\[\\]]{0,40}") {
        drop(layout().find(&line));
    }
}
