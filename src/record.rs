//! The records that are stored: wrapped keys in the metastore, sealed data with the user.
//!
//! The formats are those of Asherah, byte for byte; reading them takes what any of its
//! implementations has written.

mod binary;
mod data_row;
mod envelope_key;
mod id;
mod json;

pub(crate) use data_row::WRAPPED_DATA_ROW_KEY_BYTES;
pub use data_row::{DataRowRecord, RecordFormat};
pub use envelope_key::EnvelopeKeyRecord;
pub use id::{Created, KeyId, KeyMeta, MalformedRecord};

#[cfg(test)]
mod tests;
