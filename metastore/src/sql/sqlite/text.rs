//! The SQL.
//!
//! As macros, so that the store's documentation can show the very text that is sent.

/// A row's `created` in Unix seconds; NULL if it is no form that a known writer uses.
///
/// Ours is text, `YYYY-MM-DD HH:MM:SS`. Others write a `T`, a fraction, a `Z` or an offset, or
/// numbers: seconds, or milliseconds, which are past the year 9999 if taken for seconds. A text that is
/// longer than any of these is not looked at.
macro_rules! created_seconds {
    () => {
        "CASE typeof(created)\n\
           WHEN 'text' THEN iif(octet_length(created) <= 64, unixepoch(created), NULL)\n\
           WHEN 'integer' THEN iif(created > 253402300799, created / 1000, created)\n\
           WHEN 'real' THEN CAST(created AS INTEGER) END"
    };
}

/// The rows of the id `?1`, byte by byte: a table made by others may fold case.
macro_rules! of_id {
    () => {
        "id = ?1 COLLATE BINARY"
    };
}

/// The JSON of a row, which some writers store as a blob. NULL if it is longer than a record may be: the
/// length stands before the text, which is not read then.
macro_rules! json {
    () => {
        "CASE WHEN key_record IS NULL THEN x'' WHEN octet_length(key_record) <= 65536\n\
           THEN CAST(key_record AS BLOB) END"
    };
}

/// A row's own id, or the beginning of one that is longer than an id of any store.
macro_rules! row_id {
    () => {
        "CAST(CASE WHEN octet_length(id) <= 2048 THEN id ELSE substr(id, 1, 2049) END AS BLOB)"
    };
}

/// Reads the rows of the id `?1`, to be narrowed further: `created` as `seconds`, and the JSON.
macro_rules! rows_of_id {
    () => {
        concat!(
            "SELECT ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " FROM encryption_key WHERE ",
            of_id!()
        )
    };
}

/// What is a key: no note that Asherah keeps beside the keys, and nothing under an id that is no
/// text, by which no key is looked for.
macro_rules! is_key {
    () => {
        "typeof(id) = 'text' AND id NOT GLOB '__asherah_internal_*'"
    };
}

pub(super) const CREATE_TABLE: &str = include_str!("../../../migrations/sqlite/0001_encryption_key.sql");

/// First our own form, by the primary key; only if that misses, the id's rows in other forms, an
/// unreadable one last, since it could be the one looked for.
macro_rules! load {
    () => {
        concat!(
            rows_of_id!(),
            " AND created = datetime(?2, 'unixepoch')\n\
             UNION ALL\n\
             SELECT * FROM (",
            rows_of_id!(),
            " AND created <> datetime(?2, 'unixepoch') AND (seconds = ?2 OR seconds IS NULL)\n\
             ORDER BY seconds DESC LIMIT 1)\n\
             LIMIT 1"
        )
    };
}

/// A row with its own id, its time and its record.
macro_rules! row_with_id {
    () => {
        concat!(
            "SELECT ",
            row_id!(),
            ", ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " FROM encryption_key"
        )
    };
}

/// What the table takes for the version of the id `?1` and the time `?2`, with the row's own id.
macro_rules! load_folded {
    () => {
        concat!(row_with_id!(), " WHERE id = ?1 AND seconds = ?2 LIMIT 1")
    };
}

/// The rows of each second that is not past `?2`, as `version`. One whose time cannot be read stays, since it
/// could be any. Materialized: else the record would be sorted as it is, and not as it is bounded.
macro_rules! versions {
    ($what:literal, $rows:literal) => {
        concat!(
            "WITH version AS MATERIALIZED (SELECT ",
            $what,
            "created, ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " AS record\n\
             FROM ",
            $rows,
            "\n\
             AND (seconds <= ?2 OR seconds IS NULL))"
        )
    };
}

/// Of several forms of one second ours, which `max` picks the row by. An unreadable row comes first, since it
/// could be the latest.
macro_rules! load_latest {
    () => {
        concat!(
            versions!("", "encryption_key WHERE id = ?1 COLLATE BINARY"),
            "\n\
             SELECT seconds, record FROM (\n\
             SELECT seconds, record, max(created = datetime(seconds, 'unixepoch')) FROM version GROUP BY seconds)\n\
             ORDER BY seconds DESC NULLS FIRST LIMIT 2"
        )
    };
}

/// The rows in our own form of the versions in `?1`, a JSON array of `[id, seconds]`.
macro_rules! load_many {
    () => {
        concat!(
            "SELECT asked.key, ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " FROM json_each(?1) AS asked CROSS JOIN encryption_key\n\
             WHERE encryption_key.id = (asked.value ->> 0) COLLATE BINARY\n\
             AND created = datetime(asked.value ->> 1, 'unixepoch')"
        )
    };
}

