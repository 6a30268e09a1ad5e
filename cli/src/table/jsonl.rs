//! JSON Lines: an object on each line.
//!
//! A named field is sealed by its JSON text, so that its type and the way it was written come
//! back: `1.0`, `1e400` and `"\u00e9"` stay what they are. The record takes the value's place.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::rows::Direction;
use super::{Cell, Found, Layout, RowError, RowFault};
use crate::sealed::is_json_record;

/// Which fields are named.
#[derive(Debug)]
pub(crate) struct JsonLayout {
    partition_field: String,
    fields: Vec<String>,
    direction: Direction,
}

impl JsonLayout {
    pub(crate) fn new(partition_field: &str, fields: &[String], direction: Direction) -> Self {
        Self { partition_field: partition_field.to_owned(), fields: fields.to_vec(), direction }
    }

    /// Parses a line and returns the texts of the named values.
    fn parse<'a>(&self, line: &'a str) -> Result<Values<'a>, RowError> {
        // serde_json's own message can quote the line, so only its column is told.
        let not_an_object = |error: serde_json::Error| RowError::NotAnObject { column: error.column() };
        let mut reader = serde_json::Deserializer::from_str(line);
        let values = reader.deserialize_map(NamedValues(self)).map_err(not_an_object)?;
        reader.end().map_err(not_an_object)?;
        Ok(values)
    }

    /// The partition is what a text says, or a number as it is written.
    fn partition_id<'a>(&self, value: &'a str) -> Result<Cow<'a, str>, RowFault> {
        match value.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<String>(value) {
                Ok(text) if text.is_empty() => Err(RowFault::EmptyPartition),
                Ok(text) => Ok(Cow::Owned(text)),
                // Half of a surrogate pair: JSON lets it be written, but it is no text.
                Err(_) => Err(RowFault::NoPartition),
            },
            // It would be sealed for `1.0` and looked for under `1` once another program wrote the line.
            Some(b'-' | b'0'..=b'9') if self.direction == Direction::Encrypt && !is_stable(value) => {
                Err(RowFault::Respelled)
            }
            Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(value)),
            _ => Err(RowFault::NoPartition),
        }
    }

    fn name(&self, name: Name) -> &str {
        match name {
            Name::Partition => &self.partition_field,
            Name::Field(field) => self.field_name(field),
            Name::Other => "",
        }
    }
}

impl Layout for JsonLayout {
    const TOO_LONG: &'static str = "is each object on a line of its own?";

    fn row_len(bytes: &[u8], at_end: bool) -> Option<usize> {
        memchr(b'\n', bytes).map(|end| end + 1).or_else(|| at_end.then_some(bytes.len()))
    }

    fn lines(row: &[u8]) -> u64 {
        u64::from(row.ends_with(b"\n"))
    }

    fn find<'a>(&self, row: &'a str) -> Result<Option<Found<'a>>, RowError> {
        // Files with marks that were put together have them inside, too.
        let line = row.strip_prefix('\u{feff}').unwrap_or(row).trim_end_matches(['\r', '\n']);
        if line.trim().is_empty() {
            return Ok(None);
        }
        let values = self.parse(line)?;
        let name = |name| self.name(name).to_owned();
        if let Some(twice) = values.twice {
            return Err(RowError::Twice(name(twice)));
        }
        let partition = values.partition.ok_or_else(|| RowError::Missing(name(Name::Partition)))?;
        let mut cells = Vec::with_capacity(values.fields.len());
        for (field, value) in values.fields.into_iter().enumerate() {
            let value = value.ok_or_else(|| RowError::Missing(name(Name::Field(field))))?;
            // The text is a part of the row: how far it is from the row's beginning is its place.
            let start = value.as_ptr().addr().saturating_sub(row.as_ptr().addr());
            cells.push(Cell { field, span: start..start + value.len() });
        }
        cells.sort_unstable_by_key(|cell| cell.span.start);
        let partition = self.partition_id(partition).map_err(RowError::Partition)?;
        Ok(Some(Found { partition, cells }))
    }

    fn value<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault> {
        Ok(Cow::Borrowed(cell))
    }

    fn is_record(&self, value: &str) -> bool {
        is_json_record(value)
    }

    fn seal(&self, _cell: &str, record: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(record.as_bytes());
    }

    fn record<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault> {
        Ok(Cow::Borrowed(cell))
    }

    fn restore(&self, _record: &str, value: &str, out: &mut Vec<u8>) -> Result<(), RowFault> {
        // Another program may have sealed anything at all, and it must not break the line.
        if value.contains('\n') || serde_json::from_str::<&RawValue>(value).is_err() {
            return Err(RowFault::ValueNotJson);
        }
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn field_name(&self, field: usize) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

/// Tells whether programs that read numbers as IEEE doubles, as most do, write this one as it is.
fn is_stable(number: &str) -> bool {
    let Ok(value) = number.parse::<f64>() else { return false };
    let is_plain = value == 0.0 || (1e-4..=9_007_199_254_740_992.0).contains(&value.abs());
    is_plain && number != "-0" && value.to_string() == number
}

/// The texts of the named values of a line.
struct Values<'a> {
    partition: Option<&'a str>,
    fields: Vec<Option<&'a str>>,
    twice: Option<Name>,
}

#[derive(Clone, Copy)]
enum Name {
    Partition,
    Field(usize),
    Other,
}

struct NamedValues<'l>(&'l JsonLayout);

impl<'de> Visitor<'de> for NamedValues<'_> {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values<'de>, A::Error> {
        let mut values = Values { partition: None, fields: vec![None; self.0.fields.len()], twice: None };
        while let Some(name) = map.next_key_seed(NameOf(self.0))? {
            let place = match name {
                Name::Partition => Some(&mut values.partition),
                Name::Field(field) => values.fields.get_mut(field),
                Name::Other => None,
            };
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.replace(map.next_value::<&RawValue>()?.get()).is_some() {
                values.twice = Some(name);
            }
        }
        Ok(values)
    }
}

/// Reads a key and tells which one it is. Escapes in it are undone first.
struct NameOf<'l>(&'l JsonLayout);

impl<'de> DeserializeSeed<'de> for NameOf<'_> {
    type Value = Name;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        // As bytes, since half a surrogate pair in a name is no text, and no fault if nobody asks for it.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameOf<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Name, E> {
        if key == self.0.partition_field.as_bytes() {
            return Ok(Name::Partition);
        }
        let field = self.0.fields.iter().position(|field| field.as_bytes() == key);
        Ok(field.map_or(Name::Other, Name::Field))
    }
}

#[cfg(test)]
mod tests;
