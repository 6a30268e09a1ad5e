//! What may stand behind `sqlite:`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// Where SQLite would keep the keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf),
    /// Nowhere, once its last connection is closed.
    Memory,
}

/// Reads a path, or as `//PATH` a URL's, in which a percent sign escapes. What SQLite or its other users
/// take for a database in memory is none of a file's names here.
pub(super) fn parse(text: &str) -> Result<Place, &'static str> {
    let (text, is_url) = match text.strip_prefix("//") {
        Some(path) => (path, true),
        None => (text, false),
    };
    let (name, query) = match text.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (text, None),
    };
    let path = match is_url {
        true => percent_decode_str(name).decode_utf8().map_err(|_invalid| NO_TEXT)?,
        false => name.into(),
    };
    let uri = path.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("file:"));
    let name = path.get(uri.map_or(0, str::len)..).unwrap_or_default();
    let mut parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if name == ":memory:" || parameters.any(|(name, value)| name == "mode" && value == "memory") {
        return Ok(Place::Memory);
    }
    if query.is_some() {
        return Err(NO_PARAMETERS);
    }
    if name.trim().is_empty() {
        return Err(NO_PATH);
    }
    if uri.is_some() {
        return Err(NO_URI);
    }
    Ok(Place::File(path.into_owned().into()))
}

const NO_PATH: &str = "sqlite: lacks its path; say sqlite:PATH";

const NO_TEXT: &str = "sqlite: has a path whose escapes are no text; say sqlite:PATH";

const NO_PARAMETERS: &str = "sqlite: takes no parameters; leave out what is behind the ?, or where it is part of the file's name say \
     sqlite://PATH with %3F for it";

const NO_URI: &str = "sqlite: takes a path and not a URI of SQLite's; leave out file:, or where the file is called so say \
     sqlite:./file:…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_url_name_a_file() {
        for (text, file) in [
            ("keys.db", "keys.db"),
            ("/var/lib/keys.db", "/var/lib/keys.db"),
            ("//keys.db", "keys.db"),
            ("//keys/a.db", "keys/a.db"),
            ("///var/lib/keys.db", "/var/lib/keys.db"),
            ("//what%3F%20100%25.db", "what? 100%.db"),
            ("100%25.db", "100%25.db"),
            ("./:memory:", "./:memory:"),
            ("./file:keys.db", "./file:keys.db"),
            ("/:memory:", "/:memory:"),
        ] {
            assert_eq!(parse(text), Ok(Place::File(file.into())), "{text}");
        }
    }

    #[test]
    fn what_would_be_in_memory_is_known_by_every_name() {
        for text in [
            ":memory:",
            "//:memory:",
            "//%3Amemory%3A",
            ":memory:?cache=shared",
            "file::memory:",
            "file::memory:?cache=shared",
            "FILE::memory:",
            "keys.db?mode=memory",
            "//keys.db?cache=shared&mode=memory",
            "//?mode=memory",
            "?mode=memory",
            "?%6Dode=memory",
            "file:keys.db?mode=memory&cache=private",
        ] {
            assert_eq!(parse(text), Ok(Place::Memory), "{text}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for (text, why) in [
            ("", NO_PATH),
            (" ", NO_PATH),
            ("//", NO_PATH),
            ("// \t", NO_PATH),
            ("//%20", NO_PATH),
            ("file:", NO_PATH),
            ("keys.db?", NO_PARAMETERS),
            ("keys.db?mode=rwc", NO_PARAMETERS),
            ("//keys.db?mode=ro", NO_PARAMETERS),
            ("?", NO_PARAMETERS),
            ("file:keys.db", NO_URI),
            ("file:///keys.db", NO_URI),
            ("//a%ff.db", NO_TEXT),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
