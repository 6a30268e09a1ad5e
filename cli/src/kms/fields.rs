//! A master key's description as named values. The text of `--kms` and the table of the
//! configuration file come to the same, so that one piece of code reads both and says what is wrong
//! in the same words.

use std::fmt;
use std::time::Duration;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::exit::{Exit, Failure};

/// Named values, taken one by one; what is left in the end is not known.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    named: Vec<Field>,
    /// Where in the configuration file, if there.
    at: Option<usize>,
    asked: Vec<&'static str>,
}

#[derive(Clone)]
struct Field {
    name: String,
    at: Option<usize>,
    value: Value,
}

#[derive(Clone)]
enum Value {
    /// Of a text, in which everything is text and may be said several times.
    Words(Vec<String>),
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<(usize, Self)>),
    Table(Fields),
}

/// What is wrong, and where in the configuration file.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) at: Option<usize>,
    failure: Failure,
}

impl Wrong {
    pub(super) fn new(at: Option<usize>, message: &str) -> Self {
        Self { at, failure: Failure::new(Exit::Config, message) }
    }

    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }

    /// Gives it a place, unless it has one.
    pub(super) fn or_at(self, at: Option<usize>) -> Self {
        Self { at: self.at.or(at), ..self }
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self { at: None, failure }
    }
}

