//! How a text begins: its byte order mark, and what tells UTF-16.

pub(crate) use claviger_open::private::{BYTE_ORDER_MARK, is_utf16};

/// Returns what is behind the byte order mark that some programs put before UTF-8.
pub(crate) fn behind_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}
