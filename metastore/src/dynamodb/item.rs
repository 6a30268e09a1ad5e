//! Items as Asherah writes them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use claviger::backend::is_reserved_id;
use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

use crate::dynamodb::fault::DynamoDbFault;

pub(super) type Item = HashMap<String, AttributeValue>;

/// The hash key: the key's id.
pub(super) const ID: &str = "Id";
/// The range key, in Unix seconds.
pub(super) const CREATED: &str = "Created";
/// The map that holds the rest.
pub(super) const KEY_RECORD: &str = "KeyRecord";
/// Asherah's Go, Java, C# and Rust all write it as base64 text, never as binary.
pub(super) const WRAPPED_KEY: &str = "Key";
pub(super) const REVOKED: &str = "Revoked";
pub(super) const PARENT: &str = "ParentKeyMeta";
const PARENT_ID: &str = "KeyId";

/// How many bytes a hash key may have.
const ID_BYTES_MAX: usize = 2_048;

/// How many bytes of base64 a wrapped key may have, as in the other stores: no more is read or written. An
/// item with its ids is then far below the 400 KiB that DynamoDB takes.
const WRAPPED_KEY_BYTES_MAX: usize = EnvelopeKeyRecord::MAX_JSON_BYTES;

/// Checks that the table can hold the id.
pub(super) fn check_id(id: &KeyId) -> Result<(), DynamoDbFault> {
    let text = id.as_str();
    match text.len() {
        0 => return Err(DynamoDbFault::IdEmpty),
        1..=ID_BYTES_MAX => {}
        bytes => return Err(DynamoDbFault::IdTooLong { bytes }),
    }
    if text.contains('\0') {
        return Err(DynamoDbFault::IdHasNul);
    }
    if is_reserved_id(text) {
        return Err(DynamoDbFault::IdReserved(id.clone()));
    }
    Ok(())
}

/// Checks that the wrapped key is not over the limit, and returns it as it is stored.
pub(super) fn encode_key(wrapped_key: &[u8]) -> Result<String, DynamoDbFault> {
    if wrapped_key.is_empty() {
        return Err(DynamoDbFault::WrappedKeyEmpty);
    }
    let bytes = base64_simd::STANDARD.encoded_length(wrapped_key.len());
    if bytes > WRAPPED_KEY_BYTES_MAX {
        return Err(DynamoDbFault::WrappedKeyTooLong { bytes });
    }
    Ok(base64_simd::STANDARD.encode_to_string(wrapped_key))
}

/// Makes the item of a record.
pub(super) fn write(record: &EnvelopeKeyRecord) -> Result<Item, DynamoDbFault> {
    let meta = record.meta();
    check_id(meta.id())?;
    let mut fields = HashMap::from([
        (WRAPPED_KEY.to_owned(), AttributeValue::S(encode_key(record.wrapped_key())?)),
        (CREATED.to_owned(), number(meta.created())),
    ]);
    if record.is_revoked() {
        fields.insert(REVOKED.to_owned(), AttributeValue::Bool(true));
    }
    if let Some(parent) = record.parent() {
        fields.insert(PARENT.to_owned(), self::parent(parent));
    }
    let mut item = key(meta);
    item.insert(KEY_RECORD.to_owned(), AttributeValue::M(fields));
    Ok(item)
}

/// Makes the field that names a record's parent.
pub(super) fn parent(parent: &KeyMeta) -> AttributeValue {
    AttributeValue::M(HashMap::from([
        (PARENT_ID.to_owned(), text(parent.id())),
        (CREATED.to_owned(), number(parent.created())),
    ]))
}

/// Makes the primary key of a key version.
pub(super) fn key(meta: &KeyMeta) -> Item {
    HashMap::from([(ID.to_owned(), text(meta.id())), (CREATED.to_owned(), number(meta.created()))])
}

pub(super) fn text(id: &KeyId) -> AttributeValue {
    AttributeValue::S(id.as_str().to_owned())
}

pub(super) fn number(created: Created) -> AttributeValue {
    AttributeValue::N(created.unix_seconds().to_string())
}

/// Reads the id of an item; the table's key schema makes it text.
pub(super) fn read_id(item: &Item) -> KeyId {
    KeyId::new(item.get(ID).and_then(|value| value.as_s().ok()).map_or("", String::as_str))
}

/// Reads which key version an item is of.
pub(super) fn read_meta(item: &Item) -> Result<KeyMeta, DynamoDbFault> {
    let id = read_id(item);
    let created = item.get(CREATED).and_then(read_created);
    let created = created.ok_or_else(|| DynamoDbFault::CreatedUnreadable(id.clone()))?;
    Ok(KeyMeta::new(id, created))
}

/// Makes a record of an item. Attributes that are not known are ignored.
pub(super) fn read(item: &Item) -> Result<EnvelopeKeyRecord, DynamoDbFault> {
    let meta = read_meta(item)?;
    read_record(&meta, item).map_err(|reason| DynamoDbFault::ItemMalformed { key: meta, reason })
}

fn read_record(meta: &KeyMeta, item: &Item) -> Result<EnvelopeKeyRecord, &'static str> {
    let Some(AttributeValue::M(fields)) = item.get(KEY_RECORD) else {
        return Err("KeyRecord is no map");
    };
    let Some(AttributeValue::S(wrapped_key)) = fields.get(WRAPPED_KEY) else {
        return Err("Key is no text");
    };
    if wrapped_key.len() > WRAPPED_KEY_BYTES_MAX {
        return Err("Key is over the limit of 64 KiB");
    }
    // The decoder takes the one canonical text of the bytes and no other, so that a condition on the
    // text is a condition on the bytes.
    let wrapped_key = base64_simd::STANDARD
        .decode_to_vec(wrapped_key)
        .ok()
        .filter(|bytes| !bytes.is_empty())
        .ok_or("Key is no base64")?;
    if fields.get(CREATED).and_then(read_created) != Some(meta.created()) {
        return Err("Created inside KeyRecord is missing or another one");
    }
    let revoked = match fields.get(REVOKED) {
        None | Some(AttributeValue::Null(_)) => false,
        Some(AttributeValue::Bool(revoked)) => *revoked,
        Some(_) => return Err("Revoked is neither true nor false"),
    };
    let parent = match fields.get(PARENT) {
        None | Some(AttributeValue::Null(_)) => None,
        Some(AttributeValue::M(fields)) => Some(read_parent(fields).ok_or("ParentKeyMeta names no key")?),
        Some(_) => return Err("ParentKeyMeta is no map"),
    };
    Ok(EnvelopeKeyRecord::new(meta.clone(), wrapped_key, parent).revoked(revoked))
}

fn read_parent(fields: &Item) -> Option<KeyMeta> {
    let id = fields.get(PARENT_ID)?.as_s().ok()?;
    Some(KeyMeta::new(KeyId::new(id.as_str()), fields.get(CREATED).and_then(read_created)?))
}

fn read_created(value: &AttributeValue) -> Option<Created> {
    Created::new(value.as_n().ok()?.parse().ok()?)
}

/// Returns the first time not before an item's `Created`, whatever number that is; the last one for what is
/// past it.
pub(super) fn ceil_created(item: &Item) -> Created {
    let number = item.get(CREATED).and_then(|value| value.as_n().ok());
    let number: f64 = number.and_then(|number| number.parse().ok()).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "what is out of range becomes the nearest end of it")]
    Created::new((number.ceil() as i64).min(Created::MAX.unix_seconds())).unwrap_or(Created::MIN)
}
