//! Files of rows of every kind, with the property that none of them comes back changed and nothing
//! that is to be sealed stays in the clear.
//!
//! `PROPTEST_CASES=200000 cargo test --release -p claviger-cli --test tables` searches for longer.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod property;

use std::sync::LazyLock;

use claviger_cli::testing::{Bench, Form};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::property::hold;

static BENCH: LazyLock<Bench> = LazyLock::new(|| Bench::new().unwrap());

/// Sizes at which borders fall everywhere, and records are about as long as a row may be.
fn sizes() -> impl Strategy<Value = (usize, usize)> {
    (prop_oneof![1..40_usize, 40..2000_usize], prop_oneof![400..2000_usize, Just(1 << 20)])
}

fn line_end() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => select(vec!["\n", "\r\n"]),
        1 => select(vec!["\r", "\n\n", "\r\n\r\n", "\n\r", ""]),
    ]
    .prop_map(str::to_owned)
}

/// Text with what CSV, JSON and files are made of, and now and then a long one.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c \",;é\n\r\u{feff}{}:@4]{0,12}",
        2 => "[a-z]{3,9}@[a-z]{3,9}",
        1 => ("[a-z@]{1,9}", 1..300_usize).prop_map(|(text, times)| text.repeat(times)),
    ]
}

/// A cell as programs and people write them, some of them wrongly.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => text().prop_map(|text| format!("\"{}\"", text.replace('"', "\"\""))),
        12 => text().prop_map(|text| text.replace([',', '\n', '\r'], "").trim_start_matches('"').to_owned()),
        1 => text(),
    ]
}

fn partition() -> impl Strategy<Value = String> {
    prop_oneof![12 => "[pqr]", 4 => "\"[pq][,\n\r]?[pq]\"", 1 => "[ pq\"]{0,2}"]
}

fn mark() -> impl Strategy<Value = &'static str> {
    select(vec!["", "\u{feff}", "\u{feff}\n", "\n", " \r\n", "\u{feff}\u{feff}"])
}

/// Puts the parts of a row in this order.
fn shuffled(parts: &[String; 4], order: [usize; 4]) -> String {
    order.map(|place| parts.get(place).unwrap().as_str()).join(",")
}

/// A file with the columns `id`, `a` and `b` and one of any name, in any order.
fn csv_file() -> impl Strategy<Value = Vec<u8>> {
    let name = |name: &'static str| select(vec![name.to_owned(), format!("\"{name}\"")]);
    let header = (name("id"), name("a"), name("b"), cell());
    let rows = prop::collection::vec((partition(), cell(), cell(), cell(), line_end()), 0..6);
    let order = Just([0_usize, 1, 2, 3]).prop_shuffle();
    (mark(), header, line_end(), rows, order).prop_map(|(mark, (id, a, b, x), end, rows, order)| {
        let row = |cells: [String; 4], end: String| shuffled(&cells, order) + &end;
        let mut file = mark.to_owned() + &row([id, a, b, x], end);
        file.extend(rows.into_iter().map(|(id, a, b, x, end)| row([id, a, b, x], end)));
        file.into_bytes()
    })
}

fn json_value() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        6 => "-?[1-9][0-9]{0,30}(\\.[0-9]+)?([eE][+-]?[0-9]{1,3})?",
        6 => select(vec!["null", "true", "{}", "[ ]", "{\"a\": [1,  2]}", "\"\\ud800\"", "\"\\u00e9\\/\""])
            .prop_map(str::to_owned),
        1 => text(),
    ]
}

fn json_file() -> impl Strategy<Value = Vec<u8>> {
    let name = select(vec!["x", "\\ud800", "\\u0061x", "id2", "a b", ""]);
    let id = prop_oneof![12 => "\"[pqr]\"", 4 => "[1-9][0-9]{0,15}", 1 => json_value()];
    let space = || select(vec!["", " ", "\t", "\r", "  "]);
    let order = Just([0_usize, 1, 2, 3]).prop_shuffle();
    let line = (id, json_value(), json_value(), (name, json_value()), (space(), space()), order, line_end());
    let line = line.prop_map(|(id, a, b, (name, x), (before, behind), order, end)| {
        let fields = [
            format!("\"id\":{before}{id}"),
            format!("\"a\"{behind}:{before}{a}{behind}"),
            format!("{before}\"\\u0062\":{b}"),
            format!("\"{name}\":{x}"),
        ];
        format!("{before}{{{}}}{behind}{end}", shuffled(&fields, order))
    });
    (mark(), prop::collection::vec(line, 0..6))
        .prop_map(|(mark, lines)| (mark.to_owned() + &lines.concat()).into_bytes())
}

/// Puts a byte somewhere, takes one away, or leaves the file as it is.
fn damaged(file: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![select(b"\",\n\r{}: \\\0\xef".to_vec()), any::<u8>()];
    (file, any::<Index>(), prop::option::of(byte), any::<bool>()).prop_map(
        |(mut file, place, byte, is_damaged)| {
            if is_damaged && !file.is_empty() {
                let place = place.index(file.len());
                match byte {
                    Some(byte) => file.insert(place, byte),
                    None => drop(file.remove(place)),
                }
            }
            file
        },
    )
}

proptest! {
    #[test]
    fn no_value_of_a_named_column_stays_in_the_clear((chunk, row) in sizes(), file in damaged(csv_file())) {
        hold(&BENCH, Form::Csv, &file, chunk, row);
    }

    #[test]
    fn no_value_of_a_named_field_stays_in_the_clear((chunk, row) in sizes(), file in damaged(json_file())) {
        hold(&BENCH, Form::JsonLines, &file, chunk, row);
    }

    #[test]
    fn no_name_in_the_header_leads_to_a_value_in_the_clear(
        (chunk, row) in sizes(),
        mark in mark(),
        name in prop_oneof![3 => "\"([a,\n\r]|\"\"){0,4}\"", 1 => "[a,\"\n]{0,4}"],
        end in line_end(),
        rows in "(v,[pq],[a-z]{6,9}@,[a-z]{6,9}@(\n|\r\n)){1,4}",
    ) {
        for columns in ["id,a,b", "\"id\",\"a\",\"b\"", "id,\"a\",b"] {
            hold(&BENCH, Form::Csv, format!("{mark}{name},{columns}{end}{rows}").as_bytes(), chunk, row);
        }
    }
}

/// Else the properties above would say little.
#[test]
fn most_generated_files_are_accepted() {
    fn accepted(form: Form, files: &impl Strategy<Value = Vec<u8>>) -> usize {
        let mut runner = TestRunner::deterministic();
        let mut is_accepted = || {
            let file = files.new_tree(&mut runner).unwrap().current();
            hold(&BENCH, form, &file, 100, 1 << 20) && file.len() > 20
        };
        (0..200).filter(|_| is_accepted()).count()
    }
    let (csv, json) = (accepted(Form::Csv, &csv_file()), accepted(Form::JsonLines, &json_file()));
    assert!(csv > 80 && json > 80, "{csv} and {json} of 200");
}
