//! A description as named values. A text and a table come to the same, so that one piece of code reads
//! both and says what is wrong in the same words.

pub(crate) mod read;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::SpecError;
use crate::nearest::nearest;

/// Named values, taken one by one; what is left in the end is not known.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    named: Vec<Field>,
    /// Where in its file, if that is known.
    at: Option<usize>,
    asked: Vec<&'static str>,
}

#[derive(Clone)]
struct Field {
    name: String,
    /// Its name where it was written, for messages.
    called: String,
    at: Option<usize>,
    value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// Of a text, in which everything is text and may be said several times.
    Words(Vec<String>),
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<(Option<usize>, Self)>),
    Table(Fields),
    /// What no field takes, such as a fraction.
    Other,
    /// As if it were not there.
    Null,
}

/// What stands in place of a whole description.
pub(crate) enum TextOrTable {
    Text(Option<usize>, String),
    Table(Fields),
}

impl TextOrTable {
    /// Reads either. What is wrong with a text is told with its place.
    pub(crate) fn read<T>(
        self,
        text: impl FnOnce(&str) -> Result<T, SpecError>,
        table: impl FnOnce(Fields) -> Result<T, SpecError>,
    ) -> Result<T, SpecError> {
        match self {
            Self::Text(at, said) => text(&said).map_err(|error| error.or_at(at)),
            Self::Table(fields) => table(fields),
        }
    }
}

