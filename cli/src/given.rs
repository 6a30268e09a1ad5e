//! The text of an option that may hold a secret, and where it was given: a secret may stand in some
//! places and not in others.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use clap::builder::{StringValueParser, TypedValueParser, ValueParserFactory};
use clap::parser::ValueSource;
use claviger_open::private::read_description;
use serde::{Deserialize, Deserializer};

use crate::exit::{Exit, Failure};
use crate::explain;

/// The text of an option, its variable or its entry in the configuration file.
#[derive(Clone)]
pub(crate) struct Given {
    text: String,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    CommandLine,
    Variable,
    Config,
}

/// An option that may hold a secret.
pub(crate) struct Guarded {
    pub(crate) flag: &'static str,
    /// What its file holds, as in "the key store's URL".
    pub(crate) content: &'static str,
    /// What to change when others may have seen it, as in "the password".
    pub(crate) secret: &'static str,
    pub(crate) has_secret: fn(&str) -> bool,
    /// Why a secret is not taken from the command line, and from where it is.
    pub(crate) refusal: &'static str,
}

impl Given {
    pub(crate) const fn in_config(text: String) -> Self {
        Self { text, place: Place::Config }
    }

    /// Returns the text, read from the file if it is `@FILE`.
    pub(crate) fn reveal(self, option: &Guarded) -> Result<String, Failure> {
        if let Some(file) = self.text.strip_prefix('@') {
            return option.read_file(file);
        }
        if self.place == Place::CommandLine && (option.has_secret)(&self.text) {
            return Err(option.refuse());
        }
        Ok(self.text)
    }

    /// Returns the file that holds it, if it is `@FILE`.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.after("@").map(Path::new)
    }

    /// Returns what is behind a word that the text begins with.
    pub(crate) fn after(&self, word: &str) -> Option<&str> {
        self.text.strip_prefix(word)
    }

    pub(crate) fn has_secret(&self, option: &Guarded) -> bool {
        (option.has_secret)(&self.text)
    }
}

impl Guarded {
    /// Refuses a command line with a secret for this option in some argument, before anything
    /// repeats it.
    pub(crate) fn check_arguments(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<(), Failure> {
        let is_secret = |argument: &str| {
            // In `--metastore=URL` the URL begins behind the sign.
            let value = argument.split_once('=').filter(|(name, _)| name.starts_with('-'));
            (self.has_secret)(value.map_or(argument, |(_, value)| value))
        };
        let mut arguments = arguments.into_iter();
        if arguments.any(|argument| is_secret(&argument.as_ref().to_string_lossy())) {
            return Err(self.refuse());
        }
        Ok(())
    }

    fn refuse(&self) -> Failure {
        Failure::new(Exit::Config, self.refusal)
    }

    fn read_file(&self, file: &str) -> Result<String, Failure> {
        let if_seen = format!("change {}", self.secret);
        read_description(file, self.flag, self.content, &if_seen).map_err(explain::kms::spec)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::in_config)
    }
}

/// Lets clap tell a flag from a variable.
#[derive(Clone, Debug)]
pub(crate) struct GivenParser<T>(PhantomData<T>);

impl<T: From<Given> + Clone + Send + Sync + 'static> GivenParser<T> {
    pub(crate) const NEW: Self = Self(PhantomData);
}

impl<T: From<Given> + Clone + Send + Sync + 'static> TypedValueParser for GivenParser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        // Whoever does not say where it is from gets the strictest rule.
        self.parse_ref_(command, argument, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<T, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        let is_variable = source == ValueSource::EnvVariable;
        let place = if is_variable { Place::Variable } else { Place::CommandLine };
        Ok(Given { text, place }.into())
    }
}

impl ValueParserFactory for Given {
    type Parser = GivenParser<Self>;

    fn value_parser() -> GivenParser<Self> {
        GivenParser::NEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTION: Guarded = Guarded {
        flag: "--it",
        content: "it",
        secret: "it",
        has_secret: |text| text.contains("SECRET"),
        refusal: "no secret here",
    };

    #[test]
    fn who_does_not_say_where_a_text_is_from_gets_the_strictest_rule() {
        let command = clap::Command::new("test");
        let parse = |source| {
            let parser = GivenParser::<Given>::NEW;
            match source {
                None => parser.parse_ref(&command, None, OsStr::new("SECRET")),
                Some(source) => parser.parse_ref_(&command, None, OsStr::new("SECRET"), source),
            }
        };
        assert!(parse(None).unwrap().reveal(&OPTION).is_err());
        assert!(parse(Some(ValueSource::CommandLine)).unwrap().reveal(&OPTION).is_err());
        assert_eq!(parse(Some(ValueSource::EnvVariable)).unwrap().reveal(&OPTION).unwrap(), "SECRET");
    }

    #[test]
    fn no_debug_shows_the_text() {
        let given = Given::in_config("SECRET".to_owned());
        assert_eq!(format!("{given:?}"), "Given { place: Config, .. }");
    }
}
