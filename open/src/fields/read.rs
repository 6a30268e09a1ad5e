//! Reads named values by serde: of any format, or of TOML with their places.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{Field, Fields, Value};

/// How a format says where something stands in its text.
pub(crate) trait Places: Sized {
    fn name<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<(Option<usize>, String)>, A::Error>;

    fn item<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<Option<(Option<usize>, Value)>, A::Error>;
}

/// Of a format that does not say.
#[derive(Debug)]
pub(crate) struct Plain;

/// Of TOML, as `toml` reads it.
#[derive(Debug)]
pub(crate) struct Placed;

impl Places for Plain {
    fn name<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<(Option<usize>, String)>, A::Error> {
        Ok(map.next_key::<String>()?.map(|name| (None, name)))
    }

    fn item<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<Option<(Option<usize>, Value)>, A::Error> {
        Ok(items.next_element::<Read<Self>>()?.map(|item| (None, item.0)))
    }
}

impl Places for Placed {
    fn name<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<(Option<usize>, String)>, A::Error> {
        let name = map.next_key::<Spanned<String>>()?;
        Ok(name.map(|name| (Some(name.span().start), name.into_inner())))
    }

    fn item<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<Option<(Option<usize>, Value)>, A::Error> {
        let item = items.next_element::<Spanned<Read<Self>>>()?;
        Ok(item.map(|item| (Some(item.span().start), item.into_inner().0)))
    }
}

impl Fields {
    /// Takes them out of a map, in the order written. What is null is not given.
    pub(crate) fn from_map<'de, P: Places, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut fields = Self::default();
        while let Some((at, name)) = P::name(&mut map)? {
            let Read(value, _) = map.next_value::<Read<P>>()?;
            if let Some(at) = at {
                fields.at = Some(fields.at.map_or(at, |first| first.min(at)));
            }
            if !matches!(value, Value::Null) {
                fields.named.push(Field { called: name.clone(), name, at, value });
            }
        }
        Ok(fields)
    }
}

/// A value, read from a format with such places.
struct Read<P>(Value, PhantomData<P>);

impl<'de, P: Places> Deserialize<'de> for Read<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue::<P>(PhantomData)).map(|value| Self(value, PhantomData))
    }
}

struct AnyValue<P>(PhantomData<P>);

impl<'de, P: Places> Visitor<'de> for AnyValue<P> {
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

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_f64<E>(self, _fraction: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = P::item(&mut items)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Fields::from_map::<P, A>(map).map(Value::Table)
    }
}
