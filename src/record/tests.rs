mod binary;
mod equivalence;

use super::*;

fn meta(id: &str, created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(created).unwrap())
}

fn data_row_record() -> DataRowRecord {
    let data = (0..30).map(|n| n * 8).collect();
    DataRowRecord::new(1_700_000_077, [0xfb; 60], meta("_IK_\"a\\b\"\n_s_p", 1_700_000_040), data)
}

fn key_record() -> EnvelopeKeyRecord {
    let parent = meta("_SK_s_p", 1_700_000_000);
    EnvelopeKeyRecord::new(meta("_IK_x_s_p", 1_700_000_060), [1, 2, 3, 4], Some(parent))
}

/// 60 bytes of 0xfb.
const WRAPPED: &str = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7";
/// The multiples of 8 up to 232.
const DATA: &str = "AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo";

#[test]
fn a_data_row_record_is_written_as_asherah_does() {
    let expected = format!(
        r#"{{"Key":{{"Created":1700000077,"Key":"{WRAPPED}","ParentKeyMeta":{{"KeyId":"_IK_\"a\\b\"\n_s_p","Created":1700000040}}}},"Data":"{DATA}"}}"#
    );
    assert_eq!(data_row_record().to_json(), expected);
}

#[test]
fn a_key_record_is_written_as_asherah_does() {
    let intermediate = key_record();
    let rest =
        r#""Created":1700000060,"Key":"AQIDBA==","ParentKeyMeta":{"KeyId":"_SK_s_p","Created":1700000000}}"#;
    assert_eq!(intermediate.to_json(), format!("{{{rest}"));
    assert_eq!(intermediate.revoked(true).to_json(), format!(r#"{{"Revoked":true,{rest}"#));
    let system = EnvelopeKeyRecord::new(meta("_SK_s_p", 1), [1, 2, 3], None);
    assert_eq!(system.to_json(), r#"{"Created":1,"Key":"AQID"}"#);
}

/// The escapes of Go and C#, in base64 and in field names too.
#[test]
fn every_escape_is_read() {
    let escaped = data_row_record().to_json().replace('+', "\\u002B").replace('/', "\\/");
    let escaped = escaped.replace("\"Data\"", r#""\u0044ata""#).replace("_s_p", r"_\u0073_p");
    assert!(escaped.contains("\\u002B") && escaped.contains("\\/"));
    assert_eq!(DataRowRecord::from_json(escaped.as_bytes()).unwrap(), data_row_record());
}

/// One malformed data row record for each way it can be so, with what is said about it.
#[test]
fn every_malformed_data_row_record_names_its_fault() {
    let no_base64 = "Key.Key is not padded standard base64";
    let bad_data = "Data is not padded standard base64";
    let no_created = "Key.ParentKeyMeta.Created is missing";
    let not_positive = "Key.ParentKeyMeta.Created is not positive, or past the year 9999";
    assert_refused(&[
        ("{}", "Key is missing"),
        (&row("null", &quoted(DATA)), "Key is missing"),
        (&row("{}", &quoted(DATA)), "Key.Created is missing"),
        (&row_key("null", &quoted(WRAPPED), PARENT), "Key.Created is missing"),
        (&row_key("1", "null", PARENT), "Key.Key is missing"),
        (&row_key("1", "\"\"", PARENT), "Key.Key is not of 60 bytes"),
        (&row_key("1", &quoted(&WRAPPED[4..]), PARENT), "Key.Key is not of 60 bytes"),
        (&row_key("1", &quoted(&format!("{WRAPPED}AA==")), PARENT), "Key.Key is not of 60 bytes"),
        (&row_key("1", &quoted(&WRAPPED[1..]), PARENT), no_base64),
        (&row_key("1", &quoted(&WRAPPED.replacen('+', "-", 1)), PARENT), no_base64),
        (&with_parent("null"), "Key.ParentKeyMeta is missing"),
        (&with_parent("{}"), "Key.ParentKeyMeta.KeyId is missing"),
        (&with_parent(r#"{"KeyId":null,"Created":1}"#), "Key.ParentKeyMeta.KeyId is missing"),
        (&with_parent(r#"{"KeyId":"s3cret"}"#), no_created),
        (&with_parent(r#"{"KeyId":"s3cret","Created":null}"#), no_created),
        (&with_parent(r#"{"KeyId":"s3cret","Created":0}"#), not_positive),
        (&with_parent(r#"{"KeyId":"s3cret","Created":-1}"#), not_positive),
        (&with_data("null"), "Data is missing"),
        (&with_data("\"\""), "Data is too short to hold a tag and a nonce"),
        (&with_data(&quoted(&DATA[4..])), "Data is too short to hold a tag and a nonce"),
        (&with_data(&quoted(&DATA[1..])), bad_data),
        (&with_data(&quoted(&DATA.replace("gQ", "g\\n"))), bad_data),
        (&with_data(&quoted(&DATA.replace("gQ", "=="))), bad_data),
        (&with_data(&quoted(&format!("{DATA}AA"))), bad_data),
        (&with_data(&quoted(&format!("{DATA}AB=="))), bad_data),
        (&with_data(&quoted(&format!("{DATA}===="))), bad_data),
        (&with_data(r#""\ud800AAA""#), bad_data),
        (&with_data("\"A\tBC\""), bad_data),
    ]);
    // The pieces make a good record when none of them is bad.
    DataRowRecord::from_json(row_key("-5", &quoted(WRAPPED), PARENT).as_bytes()).unwrap();
}

#[test]
fn every_fault_in_the_json_of_a_data_row_record_names_its_place() {
    let wrong_type = "a field has the wrong type or stands twice, at line 1 column ";
    let not_json = "not JSON, at line 1 column ";
    let with_created = |created: &str| row_key(created, &quoted(WRAPPED), PARENT);
    assert_refused(&[
        (&with_data("17"), wrong_type),
        (&with_data(r#"["s3cret"]"#), wrong_type),
        (&with_data("[65,65,65,65]"), wrong_type),
        (&with_data(r#""","Data":"""#), wrong_type),
        (&with_created("1.0"), wrong_type),
        (&with_created("1e3"), wrong_type),
        (&with_created("-0"), wrong_type),
        (&with_created("9223372036854775808"), wrong_type),
        (&with_created("-9223372036854775809"), wrong_type),
        (&with_created(r#""s3cret""#), wrong_type),
        (&with_created("true"), wrong_type),
        (&with_created(r#"1,"Created":1"#), wrong_type),
        (&row_key("1", r#"{"s3cret":1}"#, PARENT), wrong_type),
        (&with_parent(r#""s3cret""#), wrong_type),
        (&with_parent(r#"["_IK_s3cret",5]"#), wrong_type),
        (&with_parent(r#"{"KeyId":7,"Created":5}"#), wrong_type),
        (&with_parent(r#"{"KeyId":"x","KeyId":"s3cret","Created":5}"#), wrong_type),
        (&with_parent(r#"{"KeyId":"x","Created":null,"Created":5}"#), wrong_type),
        (&format!(r#"[{{}},"{DATA}"]"#), wrong_type),
        ("\"s3cret\"", wrong_type),
        ("null", wrong_type),
        ("", "JSON ends too early, at line 1 column 0"),
        ("\n{", "JSON ends too early, at line 2 column 1"),
        ("s3cret", "not JSON, at line 1 column 1"),
        ("{s3cret}", "not JSON, at line 1 column 2"),
        (&format!("\u{feff}{}", with_created("1")), "not JSON, at line 1 column 1"),
        (&format!("{}{{}}", with_created("1")), not_json),
        (&with_parent("{\"KeyId\":\"s3\tcret\",\"Created\":5}"), not_json),
        (&with_parent(r#"{"KeyId":"\ud800","Created":5}"#), not_json),
        (&with_created("01"), not_json),
        (&with_created("1e999"), not_json),
    ]);
}

const PARENT: &str = r#"{"KeyId":"_IK_s3cret","Created":5}"#;

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn row(key: &str, data: &str) -> String {
    format!(r#"{{"Key":{key},"Data":{data}}}"#)
}

fn row_key(created: &str, wrapped: &str, parent: &str) -> String {
    let key = format!(r#"{{"Created":{created},"Key":{wrapped},"ParentKeyMeta":{parent}}}"#);
    row(&key, &quoted(DATA))
}

fn with_parent(parent: &str) -> String {
    row_key("1", &quoted(WRAPPED), parent)
}

fn with_data(data: &str) -> String {
    with_parent(PARENT).replace(&quoted(DATA), data)
}

fn assert_refused(cases: &[(&str, &str)]) {
    for (json, fault) in cases {
        let reason = DataRowRecord::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(reason.starts_with(&format!("malformed record: {fault}")), "{reason:?} about {json}");
        assert!(!reason.contains("s3"), "{reason:?} quotes {json}");
        serde_json::from_str::<DataRowRecord>(json).unwrap_err();
    }
}

#[test]
fn every_malformed_key_record_names_its_fault() {
    let wrong_type = "a field has the wrong type or stands twice, at line 1 column ";
    let parent = "\"Created\":9,\"Key\":\"AQID\",\"ParentKeyMeta\"";
    let cases = [
        ("{}".into(), "Created is missing"),
        (r#"{"Created":null,"Key":"AQID"}"#.into(), "Created is missing"),
        (r#"{"Created":8,"Key":"AQID"}"#.into(), "Created is not the one the record is stored under"),
        (r#"{"Created":-9,"Key":"AQID"}"#.into(), "Created is not the one the record is stored under"),
        (r#"{"Created":0,"Key":"AQID"}"#.into(), "Created is not the one the record is stored under"),
        (r#"{"Created":9}"#.into(), "Key is missing"),
        (r#"{"Created":9,"Key":""}"#.into(), "Key is empty"),
        (r#"{"Created":9,"Key":"AQI"}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"A"}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"===="}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"A==="}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"AR=="}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"AQ==AQID"}"#.into(), "Key is not padded standard base64"),
        (r#"{"Created":9,"Key":"AQ ="}"#.into(), "Key is not padded standard base64"),
        (format!(r#"{{{parent}:{{"KeyId":"x"}}}}"#), "ParentKeyMeta.Created is missing"),
        (format!(r#"{{{parent}:{{"Created":1}}}}"#), "ParentKeyMeta.KeyId is missing"),
        (
            format!(r#"{{{parent}:{{"KeyId":"x","Created":0}}}}"#),
            "ParentKeyMeta.Created is not positive, or past the year 9999",
        ),
        (format!(r#"{{{parent}:["x",1]}}"#), wrong_type),
        (format!(r#"{{{parent}:null,"ParentKeyMeta":null}}"#), wrong_type),
        (r#"{"Revoked":1,"Created":9,"Key":"AQID"}"#.into(), wrong_type),
        (r#"{"Revoked":"true","Created":9,"Key":"AQID"}"#.into(), wrong_type),
        (r#"{"Revoked":false,"Created":9,"Key":"AQID","Revoked":true}"#.into(), wrong_type),
        (r#"{"Created":9.0,"Key":"AQID"}"#.into(), wrong_type),
        (r#"[false,9,"AQID",null]"#.into(), wrong_type),
        (r#"{"Created":9,"Key":"AQID"#.into(), "JSON ends too early, at line 1 column 24"),
        (r#"{'Created':9}"#.into(), "not JSON, at line 1 column 2"),
    ];
    for (json, fault) in cases {
        let json: String = json;
        let reason = EnvelopeKeyRecord::from_json(meta("k", 9), json.as_bytes()).unwrap_err().to_string();
        assert!(reason.starts_with(&format!("malformed record: {fault}")), "{reason:?} about {json}");
    }
}

#[test]
fn optional_fields_of_a_key_record_may_be_missing_or_null() {
    let cases = [
        (r#"{"Created":9,"Key":"AQID"}"#, false),
        (r#"{"Key":"AQID","Created":9,"Revoked":false}"#, false),
        (r#"{"Revoked":null,"Created":9,"Key":"AQID","ParentKeyMeta":null}"#, false),
        (r#" { "Later": [{"Revoked":false}], "Revoked" : true, "Created":9, "Key":"AQID" } "#, true),
    ];
    for (json, revoked) in cases {
        let record = EnvelopeKeyRecord::from_json(meta("k", 9), json.as_bytes()).unwrap();
        let expected = EnvelopeKeyRecord::new(meta("k", 9), [1, 2, 3], None).revoked(revoked);
        assert_eq!(record, expected, "{json}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let json = data_row_record().to_json();
    for end in 0..json.len() {
        DataRowRecord::from_json(&json.as_bytes()[..end]).unwrap_err();
    }
    let key = key_record().revoked(true);
    let json = key.to_json();
    for end in 0..json.len() {
        EnvelopeKeyRecord::from_json(key.meta().clone(), &json.as_bytes()[..end]).unwrap_err();
    }
}

/// Strict base64 makes this hold: with loose padding or unused bits some flips would be the same
/// record in another spelling.
#[test]
fn no_flipped_bit_leaves_the_record_the_same() {
    for data_bytes in 28..31 {
        let record = DataRowRecord::new(1, [1; 60], meta("_IK_a", 2), vec![0; data_bytes]);
        let json = record.to_json().into_bytes();
        for flip in 0..json.len() * 8 {
            let mut flipped = json.clone();
            flipped[flip / 8] ^= 1 << (flip % 8);
            assert_ne!(DataRowRecord::from_json(&flipped), Ok(record.clone()), "{flip}");
        }
    }
}

#[test]
fn deep_unknown_fields_do_not_exhaust_the_stack() {
    const DEPTH: usize = 1 << 20;
    let json = data_row_record().to_json();
    let deep = format!(r#"{{"Later":{}{},{}"#, "[".repeat(DEPTH), "]".repeat(DEPTH), &json[1..]);
    assert_eq!(DataRowRecord::from_json(deep.as_bytes()).unwrap(), data_row_record());
    DataRowRecord::from_json("[".repeat(DEPTH).as_bytes()).unwrap_err();
    DataRowRecord::from_json(r#"{"Key":"#.repeat(DEPTH).as_bytes()).unwrap_err();
}

#[test]
fn serde_speaks_the_same_json() {
    let record = data_row_record();
    let json = record.to_json();
    assert_eq!(serde_json::to_string(&record).unwrap(), json);
    assert_eq!(serde_json::from_str::<DataRowRecord>(&json).unwrap(), record);
    assert_eq!(serde_json::from_reader::<_, DataRowRecord>(json.as_bytes()).unwrap(), record);
    let value = serde_json::to_value(&record).unwrap();
    assert_eq!(serde_json::from_value::<DataRowRecord>(value).unwrap(), record);
}

#[test]
fn created_is_positive_and_before_the_year_10000() {
    assert_eq!(Created::new(0), None);
    assert_eq!(Created::new(-1), None);
    assert_eq!(Created::new(i64::MIN), None);
    assert_eq!(Created::new(1), Some(Created::MIN));
    assert_eq!(Created::new(253_402_300_799), Some(Created::MAX));
    assert_eq!(Created::new(253_402_300_800), None);
    assert_eq!(Created::new(i64::MAX), None);
    assert_eq!(Created::MIN.unix_seconds(), 1);
}

#[test]
fn what_a_terminal_obeys_in_an_id_is_shown_escaped_and_all_else_as_it_is() {
    for plain in ["_IK_alice_checkout_payments", "", "andre\u{301} \u{1f600} \\ \" '", "\u{5d0}\u{627}"] {
        assert_eq!(KeyId::new(plain).to_string(), plain);
    }
    for (id, shown) in [
        ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
        ("\r\n\t", "\\r\\n\\t"),
        ("\u{202e}live", "\\u{202e}live"),
        ("\u{9b}\u{7f}x\u{2028}", "\\u{9b}\\u{7f}x\\u{2028}"),
    ] {
        assert_eq!(KeyId::new(id).to_string(), shown);
        assert_eq!(KeyMeta::new(KeyId::new(id), Created::MIN).to_string(), format!("{shown}@1"));
    }
}

#[test]
fn a_record_that_names_a_key_which_no_store_can_hold_is_malformed() {
    let json = data_row_record().to_json();
    let with = |id: &str, created: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
        value["Key"]["ParentKeyMeta"]["KeyId"] = id.into();
        value["Key"]["ParentKeyMeta"]["Created"] = created.parse::<i64>().unwrap().into();
        DataRowRecord::from_json(value.to_string().as_bytes())
    };
    assert!(with(&"x".repeat(2_048), "253402300799").is_ok());
    assert!(with(&"x".repeat(2_049), "1").is_err());
    assert!(with("x", "253402300800").is_err());
    assert!(with("x", "9223372036854775807").is_err());
}

#[test]
fn debug_shows_names_and_lengths_only() {
    let row = DataRowRecord::new(3, [0xaa; 60], meta("_IK_a", 2), vec![0xaa; 40]);
    let key = EnvelopeKeyRecord::new(meta("_SK_a", 1), [0xaa; 61], None);
    let text = format!("{row:?} {key:?}");
    for known in ["_IK_a", "40 bytes", "61 bytes", "_SK_a"] {
        assert!(text.contains(known), "{known} in {text}");
    }
    assert!(!text.contains("170") && !text.contains("aa") && !text.contains("qq"), "{text}");
}