impl Fields {
    /// Adds a value of a text.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if let Some(Value::Words(words)) = self.find(name) {
            words.push(value.to_owned());
        } else {
            self.push(name, Value::Words(vec![value.to_owned()]));
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.named.iter().any(|field| field.name == name)
    }

    /// Adds tables of a text.
    pub(super) fn add_tables(&mut self, name: &str, tables: Vec<(String, Self)>) {
        let field = |(name, table)| Field { name, at: None, value: Value::Table(table) };
        let named = tables.into_iter().map(field).collect();
        self.push(name, Value::Table(Self { named, ..Self::default() }));
    }

    fn push(&mut self, name: &str, value: Value) {
        self.named.push(Field { name: name.to_owned(), at: None, value });
    }

    fn find(&mut self, name: &str) -> Option<&mut Value> {
        self.named.iter_mut().find(|field| field.name == name).map(|field| &mut field.value)
    }

    fn take(&mut self, name: &'static str) -> Option<Field> {
        self.asked.push(name);
        let place = self.named.iter().position(|field| field.name == name)?;
        Some(self.named.remove(place))
    }

    pub(super) fn wrong(&self, message: &str) -> Wrong {
        Wrong::new(self.at, message)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        self.take(name).map(Field::text).transpose()
    }

    /// `advice` says what to say when it is missing.
    pub(super) fn need(&mut self, name: &'static str, advice: &str) -> Result<String, Wrong> {
        self.text(name)?.ok_or_else(|| self.wrong(&format!("lacks its {name}; {advice}")))
    }

    /// One text or several.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Wrong> {
        let Some(Field { name, at, value }) = self.take(name) else { return Ok(Vec::new()) };
        match value {
            Value::Words(words) => Ok(words),
            Value::List(list) => {
                let text = |(at, value)| Field { name: name.clone(), at: Some(at), value }.text();
                list.into_iter().map(text).collect()
            }
            value => Ok(vec![Field { name, at, value }.text()?]),
        }
    }

    pub(super) fn number<N: TryFrom<i64>>(&mut self, name: &'static str) -> Result<Option<N>, Wrong> {
        self.parsed(name, "a number that fits", |value| {
            let number = match value {
                Value::Number(number) => *number,
                other => other.word()?.parse().ok()?,
            };
            N::try_from(number).ok()
        })
    }

    pub(super) fn truth(&mut self, name: &'static str) -> Result<Option<bool>, Wrong> {
        self.parsed(name, "true or false", |value| match value {
            Value::Truth(truth) => Some(*truth),
            other => other.word()?.parse().ok(),
        })
    }

    pub(super) fn time(&mut self, name: &'static str) -> Result<Option<Duration>, Wrong> {
        self.parsed(name, "a time such as 300ms or 2s", |value| match value {
            Value::Text(text) => duration(text),
            other => duration(other.word()?),
        })
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        what: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Wrong> {
        let Some(field) = self.take(name) else { return Ok(None) };
        parse(&field.value).map(Some).ok_or_else(|| field.is_not(what))
    }

    /// A table of tables. A text in place of a table is its field `short`.
    pub(super) fn tables(
        &mut self,
        name: &'static str,
        short: &'static str,
    ) -> Result<Vec<(String, Self)>, Wrong> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        let Value::Table(table) = field.value else { return Err(field.is_not("a table")) };
        let named = table.named.into_iter().map(|inner| {
            let at = inner.at;
            let table = match inner.value {
                Value::Table(table) => Self { at, ..table },
                value @ Value::Text(_) => {
                    Self { named: vec![Field { name: short.to_owned(), at, value }], at, asked: Vec::new() }
                }
                _ => return Err(inner.is_not("a text or a table")),
            };
            Ok((inner.name, table))
        });
        named.collect()
    }

    /// A list of tables.
    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<Self>, Wrong> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        let Value::List(list) = field.value else { return Err(field.is_not("a list of tables")) };
        let table = |(at, value)| match value {
            Value::Table(table) => Ok(Self { at: Some(at), ..table }),
            _ => Err(Wrong::new(Some(at), &format!("{name} is not a list of tables; correct it"))),
        };
        list.into_iter().map(table).collect()
    }

    /// A text or a table.
    pub(super) fn text_or_table(&mut self, name: &'static str, advice: &str) -> Result<TextOrTable, Wrong> {
        match self.take(name) {
            None => Err(self.wrong(&format!("lacks its {name}; {advice}"))),
            Some(Field { at, value: Value::Text(text), .. }) => Ok(TextOrTable::Text(at, text)),
            Some(Field { at, value: Value::Table(table), .. }) => {
                Ok(TextOrTable::Table(Self { at, ..table }))
            }
            Some(field) => Err(field.is_not("a text or a table")),
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(mut self) -> Result<(), Wrong> {
        let Some(unknown) = self.named.first() else { return Ok(()) };
        self.asked.sort_unstable();
        let known = self.asked.join(", ");
        // What is in a text may be a piece of a secret that was not escaped.
        let message = match unknown.at {
            Some(_) => format!("unknown field `{}`; there are {known}", unknown.name),
            None => format!("has a parameter that is not known; there are {known}"),
        };
        Err(Wrong::new(unknown.at, &message))
    }
}

/// What stands in place of a whole description.
pub(super) enum TextOrTable {
    Text(Option<usize>, String),
    Table(Fields),
}

impl Value {
    /// A word that was said once.
    fn word(&self) -> Option<&str> {
        match self {
            Self::Words(words) if words.len() == 1 => words.first().map(String::as_str),
            _ => None,
        }
    }
}

impl Field {
    fn text(self) -> Result<String, Wrong> {
        match self.value {
            Value::Text(text) => Ok(text),
            ref value => value.word().map(str::to_owned).ok_or_else(|| self.is_not("a text")),
        }
    }

    fn is_not(&self, what: &str) -> Wrong {
        match &self.value {
            Value::Words(words) if words.len() > 1 => twice(&self.name),
            _ => Wrong::new(self.at, &format!("{} is not {what}; correct it", self.name)),
        }
    }
}

pub(super) fn twice(name: &str) -> Wrong {
    Wrong::new(None, &format!("says {name} twice; say it once"))
}

/// Reads whole milliseconds or seconds.
fn duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

impl fmt::Debug for Fields {
    /// There may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}

impl Fields {
    /// Takes them out of a map of the configuration file, in the order written.
    pub(super) fn from_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut fields = Self::default();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            let (at, value) = (name.span().start, map.next_value()?);
            fields.at = Some(fields.at.map_or(at, |first| first.min(at)));
            fields.named.push(Field { name: name.into_inner(), at: Some(at), value });
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a whole number, true, false, a list or a table")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
                Ok(Value::Truth(truth))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element::<Spanned<Value>>()? {
                    list.push((item.span().start, item.into_inner()));
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                Fields::from_map(map).map(Value::Table)
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}
