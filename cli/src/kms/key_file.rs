//! The file of a static master key.

use std::path::Path;

use base16ct::mixed;
use claviger::SecretKey;

use crate::exit::{Exit, Failure};
use crate::private;

/// Reads 64 hex digits. What else is in the file is told by its kind, and not repeated.
pub(super) fn read(path: &Path) -> Result<SecretKey, Failure> {
    let bytes = private::read(path, "the master key", FILE_BYTES_MAX, "change the key")?;
    decode(&bytes).map_err(|why| {
        let shown = path.display();
        Failure::new(Exit::Config, format!("the master key {shown} is not 64 hex digits: it {why}"))
    })
}

fn decode(bytes: &[u8]) -> Result<SecretKey, String> {
    if bytes.len() == KEY_BYTES && !bytes.is_ascii() {
        return Err("is a raw key of 32 bytes; write it as xxd -p -c 64 does".to_owned());
    }
    let text = private::line(bytes)?;
    SecretKey::try_init(|key| match mixed::decode(text, key) {
        Ok(decoded) if decoded.len() == KEY_BYTES => Ok(()),
        _ => Err(fault(text)),
    })
}

/// Says what a text is that is no key.
fn fault(text: &str) -> String {
    let is_base64 = |letter: u8| letter.is_ascii_alphanumeric() || b"+/-_=".contains(&letter);
    let is_quoted = |quote: char| text.starts_with(quote) && text.ends_with(quote);
    let told = match text {
        _ if text.starts_with(LOCAL) => "is a master key that claviger made; say local:PATH",
        _ if is_quoted('"') || is_quoted('\'') => "stands in quotes; leave them out",
        _ if text.starts_with("0x") || text.starts_with("0X") => "begins with 0x; leave it out",
        _ if text.bytes().all(|letter| letter.is_ascii_hexdigit()) => {
            return format!("has {} of them; write all 64", text.len());
        }
        _ if text.len() == KEY_BYTES => "is a text of 32 characters; write it as xxd -p -c 64 does",
        _ if matches!(text.len(), 43 | 44) && text.bytes().all(is_base64) => {
            "looks like Base64; write the bytes that it stands for as xxd -p -c 64 does"
        }
        _ => "has other characters; write it anew, such as by openssl rand -hex 32",
    };
    told.to_owned()
}

const KEY_BYTES: usize = 32;

/// What a file that `local:` names begins with.
const LOCAL: &str = "claviger-master-key-";

/// The digits and some white space, also in UTF-16.
const FILE_BYTES_MAX: usize = 256;
