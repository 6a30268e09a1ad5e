//! The line of text that a master-key file holds.
//!
//! Everything that touches key bytes here is free of branches and tables that depend on them, as
//! `base16ct` is, and works in buffers that are wiped.

use base16ct::lower;
use claviger::SecretKey;
use zeroize::Zeroizing;

/// How long the file is: the magic, 64 digits, a blank, 8 digits and a newline.
pub(super) const LINE_BYTES: usize = MAGIC.len() + KEY_DIGITS + 1 + SUM_DIGITS + 1;

const MAGIC: &[u8] = b"claviger-master-key-v1 ";
const KEY_DIGITS: usize = 64;
const SUM_DIGITS: usize = 8;

/// Writes the line that keeps `key`.
pub(super) fn encode(key: &SecretKey) -> Zeroizing<Vec<u8>> {
    // The capacity is exact: growing would leave a copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES));
    line.extend_from_slice(MAGIC);
    let mut digits = Zeroizing::new([0; KEY_DIGITS]);
    // Always: there are two digits for each byte.
    if let Ok(digits) = lower::encode(key.expose_secret(), &mut *digits) {
        line.extend_from_slice(digits);
    }
    let sum = crc32(&line);
    line.extend_from_slice(format!(" {sum:08x}\n").as_bytes());
    line
}

/// Reads what [`encode`] wrote; `None` for anything else, were it one byte or one blank.
pub(super) fn decode(text: &[u8]) -> Option<SecretKey> {
    decode_line(text.strip_suffix(b"\n")?)
}

fn decode_line(line: &[u8]) -> Option<SecretKey> {
    let (summed, sum) = line.split_at_checked(MAGIC.len() + KEY_DIGITS)?;
    let digits = summed.strip_prefix(MAGIC)?;
    let mut stored = [0; SUM_DIGITS / 2];
    if *lower::decode(sum.strip_prefix(b" ")?, &mut stored).ok()? != crc32(summed).to_be_bytes() {
        return None;
    }
    SecretKey::try_init(|key| lower::decode(digits, key).map(drop)).ok()
}

/// Says what a text is that [`decode`] does not read.
pub(super) fn fault(text: &[u8]) -> &'static str {
    let line = text.trim_ascii();
    let is_hex = line.len() == KEY_DIGITS && line.iter().all(u8::is_ascii_hexdigit);
    match text {
        _ if line.is_empty() => "it is empty",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => {
            "it is in UTF-16, as some editors and shells write, and not in ASCII"
        }
        [0xef, 0xbb, 0xbf, ..] => "it begins with a byte order mark",
        _ if is_hex => "it is a static key, of 64 hex digits",
        _ if decode_line(line).is_some() => "its line does not end with one line feed alone",
        _ => "it is damaged, or something else",
    }
}

/// The sum is against accidents only. A cryptographic hash would protect no more, for who can
/// write the file can write the sum, and would keep a copy of the key in its unwiped state.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8; LINE_BYTES] =
        b"claviger-master-key-v1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1cfdfeff e4e54fc8\n";

    fn key() -> SecretKey {
        let bytes = (0..=0x1c).chain(0xfd..=0xff);
        SecretKey::try_init(|key| {
            key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            Ok::<_, ()>(())
        })
        .unwrap()
    }

    #[test]
    fn line_is_the_documented_text() {
        assert_eq!(*encode(&key()), LINE);
        assert_eq!(decode(LINE).unwrap().expose_secret(), key().expose_secret());
    }

    #[test]
    fn encoding_never_grows_its_buffer() {
        let line = encode(&key());
        assert_eq!((line.len(), line.capacity()), (LINE_BYTES, LINE_BYTES));
    }

    #[test]
    fn crc_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn lower_case_digits_are_read_and_nothing_else_though_the_sum_is_right() {
        for byte in 0..=u8::MAX {
            let mut line = LINE[..MAGIC.len() + KEY_DIGITS].to_vec();
            *line.last_mut().unwrap() = byte;
            let sum = crc32(&line);
            line.extend_from_slice(format!(" {sum:08x}\n").as_bytes());
            let expected = char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
            let last = decode(&line).map(|key| u32::from(key.expose_secret()[31] & 0x0f));
            assert_eq!(last, expected, "byte {byte}");
        }
    }

    #[test]
    fn what_is_in_place_of_the_line_is_told() {
        let digits = &LINE[MAGIC.len()..MAGIC.len() + KEY_DIGITS];
        let utf16: Vec<u8> = LINE.iter().flat_map(|&byte| [byte, 0]).collect();
        for (text, told) in [
            (b" \n".to_vec(), "empty"),
            (utf16.clone(), "UTF-16"),
            ([b"\xff\xfe", &*utf16].concat(), "UTF-16"),
            ([b"\xef\xbb\xbf", &LINE[..]].concat(), "byte order mark"),
            (digits.to_vec(), "static key"),
            ([&LINE[..LINE_BYTES - 1], b"\r\n"].concat(), "line feed alone"),
            (LINE[..LINE_BYTES - 1].to_vec(), "line feed alone"),
            (LINE[..LINE_BYTES - 2].to_vec(), "damaged"),
            (vec![0xa5; 32], "damaged"),
        ] {
            assert!(decode(&text).is_none());
            assert!(fault(&text).contains(told), "{}", fault(&text));
        }
    }

    #[test]
    fn every_changed_bit_is_found() {
        for bit in 0..8 * LINE_BYTES {
            let mut line = *LINE;
            line[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&line).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn cut_and_prolonged_lines_are_refused() {
        for length in 0..LINE_BYTES {
            assert!(decode(&LINE[..length]).is_none(), "{length} bytes");
        }
        for more in [&b"\n"[..], b" ", b"\r\n", b"\0"] {
            assert!(decode(&[LINE, more].concat()).is_none());
        }
    }
}
