//! A whole payload and its record.

use std::io::Read;

use claviger::Error;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::open::Keys;
use crate::output::Output;
use crate::table::rows::Direction;

/// Encrypts or decrypts all of `input`. Nothing is written before all of it succeeded.
pub(crate) fn run(
    runtime: &Runtime,
    direction: Direction,
    keys: &Keys,
    partition: &str,
    input: Input,
    mut output: Output,
) -> Result<Exit, Failure> {
    let session = keys.factory.session(partition).map_err(|error| Failure::crypt(&error))?;
    let Input { mut reader, name, .. } = input;
    let explain = |error: Error| Failure::crypt(&keys.kms.explain(error)).at(&name);
    match direction {
        Direction::Encrypt => {
            let payload = Zeroizing::new(read(&mut *reader, &name, PAYLOAD_BYTES_MAX)?);
            let mut record = runtime.block_on(session.encrypt_json(&payload)).map_err(explain)?;
            record.push('\n');
            output.write(record.as_bytes())?;
        }
        Direction::Decrypt => {
            let record = read(&mut *reader, &name, RECORD_BYTES_MAX)?;
            let payload = runtime.block_on(session.decrypt_json(record.trim_ascii())).map_err(explain)?;
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

/// Base64 makes a third more of it.
const RECORD_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX / 2 * 3;
