//! The records' JSON: written by hand into one allocation, read by serde without copies.
//!
//! Asherah's writers agree on the fields and their order but not on which characters they escape,
//! in base64 too: Go writes `&` as `\u0026`, C# `+` as `\u002B`. So reading takes every escape.
//! Base64 is read strictly, padding and unused bits included: all writers produce that one form,
//! and there is then no second spelling that a flipped bit could turn a record into unnoticed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64_simd::{AsOut, STANDARD};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use super::binary;
use super::data_row::{DataRowRecord, WRAPPED_DATA_ROW_KEY_BYTES};
use super::envelope_key::EnvelopeKeyRecord;
use super::id::{Created, KeyId, KeyMeta, MalformedRecord};

impl EnvelopeKeyRecord {
    /// Returns the JSON text that a metastore keeps: Asherah's fields in Asherah's order, no
    /// white space.
    #[must_use]
    pub fn to_json(&self) -> String {
        write_key_record(self)
    }

    /// Returns how many bytes [`to_json`](Self::to_json) has.
    pub(crate) fn json_bytes(&self) -> usize {
        key_record_bytes(self)
    }

    /// Reads the JSON text of the key version `meta`.
    ///
    /// Fields may stand in any order and unknown ones are ignored; `Revoked` and `ParentKeyMeta`
    /// may be missing or null.
    ///
    /// # Errors
    /// [`MalformedRecord`] when a field is missing, stands twice or has the wrong type, base64 is bad
    /// or empty, a `Created` is not a positive whole number, or the key's own differs from the one in
    /// `meta`.
    pub fn from_json(meta: KeyMeta, json: &[u8]) -> Result<Self, MalformedRecord> {
        read_key_record(meta, json)
    }
}

impl DataRowRecord {
    /// Returns Asherah's JSON text: its fields in its order, no white space. It is allocated once.
    #[must_use]
    pub fn to_json(&self) -> String {
        write_data_row_record(self)
    }

    /// Reads Asherah's JSON text, fields in any order, unknown ones ignored.
    ///
    /// What it allocates is bounded by the length of `json`: the data and the parent's id, and copies
    /// of strings that hold escapes.
    ///
    /// # Errors
    /// [`MalformedRecord`] when a field is missing, stands twice or has the wrong type, base64 is bad,
    /// the parent's `Created` is not a positive whole number, the wrapped key has not the length of
    /// one, or the data cannot hold a tag and a nonce.
    pub fn from_json(json: &[u8]) -> Result<Self, MalformedRecord> {
        read_data_row_record(json)
    }
}

fn write_key_record(record: &EnvelopeKeyRecord) -> String {
    let mut json = String::with_capacity(key_record_bytes(record));
    put_key_record(&mut json, record);
    json
}

/// Returns how long the text is.
fn key_record_bytes(record: &EnvelopeKeyRecord) -> usize {
    let mut length = Length(0);
    put_key_record(&mut length, record);
    length.0
}

fn write_data_row_record(record: &DataRowRecord) -> String {
    let mut length = Length(0);
    put_data_row_record(&mut length, record);
    let mut json = String::with_capacity(length.0);
    put_data_row_record(&mut json, record);
    json
}

fn read_key_record(meta: KeyMeta, json: &[u8]) -> Result<EnvelopeKeyRecord, MalformedRecord> {
    let form: KeyForm<'_, Bytes<'_>> = parse(json)?;
    let created = form.created.ok_or_else(|| missing("Created"))?;
    if created != meta.created.unix_seconds() {
        return Err(MalformedRecord::new("Created is not the one the record is stored under"));
    }
    let wrapped_key = form.key.ok_or_else(|| missing("Key"))?.decode("Key")?;
    if wrapped_key.is_empty() {
        return Err(MalformedRecord::new("Key is empty"));
    }
    let parent = form.parent_key_meta.map(|parent| parent.0.read("ParentKeyMeta")).transpose()?;
    let revoked = form.revoked.unwrap_or(false);
    Ok(EnvelopeKeyRecord::new(meta, wrapped_key, parent).revoked(revoked))
}

fn read_data_row_record(json: &[u8]) -> Result<DataRowRecord, MalformedRecord> {
    parse::<RowForm<'_, Bytes<'_>>>(json)?.read()
}

/// What JSON is written to: once to learn its length, once in earnest.
trait Sink {
    /// Puts `text` as it is.
    fn verbatim(&mut self, text: &str);
    /// Puts the inside of a JSON string, escaped as serde_json does.
    fn escaped(&mut self, text: &str);
    fn integer(&mut self, value: i64);
    fn base64(&mut self, bytes: &[u8]);
}

