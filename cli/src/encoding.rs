//! How a text begins: its byte order mark, and what tells UTF-16.

/// Returns what is behind the byte order mark that some programs put before UTF-8.
pub(crate) fn behind_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Tells UTF-16 by its mark, or by the zeros beside its first two characters. It is ASCII that
/// CSV, JSON Lines and records begin with, and none of them has zeros there.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=255, 0, 1..=255, 0, ..] | [0, 1..=255, 0, 1..=255, ..]
    )
}

pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_is_told_with_and_without_its_mark() {
        for text in ["id,mail", "{\"id\":1}", "\u{feff}id,mail", "\u{feff}é,x"] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(is_utf16(&little) && is_utf16(&big), "{text}");
            assert!(!is_utf16(text.as_bytes()), "{text}");
        }
        for other in [b"".as_slice(), b"i", b"i\0", b"\0\0\0\0", b"id\0\0", b"\xef\xbb\xbf"] {
            assert!(!is_utf16(other), "{other:?}");
        }
    }
}
