//! What was given as the key store, and where: a password may stand in some places and not in
//! others.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use clap::builder::{StringValueParser, TypedValueParser, ValueParserFactory};
use clap::parser::ValueSource;
use serde::{Deserialize, Deserializer};

use crate::exit::{Exit, Failure};
use crate::private;
use crate::store::url;

/// The text of `--metastore`, its variable or its entry in the configuration file.
#[derive(Clone)]
pub(crate) struct StoreText {
    text: String,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    CommandLine,
    Variable,
    Config,
}

impl StoreText {
    /// Returns what names the store, read from the file if the text is `@FILE`.
    pub(super) fn reveal(self) -> Result<String, Failure> {
        if let Some(file) = self.text.strip_prefix('@') {
            return read_file(file);
        }
        if self.from == From::CommandLine && url::has_password(&self.text) {
            return Err(password_on_command_line());
        }
        Ok(self.text)
    }

    pub(crate) fn has_password(&self) -> bool {
        url::has_password(&self.text)
    }
}

/// Says why a password is not taken from the command line, and from where it is.
pub(crate) fn password_on_command_line() -> Failure {
    Failure::new(
        Exit::Config,
        "a password on the command line can be seen by every user of the machine, in the process list; give the URL \
         with its password in the variable CLAVIGER_METASTORE, as metastore in the configuration file, or in a file \
         of its own with --metastore @FILE; or give it without one, and the password to the driver (PostgreSQL: \
         PGPASSWORD or ~/.pgpass; DynamoDB: where AWS's tools look; MySQL has no such place)",
    )
}

/// Tells whether some argument is a URL with a password, before anything repeats it.
pub(crate) fn is_password_among(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> bool {
    arguments.into_iter().any(|argument| {
        let argument = argument.as_ref().to_string_lossy();
        // In `--metastore=URL` the URL begins behind the sign.
        let value = argument.split_once('=').filter(|(name, _)| name.starts_with('-'));
        url::has_password(value.map_or(&*argument, |(_, value)| value))
    })
}

fn read_file(file: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Err(Failure::new(Exit::Config, format!("--metastore @{file}: {why}")));
    if file.is_empty() {
        return wrong("lacks its file; say @FILE");
    }
    let bytes =
        private::read(Path::new(file), "the file of --metastore", FILE_BYTES_MAX, "change the password")?;
    let Ok(text) = std::str::from_utf8(bytes.trim_ascii()) else {
        return wrong("the file is not UTF-8 text; write it anew");
    };
    match text {
        "" => wrong("the file is empty; write the key store's URL into it"),
        text if text.starts_with('@') => wrong("the file names a file; write the key store's URL into it"),
        text if text.contains(char::is_control) => {
            wrong("the file has more than one line; write the key store's URL into it and nothing else")
        }
        text => Ok(text.to_owned()),
    }
}

/// A URL and some white space.
const FILE_BYTES_MAX: usize = 8 << 10;

impl fmt::Debug for StoreText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreText").field("from", &self.from).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for StoreText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: String::deserialize(deserializer)?, from: From::Config })
    }
}

/// Lets clap tell a flag from a variable.
#[derive(Clone, Debug)]
pub(crate) struct StoreTextParser;

impl TypedValueParser for StoreTextParser {
    type Value = StoreText;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<StoreText, clap::Error> {
        // Whoever does not say where it is from gets the strictest rule.
        self.parse_ref_(command, argument, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<StoreText, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        let from = if source == ValueSource::EnvVariable { From::Variable } else { From::CommandLine };
        Ok(StoreText { text, from })
    }
}

impl ValueParserFactory for StoreText {
    type Parser = StoreTextParser;

    fn value_parser() -> StoreTextParser {
        StoreTextParser
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Options;
    use crate::store::StoreChoice;

    #[test]
    fn no_debug_shows_a_password() {
        let options: Options = toml::from_str("metastore = \"postgres://user:SECRET@host/keys\"").unwrap();
        let mut shown = format!("{options:?}");
        let choice = StoreChoice::resolve(options.metastore, false).unwrap();
        shown += &format!("{choice:?} {choice}");
        assert!(shown.contains("Config") && shown.contains("user@host"), "{shown}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }

    #[test]
    fn who_does_not_say_where_a_text_is_from_gets_the_strictest_rule() {
        let command = clap::Command::new("test");
        let given = StoreTextParser.parse_ref(&command, None, OsStr::new("postgres://user:pw@host/keys"));
        assert!(given.unwrap().reveal().is_err());
    }
}