fn put_key_record(json: &mut impl Sink, record: &EnvelopeKeyRecord) {
    json.verbatim(if record.revoked { r#"{"Revoked":true,"# } else { "{" });
    put_key(json, record.meta.created.unix_seconds(), &record.wrapped_key, record.parent.as_ref());
    json.verbatim("}");
}

fn put_data_row_record(json: &mut impl Sink, record: &DataRowRecord) {
    json.verbatim(r#"{"Key":{"#);
    put_key(json, record.created, &record.wrapped_key, Some(&record.parent));
    json.verbatim(r#"},"Data":""#);
    json.base64(&record.data);
    json.verbatim(r#""}"#);
}

fn put_key(json: &mut impl Sink, created: i64, wrapped_key: &[u8], parent: Option<&KeyMeta>) {
    json.verbatim(r#""Created":"#);
    json.integer(created);
    json.verbatim(r#","Key":""#);
    json.base64(wrapped_key);
    json.verbatim("\"");
    if let Some(parent) = parent {
        json.verbatim(r#","ParentKeyMeta":{"KeyId":""#);
        json.escaped(parent.id.as_str());
        json.verbatim(r#"","Created":"#);
        json.integer(parent.created.unix_seconds());
        json.verbatim("}");
    }
}

impl Sink for String {
    fn verbatim(&mut self, text: &str) {
        self.push_str(text);
    }

    fn escaped(&mut self, text: &str) {
        if text.bytes().all(|byte| escaped_len(byte) == 1) {
            return self.push_str(text);
        }
        for character in text.chars() {
            match character {
                '"' => self.push_str("\\\""),
                '\\' => self.push_str("\\\\"),
                '\u{8}' => self.push_str("\\b"),
                '\t' => self.push_str("\\t"),
                '\n' => self.push_str("\\n"),
                '\u{c}' => self.push_str("\\f"),
                '\r' => self.push_str("\\r"),
                '\0'..='\u{f}' | '\u{10}'..='\u{1f}' => {
                    self.push_str(if character < '\u{10}' { "\\u000" } else { "\\u001" });
                    self.extend(char::from_digit(u32::from(character) & 0xf, 16));
                }
                _ => self.push(character),
            }
        }
    }

    fn integer(&mut self, value: i64) {
        self.push_str(itoa::Buffer::new().format(value));
    }

    fn base64(&mut self, bytes: &[u8]) {
        STANDARD.encode_append(bytes, self);
    }
}

/// Counts bytes, so that the text is allocated once.
struct Length(usize);

impl Sink for Length {
    fn verbatim(&mut self, text: &str) {
        self.0 += text.len();
    }

    fn escaped(&mut self, text: &str) {
        self.0 += text.bytes().map(escaped_len).sum::<usize>();
    }

    fn integer(&mut self, value: i64) {
        let more_digits = value.unsigned_abs().checked_ilog10().unwrap_or(0);
        self.0 += usize::from(value < 0) + 1 + more_digits as usize;
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.0 += STANDARD.encoded_length(bytes.len());
    }
}

const fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// A key record as JSON has it. `B` is base64 text, here and below.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyForm<'a, B> {
    revoked: Option<bool>,
    created: Option<i64>,
    key: Option<B>,
    #[serde(borrow)]
    parent_key_meta: Option<Object<MetaForm<'a>>>,
}

/// A data row record as serde has it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RowForm<'a, B> {
    #[serde(borrow)]
    key: Option<Object<RowKeyForm<'a, B>>>,
    data: Option<B>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RowKeyForm<'a, B> {
    created: Option<i64>,
    key: Option<B>,
    #[serde(borrow)]
    parent_key_meta: Option<Object<MetaForm<'a>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetaForm<'a> {
    #[serde(borrow)]
    key_id: Option<Text<'a>>,
    created: Option<i64>,
}

impl<B: Base64> RowForm<'_, B> {
    fn read(self) -> Result<DataRowRecord, MalformedRecord> {
        let key = self.key.ok_or_else(|| missing("Key"))?.0;
        let created = key.created.ok_or_else(|| missing("Key.Created"))?;
        let wrapped_key = key.key.ok_or_else(|| missing("Key.Key"))?.decode_data_row_key("Key.Key")?;
        let parent = key.parent_key_meta.ok_or_else(|| missing("Key.ParentKeyMeta"))?;
        let parent = parent.0.read("Key.ParentKeyMeta")?;
        let data = self.data.ok_or_else(|| missing("Data"))?.decode("Data")?;
        DataRowRecord::checked(created, wrapped_key, parent, data)
    }
}

impl MetaForm<'_> {
    /// `field` is where in the record this stands.
    fn read(self, field: &str) -> Result<KeyMeta, MalformedRecord> {
        let id = self.key_id.ok_or_else(|| missing(&format!("{field}.KeyId")))?;
        if id.0.len() > KeyId::MAX_BYTES {
            return Err(MalformedRecord::new(format!("{field}.KeyId is over {} bytes", KeyId::MAX_BYTES)));
        }
        let created = self.created.ok_or_else(|| missing(&format!("{field}.Created")))?;
        let created = Created::new(created).ok_or_else(|| {
            MalformedRecord::new(format!("{field}.Created is not positive, or past the year 9999"))
        })?;
        Ok(KeyMeta { id: KeyId::new(id.0), created })
    }
}

/// Text, borrowed from the input where it holds no escape.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON string's bytes, not known to be UTF-8, which base64 need not be checked for: on long
/// data half the time of reading goes otherwise into that. Only serde_json reads text this way.
struct Bytes<'a>(Cow<'a, [u8]>);

trait Base64 {
    fn text(&self) -> &[u8];

    fn decode(&self, field: &str) -> Result<Vec<u8>, MalformedRecord> {
        let mut bytes = Vec::new();
        STANDARD.decode_append(self.text(), &mut bytes).map_err(|_where_unknown| not_base64(field))?;
        Ok(bytes)
    }

    fn decode_data_row_key(&self, field: &str) -> Result<[u8; WRAPPED_DATA_ROW_KEY_BYTES], MalformedRecord> {
        let text = self.text();
        let mut key = [0; WRAPPED_DATA_ROW_KEY_BYTES];
        let length = STANDARD.decoded_length(text).map_err(|_where_unknown| not_base64(field))?;
        if length != key.len() {
            return Err(MalformedRecord::new(format!("{field} is not of {} bytes", key.len())));
        }
        STANDARD.decode(text, key.as_mut_slice().as_out()).map_err(|_where_unknown| not_base64(field))?;
        Ok(key)
    }
}

impl Base64 for Text<'_> {
    fn text(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Base64 for Bytes<'_> {
    fn text(&self) -> &[u8] {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Bytes(Cow::Borrowed(bytes)))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Bytes(Cow::Owned(bytes.to_vec())))
    }
}

/// Named fields. serde's derived readers would take an array of the values too.
#[derive(Serialize)]
#[serde(transparent)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// serde's own messages quote what they did not expect, so they are not passed on.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, MalformedRecord> {
    serde_json::from_slice::<Object<T>>(json).map(|object| object.0).map_err(|error| {
        let fault = match error.classify() {
            Category::Eof => "JSON ends too early",
            Category::Data => "a field has the wrong type or stands twice",
            Category::Syntax | Category::Io => "not JSON",
        };
        MalformedRecord::new(format!("{fault}, at line {} column {}", error.line(), error.column()))
    })
}

fn missing(field: &str) -> MalformedRecord {
    MalformedRecord::new(format!("{field} is missing"))
}

fn not_base64(field: &str) -> MalformedRecord {
    MalformedRecord::new(format!("{field} is not padded standard base64"))
}

/// Writes the same fields as [`DataRowRecord::to_json`]; in binary formats, one byte string.
impl Serialize for DataRowRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            let bytes = binary::write(self).ok_or_else(|| S::Error::custom("the parent's id is too long"))?;
            return serializer.serialize_bytes(&bytes);
        }
        let base64 = |bytes: &[u8]| Some(Text(Cow::Owned(STANDARD.encode_to_string(bytes))));
        let parent = MetaForm {
            key_id: Some(Text(Cow::Borrowed(self.parent.id.as_str()))),
            created: Some(self.parent.created.unix_seconds()),
        };
        let key = RowKeyForm {
            created: Some(self.created),
            key: base64(&self.wrapped_key),
            parent_key_meta: Some(Object(parent)),
        };
        RowForm { key: Some(Object(key)), data: base64(&self.data) }.serialize(serializer)
    }
}

/// Reads what [`DataRowRecord::from_json`] does, and checks it alike; in binary formats, the byte string.
impl<'de> Deserialize<'de> for DataRowRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return deserializer.deserialize_bytes(RecordVisitor);
        }
        Object::<RowForm<'_, Text<'_>>>::deserialize(deserializer)?.0.read().map_err(D::Error::custom)
    }
}

pub(super) struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = DataRowRecord;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a data row record")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        binary::read(bytes).map_err(E::custom)
    }

    // Some formats keep bytes as a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}
