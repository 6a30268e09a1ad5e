//! Names of columns and fields, as the option lists them.

use memchr::memchr;

use super::{RowFault, csv, tail};

/// Splits what `--fields` was given: at commas, but for those in a name that stands in quotes.
pub(super) fn split(option: &str) -> Result<Vec<String>, RowFault> {
    let mut names = Vec::new();
    let mut rest = Some(option);
    while let Some(text) = rest {
        // A comma is looked for behind the closing quote.
        let quoted = csv::quoted_len(text.as_bytes());
        let comma = memchr(b',', tail(text.as_bytes(), quoted)).map(|comma| quoted + comma);
        let (name, after) = text.split_at_checked(comma.unwrap_or(text.len())).unwrap_or((text, ""));
        names.push(csv::value(name)?.into_owned());
        rest = after.strip_prefix(',');
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_commas_outside_quotes() {
        for (option, names) in [
            ("a", &["a"][..]),
            ("email,card number", &["email", "card number"]),
            ("\"Name (Last, First)\",email", &["Name (Last, First)", "email"]),
            ("email,\"Name (Last, First)\"", &["email", "Name (Last, First)"]),
            ("\"say \"\"hi\"\", he\"", &["say \"hi\", he"]),
            ("in\"side,two\nlines", &["in\"side", "two\nlines"]),
            ("\"\"", &[""]),
            ("", &[""]),
            ("a,", &["a", ""]),
            (",a", &["", "a"]),
            ("é,\"ö,\"", &["é", "ö,"]),
        ] {
            assert_eq!(split(option).unwrap(), names, "{option}");
        }
        for option in ["\"a", "a,\"b", "\"a\"b", "\"a\" ,b"] {
            assert_eq!(split(option), Err(RowFault::Quotes), "{option}");
        }
    }
}
