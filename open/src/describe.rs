//! Reads descriptions by serde.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::SpecError;
use crate::fields::read::{Placed, Places, Plain};
use crate::fields::{Fields, TextOrTable};
use crate::kms::{self, KmsSpec};
use crate::store::{self, StoreSpec};

/// A table of a TOML file that describes a master key, and knows where in the file its fields are.
///
/// It is for programs with a configuration file of their own, in whose deserializing it is taken out of the map
/// ([`from_map`](Self::from_map)); [`read`](Self::read) tells what is wrong with its place.
#[derive(Clone, Debug)]
pub struct KmsTable(Fields);

impl KmsTable {
    /// Reads it.
    ///
    /// # Errors
    /// As for [`KmsSpec::from_text`], with the place ([`SpecError::at`]).
    pub fn read(self) -> Result<KmsSpec, SpecError> {
        KmsSpec::from_fields(self.0)
    }

    /// Takes it out of a map of `toml`'s deserializer.
    ///
    /// # Errors
    /// As the map's are.
    pub fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Fields::from_map::<Placed, A>(map).map(Self)
    }
}

/// What a text or table is read to.
pub(crate) trait Described: Sized {
    const WHAT: &'static str;

    fn read(given: TextOrTable) -> Result<Self, SpecError>;
}

impl Described for KmsSpec {
    const WHAT: &'static str = "a master key: a text or a table";

    fn read(given: TextOrTable) -> Result<Self, SpecError> {
        Self::from_text_or_table(given, kms::NAME)
    }
}

impl Described for StoreSpec {
    const WHAT: &'static str = "a metastore: a text or a table";

    fn read(given: TextOrTable) -> Result<Self, SpecError> {
        Self::from_text_or_table(given, store::NAME)
    }
}

pub(crate) fn deserialize<'de, T: Described, P: Places, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    read::<T, P, D>(deserializer)?.map_err(D::Error::custom)
}

/// The same, with the error as it is.
pub(crate) fn read<'de, T: Described, P: Places, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Result<T, SpecError>, D::Error> {
    deserializer.deserialize_any(Given::<T, P>(PhantomData))
}

/// A table that is a document of JSON.
pub(crate) fn of_json(text: &str) -> Result<Fields, SpecError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = fields::<Plain, _>(&mut json).and_then(|fields| json.end().map(|()| fields));
    // The error's own text may quote what was found.
    read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        SpecError::wrong(&format!("is no JSON object (line {line}, column {column}); correct it"))
    })
}

/// A table alone.
pub(crate) fn fields<'de, P: Places, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
    struct Table<P>(PhantomData<P>);

    impl<'de, P: Places> Visitor<'de> for Table<P> {
        type Value = Fields;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fields, A::Error> {
            Fields::from_map::<P, A>(map)
        }
    }

    deserializer.deserialize_any(Table::<P>(PhantomData))
}

struct Given<T, P>(PhantomData<(T, P)>);

impl<'de, T: Described, P: Places> Visitor<'de> for Given<T, P> {
    type Value = Result<T, SpecError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::read(TextOrTable::Text(None, text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Fields::from_map::<P, A>(map).map(|fields| T::read(TextOrTable::Table(fields)))
    }
}

impl<'de> Deserialize<'de> for KmsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize::<Self, Plain, D>(deserializer)
    }
}

impl<'de> Deserialize<'de> for StoreSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize::<Self, Plain, D>(deserializer)
    }
}