impl Fields {
    /// Adds a value of a text.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let found = self.named.iter_mut().find(|field| field.name == name).map(|field| &mut field.value);
        if let Some(Value::Words(words)) = found {
            words.push(value.to_owned());
        } else {
            self.push(name, Value::Words(vec![value.to_owned()]));
        }
    }

    /// Adds a value of a variable, which messages name.
    pub(crate) fn add_called(&mut self, name: &str, called: &str, value: &str) {
        let value = Value::Words(vec![value.to_owned()]);
        self.named.push(Field { name: name.to_owned(), called: called.to_owned(), at: None, value });
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.named.iter().any(|field| field.name == name)
    }

    /// Adds tables of a text.
    pub(crate) fn add_tables(&mut self, name: &str, tables: Vec<(String, Self)>) {
        let mut all = Self::default();
        for (name, table) in tables {
            all.push(&name, Value::Table(table));
        }
        self.push(name, Value::Table(all));
    }

    fn push(&mut self, name: &str, value: Value) {
        self.named.push(Field { name: name.to_owned(), called: name.to_owned(), at: None, value });
    }

    /// Gives the fields their names in `names`, whose spellings other programs vary; what is none of them keeps
    /// its own.
    pub(crate) fn respell(
        &mut self,
        names: &[&'static str],
        is_spelling: impl Fn(&str, &str) -> bool,
    ) -> Result<(), SpecError> {
        let mut found: Vec<&'static str> = Vec::new();
        for field in &mut self.named {
            let Some(name) = names.iter().find(|name| is_spelling(&field.name, name)) else { continue };
            if found.contains(name) {
                return Err(SpecError::wrong_at(field.at, &format!("says {name} twice; say it once")));
            }
            found.push(name);
            (*name).clone_into(&mut field.name);
        }
        self.asked.extend(names);
        Ok(())
    }

    /// What a field is called where it was written.
    pub(crate) fn called(&self, name: &str) -> String {
        let field = self.named.iter().find(|field| field.name == name);
        field.map_or(name, |field| &field.called).to_owned()
    }

    /// The names that nobody took yet.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|field| field.name.as_str())
    }

    /// The text of a field that is one, which stays.
    pub(crate) fn word(&self, name: &str) -> Option<String> {
        let field = self.named.iter().find(|field| field.name == name)?;
        match &field.value {
            Value::Text(text) => Some(text.clone()),
            value => value.word().map(str::to_owned),
        }
    }

    /// The text of a field whose name is nobody's choice but the writer's.
    pub(crate) fn any_text(&self, name: &str) -> Result<String, SpecError> {
        let lacks = || SpecError::wrong_at(self.at, &format!("{name} is not a text; correct it"));
        self.word(name).ok_or_else(lacks)
    }

    /// Takes what has no effect.
    pub(crate) fn drop(&mut self, name: &'static str) {
        drop(self.take(name));
    }

    fn take(&mut self, name: &'static str) -> Option<Field> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let place = self.named.iter().position(|field| field.name == name)?;
        Some(self.named.remove(place))
    }

    pub(crate) fn wrong(&self, message: &str) -> SpecError {
        SpecError::wrong_at(self.at, message)
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, SpecError> {
        self.take(name).map(Field::text).transpose()
    }

    /// `advice` says what to say when it is missing.
    pub(crate) fn need(&mut self, name: &'static str, advice: &str) -> Result<String, SpecError> {
        self.text(name)?.ok_or_else(|| self.wrong(&format!("lacks its {name}; {advice}")))
    }

    /// One text or several.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, SpecError> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        match field.value {
            Value::Words(words) => Ok(words),
            Value::List(list) => {
                let (name, called) = (field.name, field.called);
                let text =
                    |(at, value)| Field { name: name.clone(), called: called.clone(), at, value }.text();
                list.into_iter().map(text).collect()
            }
            _ => Ok(vec![field.text()?]),
        }
    }

    pub(crate) fn number<N: TryFrom<i64>>(&mut self, name: &'static str) -> Result<Option<N>, SpecError> {
        self.parsed(name, "a number that fits", |value| N::try_from(value.number()?).ok())
    }

    /// How many there are of something, of which there is one at least.
    pub(crate) fn count(&mut self, name: &'static str) -> Result<Option<NonZeroU32>, SpecError> {
        self.parsed(name, "a number from 1 on", |value| NonZeroU32::new(value.number()?.try_into().ok()?))
    }

    pub(crate) fn truth(&mut self, name: &'static str) -> Result<Option<bool>, SpecError> {
        self.parsed(name, "true or false", |value| match value {
            Value::Truth(truth) => Some(*truth),
            other => other.word()?.parse().ok(),
        })
    }

    /// A time as people write it: `300ms`, `90d`.
    pub(crate) fn time(&mut self, name: &'static str) -> Result<Option<Duration>, SpecError> {
        self.parsed(name, "a time such as 300ms or 2s", |value| match value {
            Value::Text(text) => humantime::parse_duration(text).ok(),
            other => humantime::parse_duration(other.word()?).ok(),
        })
    }

    /// What `parse` makes of it; `what` says what it must be.
    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        what: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        let Some(field) = self.take(name) else { return Ok(None) };
        parse(&field.value).map(Some).ok_or_else(|| field.is_not(what))
    }

    /// A table of tables. A text in place of a table is its field `short`.
    pub(crate) fn tables(
        &mut self,
        name: &'static str,
        short: &'static str,
    ) -> Result<Vec<(String, Self)>, SpecError> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        let Value::Table(table) = field.value else { return Err(field.is_not("a table")) };
        let named = table.named.into_iter().map(|inner| {
            let at = inner.at;
            let table = match inner.value {
                Value::Table(table) => Self { at, ..table },
                value @ Value::Text(_) => {
                    let field = Field { name: short.to_owned(), called: short.to_owned(), at, value };
                    Self { named: vec![field], at, asked: Vec::new() }
                }
                _ => return Err(inner.is_not("a text or a table")),
            };
            Ok((inner.name, table))
        });
        named.collect()
    }

    /// A list of tables.
    pub(crate) fn list(&mut self, name: &'static str) -> Result<Vec<Self>, SpecError> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        let Value::List(list) = field.value else { return Err(field.is_not("a list of tables")) };
        let table = |(at, value)| match value {
            Value::Table(table) => Ok(Self { at, ..table }),
            _ => Err(SpecError::wrong_at(at, &format!("{name} is not a list of tables; correct it"))),
        };
        list.into_iter().map(table).collect()
    }

    /// A text or a table.
    pub(crate) fn text_or_table(
        &mut self,
        name: &'static str,
        advice: &str,
    ) -> Result<TextOrTable, SpecError> {
        let found = self.maybe_text_or_table(name)?;
        found.ok_or_else(|| self.wrong(&format!("lacks its {name}; {advice}")))
    }

    pub(crate) fn maybe_text_or_table(
        &mut self,
        name: &'static str,
    ) -> Result<Option<TextOrTable>, SpecError> {
        match self.take(name) {
            None => Ok(None),
            Some(Field { at, value: Value::Text(text), .. }) => Ok(Some(TextOrTable::Text(at, text))),
            Some(Field { at, value: Value::Table(table), .. }) => {
                Ok(Some(TextOrTable::Table(Self { at, ..table })))
            }
            Some(field) => match field.value.word() {
                Some(word) => Ok(Some(TextOrTable::Text(field.at, word.to_owned()))),
                None => Err(field.is_not("a text or a table")),
            },
        }
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(mut self) -> Result<(), SpecError> {
        let Some(unknown) = self.named.first() else { return Ok(()) };
        self.asked.sort_unstable();
        let known = self.asked.join(", ");
        let meant = nearest(&unknown.called, &self.asked);
        let meant = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        // What is in a text may be a piece of a secret that was not escaped.
        let message = match unknown.value {
            Value::Words(_) => format!("has a parameter that is not known; there are {known}{meant}"),
            _ => format!("unknown field `{}`; there are {known}{meant}", unknown.called),
        };
        Err(SpecError::wrong_at(unknown.at, &message))
    }
}

impl Value {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            other => other.word()?.parse().ok(),
        }
    }

    /// A word that was said once.
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Words(words) if words.len() == 1 => words.first().map(String::as_str),
            _ => None,
        }
    }
}

impl Field {
    fn text(self) -> Result<String, SpecError> {
        match self.value {
            Value::Text(text) => Ok(text),
            ref value => value.word().map(str::to_owned).ok_or_else(|| self.is_not("a text")),
        }
    }

    fn is_not(&self, what: &str) -> SpecError {
        match &self.value {
            Value::Words(words) if words.len() > 1 => twice(&self.called),
            _ => SpecError::wrong_at(self.at, &format!("{} is not {what}; correct it", self.called)),
        }
    }
}

pub(crate) fn twice(name: &str) -> SpecError {
    SpecError::wrong(&format!("says {name} twice; say it once"))
}

impl fmt::Debug for Fields {
    /// There may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}
