//! The text of the statements, made by macros, so that the rustdoc of
//! [`MysqlMetastore`](super::MysqlMetastore) shows what is run. All of them are spoken by MySQL and
//! MariaDB, and find their rows by the primary key.

/// The rows of an id. The first condition finds them by the primary key, but a collation takes other
/// ids for it; the second compares bytes.
macro_rules! of_id {
    () => {
        "id = ? AND CAST(CONVERT(id USING utf8mb4) AS BINARY) = ?"
    };
}

/// What a row is read by: no more of its id and its record than a key's may have. A record that is longer
/// is NULL, one that is missing is empty.
macro_rules! row {
    () => {
        concat!(row!(""), " FROM encryption_key")
    };
    ($table:literal) => {
        concat!(
            "SELECT IF(OCTET_LENGTH(",
            $table,
            "id) <= 2048, ",
            $table,
            "id, LEFT(",
            $table,
            "id, 2049)), CAST(",
            $table,
            "created AS CHAR),\n  CASE WHEN ",
            $table,
            "key_record IS NULL THEN ''\n  WHEN CHAR_LENGTH(",
            $table,
            "key_record) <= 65536 THEN ",
            $table,
            "key_record END"
        )
    };
}

/// What is not past a time. The time of a `TIMESTAMP` is compared as the text that was written: as a time it
/// would go by the zone of the session, whose clocks skip some, and end in 2038.
macro_rules! up_to {
    ($table:literal, zoned) => {
        concat!("CAST(", $table, "created AS DATETIME) <= ?")
    };
    ($table:literal, unzoned) => {
        concat!($table, "created <= ?")
    };
}

/// What is a key, and not a note that Asherah keeps beside the keys.
macro_rules! no_reserved_id {
    () => {
        "CAST(id AS BINARY) NOT LIKE '|_|_asherah|_internal|_%' ESCAPE '|'"
    };
}

macro_rules! load_sql {
    () => {
        concat!(row!(), "\nWHERE ", of_id!(), " AND created = ?")
    };
}

macro_rules! load_latest_sql {
    ($zoned:ident) => {
        concat!(row!(), "\nWHERE ", of_id!(), " AND ", up_to!("", $zoned), "\nORDER BY created DESC LIMIT 2")
    };
}

/// By ids and by times, and the pairs that were asked for are picked out of that. `(id, created) IN (…)`
/// would not do: MariaDB compares the given ids with each other in the connection's collation, and
/// drops one of two that are different in the column's. Nor would pairs joined by OR: the time to plan
/// them grows with their square. The cast keeps the times out of the plan, for the same reason.
macro_rules! load_many_sql {
    ($ids:literal, $times:literal) => {
        concat!(row!(), "\nWHERE id IN (", $ids, ") AND CAST(created AS DATETIME) IN (", $times, ")")
    };
}

/// Those of which there are not two newer. Not by `created = (SELECT MAX(created) …)`: MariaDB remembers what
/// a subquery brought for an id, and takes it for the answer for another that the column's collation takes
/// for the same. Together with `created` an id is never another's.
macro_rules! load_latest_many_sql {
    ($ids:literal, $zoned:ident) => {
        concat!(
            row!("k."),
            "\nFROM encryption_key AS k\nWHERE k.id IN (",
            $ids,
            ") AND ",
            up_to!("k.", $zoned),
            " AND (\n  SELECT n.created FROM encryption_key AS n WHERE n.id = k.id AND n.created > k.created\n",
            "  AND CAST(CONVERT(n.id USING utf8mb4) AS BINARY) = CAST(CONVERT(k.id USING utf8mb4) AS BINARY)\n  AND ",
            up_to!("n.", $zoned),
            " LIMIT 1 OFFSET 1) IS NULL"
        )
    };
}

macro_rules! insert_sql {
    () => {
        "INSERT INTO encryption_key (id, created, key_record) VALUES (?, ?, ?)"
    };
}

/// The row that the table takes for a version's, whatever its id.
macro_rules! holder_sql {
    () => {
        concat!(row!(), "\nWHERE id = ? AND created = ?")
    };
}

/// `created` is named so that a column that updates itself does not.
macro_rules! update_sql {
    () => {
        concat!(
            "UPDATE encryption_key SET key_record = ?, created = created\nWHERE ",
            of_id!(),
            " AND created = ?\n  AND CAST(CONVERT(key_record USING utf8mb4) AS BINARY) = ?"
        )
    };
}

macro_rules! list_sql {
    ($which:expr) => {
        concat!(row!(), "\nWHERE ", $which, no_reserved_id!(), "\nORDER BY id, created LIMIT ?")
    };
}

/// Of a prefix as the patterns of `LIKE` are, once as text and once as bytes.
macro_rules! of_prefix {
    () => {
        "id LIKE ? ESCAPE '|' AND CAST(CONVERT(id USING utf8mb4) AS BINARY) LIKE ? ESCAPE '|' AND "
    };
}

macro_rules! delete_sql {
    () => {
        concat!("DELETE FROM encryption_key WHERE ", of_id!())
    };
}

macro_rules! delete_version_sql {
    () => {
        concat!(delete_sql!(), " AND created = ?")
    };
}

macro_rules! count_sql {
    () => {
        concat!("SELECT COUNT(*) FROM encryption_key WHERE ", no_reserved_id!())
    };
}

pub(super) use {
    count_sql, delete_sql, delete_version_sql, holder_sql, insert_sql, list_sql, load_latest_many_sql,
    load_latest_sql, load_many_sql, load_sql, no_reserved_id, of_id, row, up_to, update_sql,
};

pub(super) const CREATE_TABLE: &str = include_str!("../../../migrations/mysql/0001_encryption_key.sql");
pub(super) const COUNT: &str = count_sql!();
pub(super) const LIST_FIRST: &str = list_sql!("");
pub(super) const LIST_NEXT: &str = list_sql!("id >= ? AND (id > ? OR created > ?) AND ");
pub(super) const LIST_OF_PREFIX_FIRST: &str = list_sql!(of_prefix!());
pub(super) const LIST_OF_PREFIX_NEXT: &str =
    list_sql!(concat!("id >= ? AND (id > ? OR created > ?) AND ", of_prefix!()));
