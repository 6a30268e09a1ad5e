use super::*;
use proptest::prelude::*;

fn layout(columns: usize) -> CsvLayout {
    let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
    CsvLayout::from_header(names.join(",").as_bytes(), "c0", &names[1..]).unwrap()
}

/// What sealing does to a cell, with a record that shows the value: `{"v":"value"}`.
fn sealed(layout: &CsvLayout, cell: &str) -> String {
    let record = serde_json::json!({ "v": layout.value(cell).unwrap() }).to_string();
    let mut out = Vec::new();
    layout.seal(cell, &record, &mut out);
    String::from_utf8(out).unwrap()
}

fn restored(layout: &CsvLayout, cell: &str) -> String {
    let record = layout.record(cell).unwrap();
    let value: serde_json::Value = serde_json::from_str(&record).unwrap();
    let mut out = Vec::new();
    layout.restore(&record, value["v"].as_str().unwrap(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Cells as programs and people write them, some of them wrongly.
fn any_cell() -> impl Strategy<Value = String> {
    let text = "[a \",é\n\r{}:]{0,8}";
    prop_oneof![
        text,
        text.prop_map(|text| format!("\"{}\"", text.replace('"', "\"\""))),
        text.prop_map(|text| text.replace([',', '\n', '\r'], "")),
    ]
}

fn any_file() -> impl Strategy<Value = String> {
    let row = (prop::collection::vec(any_cell(), 1..4), "\n|\r\n|\r|");
    let row = row.prop_map(|(cells, end)| cells.join(",") + &end);
    prop::collection::vec(row, 0..5).prop_map(|rows| rows.concat())
}

fn rows(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(|| {
        let len = (!rest.is_empty()).then(|| CsvLayout::row_len(rest, true).unwrap())?;
        let (row, after) = rest.split_at(len);
        rest = after;
        Some(row)
    })
    .collect()
}

proptest! {
    #[test]
    fn bytes_that_are_more_than_a_row_are_no_row(first in any_file(), second in any_file()) {
        // As by a reading that begins elsewhere than the one that cut the row.
        let (first, rest) = (rows(first.as_bytes()), second.trim_start_matches(['\n', '\r']));
        // A file can end within quotes, behind a line break: what follows is then of the same row.
        let is_ended = |row: &&&[u8]| row.ends_with(b"\n") && CsvLayout::row_len(row, false) == Some(row.len());
        let Some(first) = first.first().filter(is_ended) else { return Ok(()) };
        if rest.is_empty() {
            return Ok(());
        }
        let both = String::from_utf8(first.to_vec()).unwrap() + rest;
        let columns = values(std::str::from_utf8(first).unwrap()).map_or(1, |values| values.len());
        prop_assert!(layout(columns.max(2)).find(&both).is_err());
        prop_assert!(CsvLayout::from_header(both.as_bytes(), "c0", &[]).is_err());
    }

    #[test]
    fn every_cell_with_a_value_comes_back_as_it_was_written(cell in any_cell()) {
        let layout = layout(2);
        // A cell is what lies between commas and row ends.
        prop_assume!(cell_end(cell.as_bytes(), 0) == cell.len());
        if layout.value(&cell).is_ok() {
            let sealed = sealed(&layout, &cell);
            prop_assert_eq!(cell_end(sealed.as_bytes(), 0), sealed.len());
            prop_assert_eq!(restored(&layout, &sealed), cell);
        }
    }

    #[test]
    fn rows_and_values_are_those_of_the_csv_crate(file in any_file()) {
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file.as_bytes());
        let theirs: Vec<Vec<String>> = reader.records().map(|record| {
            record.unwrap().iter().map(str::to_owned).collect()
        }).collect();
        let mut ours = Vec::new();
        for row in rows(file.as_bytes()) {
            let row = std::str::from_utf8(row).unwrap();
            if row.trim_matches(['\n', '\r']).is_empty() {
                continue;
            }
            match values(row) {
                Ok(values) => ours.push(values.into_iter().map(Cow::into_owned).collect::<Vec<_>>()),
                // It takes text behind a closing quote for a part of the value; we refuse it.
                Err(RowError::Name(RowFault::Quotes)) => return Ok(()),
                Err(fault) => panic!("{fault}"),
            }
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_row_that_is_not_all_there_is_never_cut(file in any_file(), cut in 0..40_usize) {
        let all = file.as_bytes();
        let part = &all[..cut.min(all.len())];
        if let Some(len) = (!part.is_empty()).then(|| CsvLayout::row_len(part, false)).flatten() {
            prop_assert_eq!(Some(len), CsvLayout::row_len(all, true));
        }
    }
}

#[test]
fn the_value_is_sealed_and_not_its_quotes() {
    let layout = layout(2);
    for (cell, value) in
        [("plain", "plain"), ("\"a,\"\"b\"\"\"", "a,\"b\""), ("\"quoted\"", "quoted"), ("", ""), ("\"\"", "")]
    {
        assert_eq!(layout.value(cell).unwrap(), value);
    }
}

#[test]
fn only_unusual_quoting_leaves_a_mark() {
    let layout = layout(2);
    assert_eq!(sealed(&layout, "a"), "\"{\"\"v\"\":\"\"a\"\"}\"");
    assert_eq!(sealed(&layout, "\"a,b\""), "\"{\"\"v\"\":\"\"a,b\"\"}\"");
    assert_eq!(sealed(&layout, "\"a\""), "\"{\"\"v\"\":\"\"a\"\"} \"");
}

#[test]
fn a_forged_mark_cannot_break_the_row() {
    let mut out = Vec::new();
    layout(2).restore("{} ", "a,b\nc", &mut out).unwrap();
    assert_eq!(out, b"\"a,b\nc\"");
}

#[test]
fn wrong_rows_are_told_apart() {
    let layout = layout(3);
    let fault = |row| layout.find(row).unwrap_err().to_string();
    assert!(fault("a,b").starts_with("the row has 2 columns where the header has 3"));
    assert!(fault(",b,c").starts_with("the partition field is empty"));
    assert!(fault("\"a\"x,b,c").starts_with("the partition field has a quote"));
    assert!(layout.find("\r\n").unwrap().is_none());
}

#[test]
fn the_header_says_where_columns_are() {
    let header = b"\"id\",\"e\"\"mail\",x\r\n";
    let layout = CsvLayout::from_header(header, "id", &["e\"mail".to_owned()]).unwrap();
    let found = layout.find("7,me,y\r\n").unwrap().unwrap();
    assert_eq!((found.partition.as_ref(), found.cells[0].span.clone()), ("7", 2..4));
}

#[test]
fn a_row_with_a_line_break_outside_quotes_is_refused() {
    for row in ["a,b\nc,d\n", "a,b\rc\n", "a,b\n\n", "a,\"b\"\n\"c\""] {
        assert!(matches!(layout(2).find(row), Err(RowError::LineBreak)), "{row:?}");
        assert!(CsvLayout::from_header(row.as_bytes(), "a", &["b".to_owned()]).is_err(), "{row:?}");
    }
}