/// Their rows in other forms, and unreadable ones, which come before those that can be read.
macro_rules! load_many_other_forms {
    () => {
        concat!(
            "SELECT asked.key, ",
            created_seconds!(),
            " AS seconds, ",
            json!(),
            " FROM json_each(?1) AS asked CROSS JOIN encryption_key\n\
             WHERE encryption_key.id = (asked.value ->> 0) COLLATE BINARY\n\
             AND (seconds = asked.value ->> 1 OR seconds IS NULL)\n\
             ORDER BY asked.key, seconds"
        )
    };
}

/// The latest two rows of each id in `?1`, a JSON array, by the rules of `load_latest`.
macro_rules! load_latest_many {
    () => {
        concat!(
            versions!(
                "key, ",
                "json_each(?1) AS asked CROSS JOIN encryption_key\n\
                 WHERE encryption_key.id = asked.value COLLATE BINARY"
            ),
            "\n\
             SELECT key, seconds, record FROM (\n\
             SELECT *, row_number() OVER (PARTITION BY key ORDER BY seconds DESC NULLS FIRST) AS place FROM (\n\
             SELECT key, seconds, record, max(created = datetime(seconds, 'unixepoch')) FROM version\n\
             GROUP BY key, seconds))\n\
             WHERE place <= 2 ORDER BY key, place"
        )
    };
}

/// Inserts the records in `?1`, a JSON array of `[id, seconds, record]` without repetitions, of
/// which there is no row in any form, and tells which they were.
macro_rules! insert {
    () => {
        concat!(
            "INSERT INTO encryption_key (id, created, key_record)\n\
             SELECT new.value ->> 0, datetime(new.value ->> 1, 'unixepoch'), new.value ->> 2\n\
             FROM json_each(?1) AS new\n\
             WHERE NOT EXISTS (SELECT 1 FROM encryption_key\n\
             WHERE encryption_key.id = (new.value ->> 0) COLLATE BINARY AND ",
            created_seconds!(),
            " = new.value ->> 1)\n\
             RETURNING id, ",
            created_seconds!()
        )
    };
}

macro_rules! load_all_forms {
    () => {
        concat!(rows_of_id!(), " AND seconds = ?2")
    };
}

macro_rules! update {
    () => {
        concat!(
            "UPDATE encryption_key SET key_record = ?4\n\
             WHERE ",
            of_id!(),
            " AND ",
            created_seconds!(),
            " = ?2 AND ",
            json!(),
            " = ?3"
        )
    };
}

macro_rules! list {
    () => {
        list!("id >= ?1 AND (id > ?1 OR seconds > ?2) AND ")
    };
    ($which:literal) => {
        concat!(
            row_with_id!(),
            "\n\
             WHERE ",
            $which,
            is_key!(),
            "\n\
             ORDER BY id, seconds LIMIT ?3"
        )
    };
}

macro_rules! delete {
    () => {
        concat!("DELETE FROM encryption_key WHERE ", of_id!())
    };
}

macro_rules! delete_version {
    () => {
        concat!(delete!(), " AND ", created_seconds!(), " = ?2")
    };
}

macro_rules! count {
    () => {
        concat!("SELECT count(*) FROM encryption_key WHERE ", is_key!())
    };
}

pub(super) const LOAD: &str = load!();
pub(super) const LOAD_FOLDED: &str = load_folded!();
pub(super) const LOAD_LATEST: &str = load_latest!();
pub(super) const LOAD_MANY: &str = load_many!();
pub(super) const LOAD_MANY_OTHER_FORMS: &str = load_many_other_forms!();
pub(super) const LOAD_LATEST_MANY: &str = load_latest_many!();
pub(super) const INSERT: &str = insert!();
pub(super) const LOAD_ALL_FORMS: &str = load_all_forms!();
pub(super) const UPDATE: &str = update!();
pub(super) const LIST: &str = list!();
/// Nothing sorts between the ids with a prefix and the prefix with the last character.
pub(super) const LIST_OF_PREFIX_FIRST: &str =
    list!("id >= ?1 AND id < ?1 || char(1114111) AND substr(id, 1, length(?1)) = ?1 COLLATE BINARY AND ");
pub(super) const LIST_OF_PREFIX_NEXT: &str = list!(
    "id >= ?1 AND (id > ?1 OR seconds > ?2) \
     AND id < ?4 || char(1114111) AND substr(id, 1, length(?4)) = ?4 COLLATE BINARY AND "
);
pub(super) const DELETE: &str = delete!();
pub(super) const DELETE_VERSION: &str = delete_version!();
pub(super) const COUNT: &str = count!();
