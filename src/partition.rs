//! How keys are named: the ids of system and intermediate keys, and which ids are ours.
//!
//! An id joins its parts with `_`, so `("a_b", "c", "d")` and `("a", "b_c", "d")` share one. That
//! is Asherah's format and stays; `strict_ids` refuses the parts that make it ambiguous.

use crate::error::Error;
use crate::record::KeyId;

/// A level of the tree of keys that the metastore keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    System,
    Intermediate,
}

impl Level {
    /// Returns where keys of this id are.
    pub(crate) fn of(id: &KeyId) -> Self {
        if is_system_key_id(id) { Self::System } else { Self::Intermediate }
    }

    /// Returns what logs and metrics call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Intermediate => "intermediate",
        }
    }
}

/// The names that all ids of a factory share.
#[derive(Debug)]
pub(crate) struct Naming {
    /// `service_product`, the tail of every core id.
    tail: Box<str>,
    suffix: Option<Box<str>>,
    readable: ReadableSuffixes,
    strict: bool,
}

/// Which region suffixes, besides its own, a factory reads records of.
///
/// Only a factory that has a suffix itself reads those of other regions, and records without one.
///
/// Where it is known which regions there are, name them: a record that somebody made up may name any, and with
/// [`Any`](Self::Any) each costs a call of the metastore, up to [`max_misses`](crate::Limits::max_misses) for
/// each partition and second.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadableSuffixes {
    /// Every suffix of the shape of a region's name, such as `us-west-2`.
    #[default]
    Any,
    /// These only.
    Only(Vec<String>),
}

/// Whose key id a record names as its parent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The id this session encrypts under.
    Own,
    /// The same partition in another region, or without one.
    OtherRegion,
    Foreign,
}

impl Naming {
    /// Checks the names and keeps them.
    pub(crate) fn new(
        service: &str,
        product: &str,
        suffix: Option<String>,
        readable: ReadableSuffixes,
        strict: bool,
    ) -> Result<Self, Error> {
        check_names(service, product, suffix.as_deref(), &readable, strict)?;
        let tail = format!("{service}_{product}").into_boxed_str();
        let naming = Self { tail, suffix: suffix.map(String::into_boxed_str), readable, strict };
        if naming.system_key_id().as_str().len() > KeyId::MAX_BYTES {
            return Err(Error::invalid_config(
                "service and product make a key id that no metastore can hold",
            ));
        }
        Ok(naming)
    }

    /// Returns the id of the system key that new intermediate keys are wrapped under.
    pub(crate) fn system_key_id(&self) -> KeyId {
        system_key_id(&self.tail, self.suffix.as_deref())
    }

    /// Returns the id of the intermediate key that this partition's new data is encrypted under.
    pub(crate) fn intermediate_key_id(&self, partition: &str) -> Result<String, Error> {
        check_part(partition).map_err(|why| Error::InvalidPartition { reason: why })?;
        if self.strict && partition.contains('_') {
            return Err(Error::InvalidPartition { reason: "contains `_`, which strict_ids refuses" });
        }
        let suffix_len = self.suffix.as_ref().map_or(0, |suffix| suffix.len() + 1);
        let len = "_IK_".len() + partition.len() + 1 + self.tail.len() + suffix_len;
        if len > KeyId::MAX_BYTES {
            return Err(Error::InvalidPartition { reason: "makes a key id that no metastore can hold" });
        }
        let mut id = String::with_capacity(len);
        id.push_str("_IK_");
        id.push_str(partition);
        id.push('_');
        id.push_str(&self.tail);
        Ok(with_suffix(id, self.suffix.as_deref()))
    }

    /// Tells whose `candidate` is, for the session whose own intermediate key id is `own`.
    pub(crate) fn owner(&self, own: &KeyId, candidate: &KeyId) -> Owner {
        if own == candidate {
            return Owner::Own;
        }
        let Some(core) = self.core_of(own.as_str()) else { return Owner::Foreign };
        match candidate.as_str().strip_prefix(core) {
            Some(rest) if self.is_readable_rest(rest) => Owner::OtherRegion,
            _ => Owner::Foreign,
        }
    }

