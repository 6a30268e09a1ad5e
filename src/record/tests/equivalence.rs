//! Our JSON code against serde_json's, with derived structs and a base64 decoder of its own.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::{Deserialize, Serialize};

use super::super::*;

/// What serde_json makes of a record with no help from us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    key: RowKey,
    data: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RowKey {
    created: i64,
    key: String,
    parent_key_meta: Meta,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<bool>,
    created: i64,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_key_meta: Option<Meta>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    key_id: String,
    created: i64,
}

impl Meta {
    fn of(meta: &KeyMeta) -> Self {
        Self { key_id: meta.id().as_str().to_owned(), created: meta.created().unix_seconds() }
    }

    fn read(self) -> Option<KeyMeta> {
        Some(KeyMeta::new(KeyId::new(self.key_id), Created::new(self.created)?))
    }
}

impl Row {
    fn of(record: &DataRowRecord) -> Self {
        let key = RowKey {
            created: record.created,
            key: encode(record.wrapped_key()),
            parent_key_meta: Meta::of(record.parent().unwrap()),
        };
        Self { key, data: encode(record.data()) }
    }
}

impl Key {
    fn of(record: &EnvelopeKeyRecord) -> Self {
        Self {
            revoked: record.is_revoked().then_some(true),
            created: record.meta().created().unix_seconds(),
            key: encode(record.wrapped_key()),
            parent_key_meta: record.parent().map(Meta::of),
        }
    }
}

fn reference_row(json: &[u8]) -> Option<DataRowRecord> {
    let row: Row = serde_json::from_slice(json).ok()?;
    let wrapped_key = decode(&row.key.key)?.try_into().ok()?;
    let data = decode(&row.data).filter(|data| data.len() >= 28)?;
    Some(DataRowRecord::new(row.key.created, wrapped_key, row.key.parent_key_meta.read()?, data))
}

fn reference_key(meta: &KeyMeta, json: &[u8]) -> Option<EnvelopeKeyRecord> {
    let key: Key = serde_json::from_slice(json).ok()?;
    if key.created != meta.created().unix_seconds() {
        return None;
    }
    let wrapped_key = decode(&key.key).filter(|key| !key.is_empty())?;
    let parent = match key.parent_key_meta {
        Some(parent) => Some(parent.read()?),
        None => None,
    };
    Some(EnvelopeKeyRecord::new(meta.clone(), wrapped_key, parent).revoked(key.revoked == Some(true)))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4, the slow way.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(group.get(n).copied().unwrap_or(0)));
        for n in 0..4 {
            let digit = char::from(ALPHABET[bits >> (18 - 6 * n) & 63]);
            text.push(if n <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| *known == digit)?).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    // Padding and unused bits are right when encoding leads back.
    (encode(&bytes) == text).then_some(bytes)
}

fn id() -> impl Strategy<Value = KeyId> {
    let awkward = select(
        "\"\\/&<>+'\u{0}\u{8}\t\n\u{c}\r\u{b}\u{1f}\u{7f}ä\u{2028}\u{ffff}𝄞\u{10ffff}"
            .chars()
            .collect::<Vec<_>>(),
    );
    vec(prop_oneof![awkward, any::<char>(), prop::char::range(' ', '~')], 0..40)
        .prop_map(|id| KeyId::new(id.into_iter().collect::<String>()))
}

fn meta() -> impl Strategy<Value = KeyMeta> {
    (id(), prop_oneof![1..=Created::MAX.unix_seconds(), 1..=9_999_999_999_i64])
        .prop_map(|(id, created)| KeyMeta::new(id, Created::new(created).unwrap()))
}

fn row() -> impl Strategy<Value = DataRowRecord> {
    let created = prop_oneof![any::<i64>(), -9..=9_i64, Just(i64::MIN)];
    (created, vec(any::<u8>(), 60), meta(), vec(any::<u8>(), 28..120)).prop_map(
        |(created, wrapped_key, parent, data)| {
            DataRowRecord::new(created, wrapped_key.try_into().unwrap(), parent, data)
        },
    )
}

fn key() -> impl Strategy<Value = EnvelopeKeyRecord> {
    (meta(), vec(any::<u8>(), 1..90), proptest::option::of(meta()), any::<bool>()).prop_map(
        |(meta, wrapped, parent, revoked)| EnvelopeKeyRecord::new(meta, wrapped, parent).revoked(revoked),
    )
}

/// How a foreign writer may write the same record.
#[derive(Clone, Debug)]
struct Style {
    space: &'static str,
    /// Rotates the fields of each object.
    rotate: usize,
    reverse: bool,
    /// Escapes characters as `\uXXXX`, of this many kinds in turn.
    escape: [bool; 7],
    unknown: &'static str,
}

