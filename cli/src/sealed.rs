//! Recognises what is a record already: sealed twice, it would have to be opened twice.

use claviger::DataRowRecord;

use crate::encoding::behind_mark;

/// Tells whether `bytes` are a record, in the JSON of today or a form to come. Most of what is no
/// record is told by its first byte.
pub(crate) fn is_record(bytes: &[u8]) -> bool {
    let bytes = behind_mark(bytes).trim_ascii_start();
    match bytes.first() {
        Some(b'{') => DataRowRecord::from_json(bytes).is_ok(),
        Some(_) => bytes.starts_with(TEXT_MARK) || bytes.starts_with(BINARY_MARK),
        None => false,
    }
}

/// Tells whether a JSON value is a record, or a text that is one.
pub(crate) fn is_json_record(json: &str) -> bool {
    match json.as_bytes() {
        [b'"', b'{' | b'c' | b'\\' | b' ' | 0xef, ..] => {
            // A text with half a surrogate pair is no record.
            serde_json::from_str::<String>(json).is_ok_and(|text| is_record(text.as_bytes()))
        }
        [b'{', ..] => is_record(json.as_bytes()),
        _ => false,
    }
}

/// What records of the second format begin with as text, which they will have beside JSON.
const TEXT_MARK: &[u8] = b"clv2.";

/// What they begin with as bytes. No UTF-8 text does.
const BINARY_MARK: &[u8] = b"\xc7\x02";

#[cfg(test)]
mod tests {
    use super::*;

    /// With the fields in an order of its own, as other programs may write them.
    fn record() -> String {
        let key = "A".repeat(80);
        let data = "A".repeat(40);
        format!(
            r#"{{"Data":"{data}","Key":{{"ParentKeyMeta":{{"KeyId":"_IK_p","Created":7}},"Key":"{key}","Created":7}}}}"#
        )
    }

    #[test]
    fn records_are_recognised_however_they_are_padded() {
        for text in [record(), format!("\u{feff}\r\n {} \n", record()), "clv2.AAAA".to_owned()] {
            assert!(is_record(text.as_bytes()), "{text}");
            assert!(is_json_record(&serde_json::to_string(&text).unwrap()), "{text}");
        }
        assert!(is_json_record(&record()));
        assert!(is_json_record(&format!("\"\\u007b{}\"", record()[1..].replace('"', "\\\""))));
        assert!(is_record(b"\xc7\x02\0"));
    }

    #[test]
    fn what_only_resembles_a_record_is_none() {
        let without_data = record().replace("Data", "data");
        let cut = &record()[..record().len() - 1];
        for text in ["", "{}", "{\"Key\":{},\"Data\":\"\"}", "clv2", "clv1.", "Ç", &without_data, cut] {
            assert!(!is_record(text.as_bytes()), "{text}");
            assert!(!is_json_record(&serde_json::to_string(text).unwrap()), "{text}");
        }
        for json in ["17", "null", "[]", "{}", "\"\\ud800\"", "\"card\"", &format!("[{}]", record())] {
            assert!(!is_json_record(json), "{json}");
        }
    }
}
