//! What holds of every file of rows that is accepted, whatever is in it. The fuzz target `tables`
//! holds it, too.

use std::collections::BTreeMap;

use claviger::DataRowRecord;
use claviger_cli::testing::{Bench, Form, Outcome, Task};
use serde_json::value::RawValue;

/// The fields that are encrypted; the partition is in `id`.
pub(crate) const FIELDS: [&str; 2] = ["a", "b"];

/// Encrypts a file and holds that
///
/// - what is written is read again, and comes to the same file, byte for byte;
/// - a reader of others finds a record in each named field, and all else as it was;
/// - no named field's value is in the output, unless it is elsewhere in the input, too;
/// - a file that is refused is not repeated in the message.
///
/// Tells whether the file was accepted.
pub(crate) fn hold(bench: &Bench, form: Form, file: &[u8], chunk_bytes: usize, row_bytes_max: usize) -> bool {
    let task =
        Task { form, partition_field: "id", fields: &FIELDS, keep_going: false, chunk_bytes, row_bytes_max };
    hold_of_good_rows(bench, file, &Task { keep_going: true, ..task.clone() });
    let sealed = match bench.encrypt(file, &task) {
        Ok(Outcome { bytes, .. }) => bytes,
        Err(message) => {
            assert!(message.len() < 400, "{message}");
            return false;
        }
    };
    let back = bench.decrypt(&sealed, &task).expect("what was written can be read");
    assert_eq!(back.bytes, file, "the file came back changed");
    let (before, after) = match form {
        Form::Csv => (csv_rows(file), csv_rows(&sealed)),
        Form::JsonLines => (json_rows(file), json_rows(&sealed)),
    };
    assert_eq!(before.len(), after.len());
    let mut records = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.others, after.others, "what was not named is another");
        assert_eq!(before.named.len(), after.named.len());
        for record in &after.named {
            DataRowRecord::from_json(record.as_bytes()).expect("a named field holds a record");
            records.push(record.as_str());
        }
    }
    let rest = without(&sealed, &records, form);
    let values = before.iter().flat_map(|row| &row.named);
    for value in values.clone().filter(|value| value.len() >= DISTINCTIVE_BYTES) {
        let cells = values.clone().filter(|other| *other == value).count();
        let (was, is) = (occurrences(file, value, form), occurrences(&rest, value, form));
        assert!(is <= was.saturating_sub(cells), "a value is in the clear");
    }
    true
}

/// The same of the rows that did well, where others were left out.
fn hold_of_good_rows(bench: &Bench, file: &[u8], task: &Task<'_>) {
    let Ok(sealed) = bench.encrypt(file, task) else { return };
    let mut line = 0;
    for &(first, last) in &sealed.left_out {
        assert!(line < first && first <= last, "lines {first} to {last} behind {line}");
        line = last;
    }
    let strict = Task { keep_going: false, ..task.clone() };
    let back = bench.decrypt(&sealed.bytes, &strict).expect("what was written can be read");
    if sealed.left_out.is_empty() {
        assert_eq!(back.bytes, file);
    } else {
        assert!(back.bytes.len() < file.len());
    }
}

/// A row as a reader of others sees it.
struct Row {
    /// What is in the named fields.
    named: Vec<String>,
    others: Vec<String>,
}

fn csv_rows(file: &[u8]) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file);
    let records: Vec<csv::StringRecord> = reader.records().map(|record| record.expect("it is CSV")).collect();
    let is_blank =
        |record: &csv::StringRecord| record.len() == 1 && record.iter().all(|cell| cell.trim().is_empty());
    let mut records = records.into_iter().skip_while(is_blank);
    let header = records.next().expect("it has a header");
    let mut rows = vec![Row { named: Vec::new(), others: header.iter().map(str::to_owned).collect() }];
    rows.extend(records.map(|record| {
        assert_eq!(record.len(), header.len());
        let cells = header.iter().zip(&record);
        let (named, others): (Vec<_>, Vec<_>) = cells.partition(|(name, _)| FIELDS.contains(name));
        let texts = |cells: Vec<(&str, &str)>| cells.into_iter().map(|(_, cell)| cell.to_owned()).collect();
        Row { named: texts(named), others: texts(others) }
    }));
    rows
}

fn json_rows(file: &[u8]) -> Vec<Row> {
    let text = std::str::from_utf8(file).expect("it is UTF-8");
    let lines = text.split('\n').map(|line| line.trim_start_matches('\u{feff}').trim());
    let row = |line: &str| {
        // Names that are no text, or there twice, are read otherwise by this reader.
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).ok()?;
        let (named, others): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|(name, _)| FIELDS.contains(&name.as_str()));
        Some(Row {
            named: named.into_iter().map(|(_, value)| value.get().to_owned()).collect(),
            others: others.into_iter().map(|(name, value)| format!("{name}:{}", value.get())).collect(),
        })
    };
    lines.filter(|line| !line.is_empty()).filter_map(row).collect()
}

/// Takes the records out, each for a mark, so that none can be taken for a value.
fn without(sealed: &[u8], records: &[&str], form: Form) -> Vec<u8> {
    let mut rest = String::from_utf8(sealed.to_vec()).expect("it is UTF-8");
    for record in records {
        let written = if form == Form::Csv { record.replace('"', "\"\"") } else { (*record).to_owned() };
        assert!(rest.contains(&written), "a record is not there as it is written");
        rest = rest.replacen(&written, "\0\0", 1);
    }
    rest.into_bytes()
}

/// How often a value is there, with its quotes doubled or not.
fn occurrences(file: &[u8], value: &str, form: Form) -> usize {
    let count = |text: &str| file.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
    if form == Form::JsonLines || !value.contains('"') {
        return count(value);
    }
    count(value) + count(&value.replace('"', "\"\""))
}

/// Shorter values may be somewhere by chance.
const DISTINCTIVE_BYTES: usize = 6;
