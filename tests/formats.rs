//! Records of other implementations, as text: read, and written back.

use claviger::{Created, DataRowRecord, EnvelopeKeyRecord, KeyId, KeyMeta};
use serde_json::Value;

/// Each file with how many key rows and data row records it holds.
const FILES: [(&str, &str, usize, usize); 4] = [
    ("go_core.json", include_str!("vectors/go_core.json"), 28, 17),
    ("rust_core_1.0.0.json", include_str!("vectors/rust_core_1.0.0.json"), 24, 16),
    ("wheel_go_0.3.9.json", include_str!("vectors/wheel_go_0.3.9.json"), 15, 12),
    ("wheel_rust_0.5.56.json", include_str!("vectors/wheel_rust_0.5.56.json"), 18, 12),
];

#[test]
fn every_foreign_key_record_reads_and_writes_back() {
    for (file, text, rows_expected, _) in FILES {
        let mut rows_seen = 0;
        for group in serde_json::from_str::<Vec<Value>>(text).unwrap() {
            for row in group["metastore_rows"].as_array().unwrap() {
                let id = row["id"].as_str().unwrap();
                let created = Created::new(row["created"].as_i64().unwrap()).unwrap();
                let meta = KeyMeta::new(KeyId::new(id), created);
                let json = row["key_record"].as_str().unwrap();
                let record = EnvelopeKeyRecord::from_json(meta.clone(), json.as_bytes()).unwrap();
                assert_eq!(record.parent().is_some(), id.starts_with("_IK_"), "{file}: {json}");
                assert_eq!(record.is_revoked(), json.contains(r#""Revoked":true"#), "{file}: {json}");
                assert_eq!(record.to_json(), as_we_escape(json), "{file}");
                let again = EnvelopeKeyRecord::from_json(meta, record.to_json().as_bytes()).unwrap();
                assert_eq!(again, record, "{file}");
                rows_seen += 1;
            }
        }
        assert_eq!(rows_seen, rows_expected, "{file}");
    }
}

#[test]
fn every_foreign_data_row_record_reads_and_writes_back() {
    for (file, text, _, records_expected) in FILES {
        let mut records_seen = 0;
        for group in serde_json::from_str::<Vec<Value>>(text).unwrap() {
            let suffix = group["region_suffix"].as_str().unwrap();
            for vector in group["vectors"].as_array().unwrap() {
                let json = vector["drr"].as_str().unwrap();
                let record = DataRowRecord::from_json(json.as_bytes()).unwrap();
                let id = record.parent().unwrap().id().as_str();
                assert!(id.starts_with("_IK_") && id.ends_with(suffix), "{file}: {id}");
                assert!(id.contains(vector["partition"].as_str().unwrap()), "{file}: {id}");
                assert_eq!(record.to_json(), as_we_escape(json), "{file}");
                assert_eq!(DataRowRecord::from_json(record.to_json().as_bytes()).unwrap(), record);
                records_seen += 1;
            }
        }
        assert_eq!(records_seen, records_expected, "{file}");
    }
}

#[test]
fn go_escapes_what_we_write_as_it_is() {
    let (_, text, _, _) = FILES[0];
    assert!(text.contains(r"\\u003cb\\u003e\\u0026\\u2028"));
}

/// Undoes Go's escapes of `&`, `<`, `>` and U+2028; everything else it escapes, we do alike.
fn as_we_escape(json: &str) -> String {
    let escapes = [("\\u0026", "&"), ("\\u003c", "<"), ("\\u003e", ">"), ("\\u2028", "\u{2028}")];
    escapes.iter().fold(json.to_owned(), |json, (escape, character)| json.replace(escape, character))
}
