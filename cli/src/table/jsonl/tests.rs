use super::*;
use proptest::prelude::*;

fn layout() -> JsonLayout {
    going(Direction::Encrypt)
}

fn going(direction: Direction) -> JsonLayout {
    JsonLayout::new("id", &["b".to_owned(), "a".to_owned()], direction)
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
    let with = |id| format!("{{\"id\":{id},\"a\":0,\"b\":0}}");
    let numbers = ["0", "17", "-3", "1.5", "0.0001", "9007199254740992", "-9007199254740992"];
    for (id, partition) in numbers.map(|number| (number, number)).into_iter().chain([("\"a\\u0062\"", "ab")])
    {
        assert_eq!(layout().find(&with(id)).unwrap().unwrap().partition, partition);
    }
    // Other programs would write them otherwise, and the partition would be another one.
    let respelled =
        ["1.0", "1.50", "1e2", "1E2", "-0", "-0.0", "0e0", "9007199254740993", "1e400", "0.00001"];
    for id in respelled {
        assert!(fault(&with(id)).contains("other programs write in another way"), "{id}");
        let found = going(Direction::Decrypt).find(&with(id)).unwrap().unwrap().partition.into_owned();
        assert_eq!(found, id, "what was sealed so before can be opened");
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

#[test]
fn half_a_surrogate_pair_is_copied_where_nobody_asks_for_text() {
    for line in [
        "{\"id\":\"p\",\"\\ud800\":\"\\udfff\",\"a\":1,\"b\":{\"\\ud800\":\"\\ud800\"}}",
        "{\"id\":\"p\",\"a\":\"\\ud800\",\"b\":2}",
    ] {
        let found = layout().find(line).unwrap().unwrap();
        assert_eq!(found.cells.len(), 2, "{line}");
    }
}

#[test]
fn a_place_that_is_not_known_is_not_told() {
    for line in ["{\"id\":1,\"a\":0\n", "{\"id\":1,\"a\":0\r\n", "{\"id\":1,\"a\":0"] {
        assert!(fault(line).contains(" (column 13); "), "{}", fault(line));
    }
    let unknown = RowError::NotAnObject { column: 0 }.to_string();
    assert_eq!(unknown, "the line is not a JSON object; put one object on each line");
}
