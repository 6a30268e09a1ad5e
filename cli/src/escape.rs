//! What a terminal obeys, or shows as something else than it is: names come from arguments, files and key
//! stores, which others may have written.

use std::fmt::Write as _;

/// Returns a text of several lines with all else escaped.
pub(crate) fn text(text: &str) -> String {
    escaped(text, |character| character != '\n' && steers(character))
}

/// Returns what is to be a part of one line, with its line feeds escaped, too: it must not begin a line that
/// passes for another message.
pub(crate) fn line(line: &str) -> String {
    escaped(line, steers)
}

/// Returns JSON that means the same.
pub(crate) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Such a character stands within a string: between its parts serde writes line feeds at most.
        if character != '\n' && steers(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Control characters, those that change the direction of text or end a line, and those that nobody sees.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[31m\u{9b}0m\r\u{7}é\nb\u{202e}c\u{2066}\u{200b}\u{e0041}";

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let rest = "b\\u{202e}c\\u{2066}\\u{200b}\\u{e0041}";
        assert_eq!(text(HOSTILE), format!("a\\u{{1b}}[31m\\u{{9b}}0m\\r\\u{{7}}é\n{rest}"));
        assert_eq!(line(HOSTILE), format!("a\\u{{1b}}[31m\\u{{9b}}0m\\r\\u{{7}}é\\n{rest}"));
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for written in ["Zoë", "Zoe\u{308}", "日本語", "שלום", "می\u{200c}خواهم", "👩\u{200d}💻", "a\\u{1b}"]
        {
            assert_eq!(line(written), written);
        }
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let written = json(&serde_json::to_string(HOSTILE).unwrap());
        assert!(!written.contains(steers), "{written:?}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), HOSTILE);
    }
}