fn style() -> impl Strategy<Value = Style> {
    let space = select(vec!["", " ", "\n\t", "\r\n  "]);
    let unknown = select(vec!["", "\"X\":null", r#""data":{"Key":[1e3,"\"",{"Data":-0.5}]}"#]);
    (space, 0..4_usize, any::<bool>(), any::<[bool; 7]>(), unknown).prop_map(
        |(space, rotate, reverse, escape, unknown)| Style { space, rotate, reverse, escape, unknown },
    )
}

impl Style {
    fn write(&self, value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Object(fields) => {
                let mut fields: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| {
                        format!("{}{s}:{s}{}", self.text(name), self.write(value), s = self.space)
                    })
                    .chain((!self.unknown.is_empty()).then(|| self.unknown.to_owned()))
                    .collect();
                let rotate = self.rotate % fields.len();
                fields.rotate_left(rotate);
                if self.reverse {
                    fields.reverse();
                }
                format!(
                    "{s}{{{s}{}{s}}}{s}",
                    fields.join(&format!("{s},{s}", s = self.space)),
                    s = self.space
                )
            }
            serde_json::Value::String(text) => self.text(text),
            other => other.to_string(),
        }
    }

    fn text(&self, text: &str) -> String {
        let mut units = [0; 2];
        let quoted = text.chars().enumerate().map(|(at, character)| {
            let must = character < ' ' || character == '"' || character == '\\';
            if must || self.escape[at % self.escape.len()] {
                let units = character.encode_utf16(&mut units);
                units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
            } else {
                character.to_string()
            }
        });
        format!("\"{}\"", quoted.collect::<String>())
    }
}

/// One change of a text: at a place, so many bytes are replaced by these. They are too few to turn
/// an object into the array of its values, which serde's derived structs take and we refuse.
type Mutation = (Index, usize, Vec<u8>);

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let tokens = [
        "", "{", "}", "[", "]", "\"", "\\", ",", ":", "null", "true", "-", "0", "1.0", "e3", "=", "A",
        "\\u0041", "\"Key\":",
    ];
    let piece = prop_oneof![
        4 => select(tokens.to_vec()).prop_map(|token| token.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ];
    vec((any::<Index>(), 0..4_usize, piece), 1..4)
}

fn mutate(json: String, mutations: Vec<Mutation>) -> Vec<u8> {
    let mut bytes = json.into_bytes();
    for (at, length, piece) in mutations {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + length);
        bytes.splice(at..end, piece);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn data_row_records_are_written_as_serde_json_writes_them(record in row()) {
        let json = record.to_json();
        prop_assert_eq!(&json, &serde_json::to_string(&Row::of(&record)).unwrap());
        prop_assert_eq!(json.capacity(), json.len(), "allocated once, at its length");
        prop_assert_eq!(&json, &serde_json::to_string(&record).unwrap());
        prop_assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), Row::of(&record));
        prop_assert_eq!(DataRowRecord::from_json(json.as_bytes()).unwrap(), record);
    }

    #[test]
    fn key_records_are_written_as_serde_json_writes_them(record in key()) {
        let json = record.to_json();
        prop_assert_eq!(&json, &serde_json::to_string(&Key::of(&record)).unwrap());
        prop_assert_eq!(json.capacity(), json.len(), "allocated once, at its length");
        let read = EnvelopeKeyRecord::from_json(record.meta().clone(), json.as_bytes()).unwrap();
        prop_assert_eq!(read, record);
    }

    #[test]
    fn records_are_read_however_they_are_written(row in row(), key in key(), style in style()) {
        let json = style.write(&serde_json::to_value(Row::of(&row)).unwrap());
        prop_assert_eq!(DataRowRecord::from_json(json.as_bytes()).unwrap(), row.clone());
        prop_assert_eq!(serde_json::from_str::<DataRowRecord>(&json).unwrap(), row.clone());
        let pretty = serde_json::to_string_pretty(&row).unwrap();
        prop_assert_eq!(DataRowRecord::from_json(pretty.as_bytes()).unwrap(), row);
        let json = style.write(&serde_json::to_value(Key::of(&key)).unwrap());
        prop_assert_eq!(EnvelopeKeyRecord::from_json(key.meta().clone(), json.as_bytes()).unwrap(), key);
    }

    #[test]
    fn changed_records_are_taken_and_refused_as_by_serde_json(row in row(), style in style(), changes in mutations()) {
        let json = mutate(style.write(&serde_json::to_value(Row::of(&row)).unwrap()), changes);
        prop_assert_eq!(DataRowRecord::from_json(&json).ok(), reference_row(&json));
        prop_assert_eq!(serde_json::from_slice::<DataRowRecord>(&json).ok(), reference_row(&json));
    }

    #[test]
    fn changed_key_records_are_taken_and_refused_as_by_serde_json(key in key(), changes in mutations()) {
        let json = mutate(key.to_json(), changes);
        let read = EnvelopeKeyRecord::from_json(key.meta().clone(), &json);
        prop_assert_eq!(read.ok(), reference_key(key.meta(), &json));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..200), key in meta()) {
        DataRowRecord::from_json(&bytes).unwrap_err();
        EnvelopeKeyRecord::from_json(key, &bytes).unwrap_err();
    }
}
