//! A whole payload and its record.

use std::io::Read;

use claviger::Error;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::encoding::{behind_mark, is_utf16};
use crate::exit::{Exit, Failure};
use crate::explain;
use crate::input::Input;
use crate::open::Keys;
use crate::output::Output;
use crate::sealed::is_record;
use crate::table::rows::Direction;

/// Encrypts or decrypts all of `input`. Nothing is written before all of it succeeded. What is a
/// record already is encrypted only with `allow_sealed`.
pub(crate) fn run(
    runtime: &Runtime,
    direction: Direction,
    keys: &Keys,
    partition: &str,
    allow_sealed: bool,
    input: Input,
    mut output: Output,
) -> Result<Exit, Failure> {
    let session = keys.factory.session(partition).map_err(|error| explain::failure(&error))?;
    let Input { mut reader, name, .. } = input;
    let told = |error: Error| keys.kms.explain(&error).0.at(&name);
    match direction {
        Direction::Encrypt => {
            let payload = Zeroizing::new(read(&mut *reader, &name, PAYLOAD_BYTES_MAX)?);
            if !allow_sealed && is_record(&payload) {
                let why = "is a record already; decrypt it first, or say --allow-sealed to seal it once more";
                return Err(Failure::new(Exit::BadInput, format!("{name} {why}")));
            }
            let mut record = runtime.block_on(session.encrypt_json(&payload)).map_err(told)?;
            record.push('\n');
            output.write(record.as_bytes())?;
        }
        Direction::Decrypt => {
            let record = read(&mut *reader, &name, RECORD_BYTES_MAX)?;
            if is_utf16(&record) {
                let why = "is UTF-16; convert it to UTF-8, with iconv for instance";
                return Err(Failure::new(Exit::BadInput, format!("{name} {why}")));
            }
            let record = behind_mark(&record).trim_ascii();
            let payload = runtime.block_on(session.decrypt_json(record)).map_err(told)?;
            output.write(&payload)?;
        }
    }
    output.commit()?;
    Ok(Exit::Done)
}

fn read(reader: &mut dyn Read, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    reader.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| Failure::read(name, &error))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= bytes_max) {
        return Ok(bytes);
    }
    Err(Failure::new(Exit::BadInput, format!("{name} is over the limit of {bytes_max} bytes; split it")))
}

/// The library's limit, checked before more is read.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Base64 makes a third more of it, and the escapes of other programs some more.
const RECORD_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX / 2 * 3;

/// What is written can be read: beside its data a record holds a partition's name, and not much else.
const _: () = assert!(PAYLOAD_BYTES_MAX / 3 * 4 + (64 << 10) < RECORD_BYTES_MAX);