    /// Returns `true` if `parent` is the system key id that belongs to the intermediate key `child`:
    /// this service and product's, with the same suffix as the child's own.
    pub(crate) fn is_parent_of(&self, child: &KeyId, parent: &KeyId) -> bool {
        let rest = parent.as_str().strip_prefix("_SK_").and_then(|parent| parent.strip_prefix(&*self.tail));
        let Some(rest) = rest.filter(|rest| self.is_readable_rest(rest)) else { return false };
        let child = child.as_str().strip_prefix("_IK_").and_then(|child| child.strip_suffix(rest));
        let partition =
            child.and_then(|core| core.strip_suffix(&*self.tail)).and_then(|head| head.strip_suffix('_'));
        partition.is_some_and(|partition| !partition.is_empty())
    }

    /// `rest` is what follows the core id: nothing, or `_` and a suffix that may be read.
    fn is_readable_rest(&self, rest: &str) -> bool {
        let Some(own) = &self.suffix else { return rest.is_empty() };
        let Some(suffix) = rest.strip_prefix('_') else { return rest.is_empty() };
        suffix == &**own
            || match &self.readable {
                ReadableSuffixes::Any => is_region_name(suffix),
                ReadableSuffixes::Only(list) => list.iter().any(|readable| readable == suffix),
            }
    }

    /// Returns the id without our suffix; `None` for a factory that has none, and so reads only
    /// its own ids.
    fn core_of<'a>(&self, own: &'a str) -> Option<&'a str> {
        let suffix = self.suffix.as_deref()?;
        own.strip_suffix(suffix)?.strip_suffix('_')
    }
}

impl KeyId {
    /// Returns the id of the system key of a service and product, in a region if there is a suffix.
    ///
    /// The names are not checked: [`SessionFactoryBuilder::build`](crate::SessionFactoryBuilder::build)
    /// does that, and what it refuses has no key.
    ///
    /// ```
    /// # use claviger::KeyId;
    /// let id = KeyId::of_system_key("checkout", "payments", Some("eu-west-1"));
    /// assert_eq!(id.as_str(), "_SK_checkout_payments_eu-west-1");
    /// ```
    #[must_use]
    pub fn of_system_key(service: &str, product: &str, region_suffix: Option<&str>) -> Self {
        system_key_id(&format!("{service}_{product}"), region_suffix)
    }

    /// Returns `true` if the id has the form of a system key's.
    #[must_use]
    pub fn is_of_system_key(&self) -> bool {
        is_system_key_id(self)
    }
}

/// Returns `true` if the id has the form of a system key's.
pub(crate) fn is_system_key_id(id: &KeyId) -> bool {
    id.as_str().starts_with("_SK_")
}

fn system_key_id(tail: &str, suffix: Option<&str>) -> KeyId {
    KeyId::new(with_suffix(format!("_SK_{tail}"), suffix))
}

fn with_suffix(mut id: String, suffix: Option<&str>) -> String {
    if let Some(suffix) = suffix {
        id.push('_');
        id.push_str(suffix);
    }
    id
}

/// The whole string has the shape `[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}`, as `eu-west-1`.
fn is_region_name(text: &str) -> bool {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let mut parts = text.split('-');
    let (Some(area), Some(number)) = (parts.next(), parts.next_back()) else { return false };
    let mut words = parts.peekable();
    words.peek().is_some()
        && words.all(is_word)
        && is_word(area)
        && (2..=4).contains(&area.len())
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_names(
    service: &str,
    product: &str,
    suffix: Option<&str>,
    readable: &ReadableSuffixes,
    strict: bool,
) -> Result<(), Error> {
    let mut names = vec![("service", service), ("product", product)];
    names.extend(suffix.map(|suffix| ("region suffix", suffix)));
    if let ReadableSuffixes::Only(list) = readable {
        names.extend(list.iter().map(|suffix| ("readable suffix", suffix.as_str())));
    }
    for (what, name) in &names {
        check_part(name).map_err(|why| Error::invalid_config(format!("{what} {why}")))?;
        if strict && name.contains('_') {
            return Err(Error::invalid_config(format!("{what} contains `_`, which strict_ids refuses")));
        }
    }
    if names.iter().any(|(_, name)| name.contains('_')) {
        tracing::warn!(service, product, suffix, "a name contains `_`: two partitions can share one key id");
    }
    Ok(())
}

/// How many characters a part of an id has at most: more fits no table.
const PART_CHARS_MAX: usize = 255;

/// A part of a new id: some text, no control characters, no white space at its ends.
fn check_part(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        Err("is empty")
    } else if part.trim() != part {
        Err("begins or ends with white space")
    } else if part.contains(char::is_control) {
        Err("contains a control character")
    } else if part.chars().nth(PART_CHARS_MAX).is_some() {
        Err("has over 255 characters")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
