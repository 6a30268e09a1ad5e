//! The text of the statements, made by macros, so that the rustdoc of
//! [`PostgresMetastore`](super::PostgresMetastore) shows what is run.

use crate::sql::postgres::session::Statement;

/// The rows of the id `$2`, byte by byte: a table made by others may fold case. The first condition
/// finds them by the primary key.
macro_rules! of_id {
    () => {
        "id = $2 AND id::text COLLATE \"C\" = $2"
    };
}

/// The same for the id of `asked`.
macro_rules! of_asked {
    () => {
        "k.id = asked.id AND k.id::text COLLATE \"C\" = asked.id"
    };
}

/// A row's `created` in Unix seconds, whatever the session's time zone is; NULL before all times.
macro_rules! seconds {
    () => {
        "CASE WHEN created = 'infinity' THEN 9223372036854775807\n       \
         WHEN isfinite(created) THEN floor(extract(epoch FROM created))::bigint END"
    };
}

/// The record of the row of `$table`: NULL if it is longer than a record may be, as it is stored, which the
/// server knows without reading it, or as text; empty if there is none.
macro_rules! record {
    ($table:literal) => {
        concat!(
            "CASE WHEN ",
            $table,
            ".key_record IS NULL THEN '' WHEN pg_column_size(",
            $table,
            ".key_record) <= 65536\n       AND octet_length(",
            $table,
            ".key_record::text) <= 65536 THEN ",
            $table,
            ".key_record::text END"
        )
    };
}

/// The id of a row, or the beginning of one that is longer than any store takes.
macro_rules! row_id {
    () => {
        "CASE WHEN octet_length(k.id::text) <= 2048 THEN k.id::text ELSE left(k.id::text, 2049) END"
    };
}

/// What is a key, and not a note that Asherah keeps beside the keys.
macro_rules! no_reserved_id {
    () => {
        "left(id::text, 19) COLLATE \"C\" <> '__asherah_internal_'"
    };
}

/// Makes the transaction that the statement is commit durably, where the session would not. A
/// setting of the session could be another session's behind a pooler.
macro_rules! durably {
    () => {
        "(current_setting('synchronous_commit') <> 'off'\n       \
         OR set_config('synchronous_commit', 'on', true) = 'on')"
    };
}

// `$utc` is what makes a TIMESTAMP of a TIMESTAMPTZ, for tables whose column is one.

macro_rules! load_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.load'::text, asked.id, k.id IS NOT NULL, ",
            record!("k"),
            "\nFROM (SELECT $2::text AS id WHERE $1 = 'claviger.load') AS asked\n",
            "LEFT JOIN encryption_key AS k\n  ON ",
            of_asked!(),
            "\n  AND k.created = to_timestamp($3)",
            $utc
        )
    };
}

/// The latest row before `$before`, and the one before its second: `latest` and `earlier`.
macro_rules! latest_two {
    ($before:literal, $utc:literal) => {
        concat!(
            "LEFT JOIN LATERAL (\n  SELECT k.id, k.created, ",
            seconds!(),
            " AS seconds,\n    ",
            record!("k"),
            " AS record\n  FROM encryption_key AS k WHERE ",
            of_asked!(),
            "\n    AND k.created < to_timestamp(",
            $before,
            ")",
            $utc,
            "\n  ORDER BY k.created DESC LIMIT 1\n) AS latest ON true\n",
            "LEFT JOIN LATERAL (\n  SELECT ",
            seconds!(),
            " AS seconds,\n    ",
            record!("k"),
            " AS record\n  FROM encryption_key AS k WHERE ",
            of_asked!(),
            "\n    AND k.created < date_trunc('second', latest.created)",
            "\n  ORDER BY k.created DESC LIMIT 1\n) AS earlier ON true"
        )
    };
}

macro_rules! load_latest_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.load_latest'::text, asked.id, latest.id IS NOT NULL, latest.record, 1::bigint,\n",
            "  latest.seconds, earlier.record, earlier.seconds\n",
            "FROM (SELECT $2::text AS id WHERE $1 = 'claviger.load_latest') AS asked\n",
            latest_two!("$3", $utc)
        )
    };
}

macro_rules! load_many_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.load_many'::text, asked.id, k.id IS NOT NULL, k.record, asked.n\n",
            "FROM unnest($2::text[], $3::bigint[]) WITH ORDINALITY AS asked (id, created, n)\n",
            "LEFT JOIN LATERAL (\n  SELECT k.id, ",
            record!("k"),
            " AS record\n  FROM encryption_key AS k\n  WHERE ",
            of_asked!(),
            "\n    AND k.created = to_timestamp(asked.created)",
            $utc,
            "\n  LIMIT 1\n) AS k ON true\nWHERE $1 = 'claviger.load_many'"
        )
    };
}

macro_rules! load_latest_many_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.load_latest_many'::text, asked.id, latest.id IS NOT NULL, latest.record, asked.n,\n",
            "  latest.seconds, earlier.record, earlier.seconds\n",
            "FROM unnest($2::text[]) WITH ORDINALITY AS asked (id, n)\n",
            latest_two!("$3", $utc),
            "\nWHERE $1 = 'claviger.load_latest_many'"
        )
    };
}

macro_rules! insert_sql {
    ($utc:literal) => {
        concat!(
            "WITH inserted AS (\n",
            "  INSERT INTO encryption_key (id, created, key_record)\n  SELECT $2, to_timestamp($3)",
            $utc,
            ", $4::json\n  WHERE $1 = 'claviger.insert' AND ",
            durably!(),
            "\n  RETURNING 1\n)\nSELECT 'claviger.insert'::text, count(*) FROM inserted"
        )
    };
}

/// The row that the table takes for a version's: by the collation of a table made by others it may be
/// another key's.
macro_rules! holder_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.holder'::text, ",
            row_id!(),
            ",\n  ",
            record!("k"),
            "\nFROM (SELECT $2::text AS id WHERE $1 = 'claviger.holder') AS asked\n",
            "LEFT JOIN encryption_key AS k ON k.id = asked.id AND k.created = to_timestamp($3)",
            $utc
        )
    };
}

macro_rules! update_sql {
    ($utc:literal) => {
        concat!(
            "WITH updated AS (\n",
            "  UPDATE encryption_key SET key_record = $5::json\n  WHERE $1 = 'claviger.update' AND ",
            of_id!(),
            "\n    AND created = to_timestamp($3)",
            $utc,
            "\n    AND key_record::text COLLATE \"C\" = $4 AND ",
            durably!(),
            "\n  RETURNING 1\n)\nSELECT 'claviger.update'::text, count(*) FROM updated"
        )
    };
}

/// The order is that of the page: the one row that it is joined to has no other.
macro_rules! list_sql {
    ($utc:literal) => {
        concat!(
            "SELECT 'claviger.list'::text, page.id, page.seconds, page.record\n",
            "FROM (SELECT WHERE $1 = 'claviger.list') AS asked\n",
            "LEFT JOIN LATERAL (\n  SELECT ",
            row_id!(),
            " AS id,\n    ",
            seconds!(),
            " AS seconds,\n    ",
            record!("k"),
            " AS record\n  FROM encryption_key AS k\n",
            "  WHERE (k.id, k.created) > ($2, to_timestamp($3)",
            $utc,
            ") AND ",
            no_reserved_id!(),
            "\n    AND ($5 = '' OR left(k.id::text, char_length($5)) COLLATE \"C\" = $5)",
            "\n  ORDER BY k.id, k.created LIMIT $4\n) AS page ON true"
        )
    };
}

macro_rules! delete_version_sql {
    ($utc:literal) => {
        concat!(
            "WITH deleted AS (\n  DELETE FROM encryption_key WHERE $1 = 'claviger.delete_version' AND ",
            of_id!(),
            "\n    AND created = to_timestamp($3)",
            $utc,
            " AND ",
            durably!(),
            "\n  RETURNING 1\n)\nSELECT 'claviger.delete_version'::text, count(*) FROM deleted"
        )
    };
}

macro_rules! delete_sql {
    () => {
        concat!(
            "WITH deleted AS (\n  DELETE FROM encryption_key WHERE $1 = 'claviger.delete' AND ",
            of_id!(),
            "\n    AND ",
            durably!(),
            "\n  RETURNING 1\n)\nSELECT 'claviger.delete'::text, count(*) FROM deleted"
        )
    };
}

macro_rules! count_sql {
    () => {
        concat!(
            "SELECT 'claviger.count'::text, count(*) FROM encryption_key\n",
            "WHERE $1 = 'claviger.count' AND ",
            no_reserved_id!()
        )
    };
}

pub(super) use {
    count_sql, delete_sql, delete_version_sql, durably, holder_sql, insert_sql, latest_two, list_sql,
    load_latest_many_sql, load_latest_sql, load_many_sql, load_sql, no_reserved_id, of_asked, of_id, record,
    row_id, seconds, update_sql,
};

/// The statements whose text depends on the type of `created`.
#[derive(Debug)]
pub(super) struct Texts {
    /// Whether ids that differ may be one to the table.
    pub(super) folds: bool,
    pub(super) load: Statement,
    pub(super) load_latest: Statement,
    pub(super) load_latest_many: Statement,
    pub(super) load_many: Statement,
    pub(super) insert: Statement,
    pub(super) holder: Statement,
    pub(super) update: Statement,
    pub(super) list: Statement,
    pub(super) delete_version: Statement,
}

macro_rules! texts {
    ($utc:literal, $folds:literal) => {
        Texts {
            folds: $folds,
            load: Statement { tag: "claviger.load", sql: load_sql!($utc) },
            load_latest: Statement { tag: "claviger.load_latest", sql: load_latest_sql!($utc) },
            load_latest_many: Statement {
                tag: "claviger.load_latest_many",
                sql: load_latest_many_sql!($utc),
            },
            load_many: Statement { tag: "claviger.load_many", sql: load_many_sql!($utc) },
            insert: Statement { tag: "claviger.insert", sql: insert_sql!($utc) },
            holder: Statement { tag: "claviger.holder", sql: holder_sql!($utc) },
            update: Statement { tag: "claviger.update", sql: update_sql!($utc) },
            list: Statement { tag: "claviger.list", sql: list_sql!($utc) },
            delete_version: Statement { tag: "claviger.delete_version", sql: delete_version_sql!($utc) },
        }
    };
}

pub(super) static OF_TIMESTAMPTZ: Texts = texts!("", false);
pub(super) static OF_TIMESTAMP: Texts = texts!(" AT TIME ZONE 'UTC'", false);
pub(super) static FOLDING_OF_TIMESTAMPTZ: Texts = texts!("", true);
pub(super) static FOLDING_OF_TIMESTAMP: Texts = texts!(" AT TIME ZONE 'UTC'", true);

pub(super) static DELETE: Statement = Statement { tag: "claviger.delete", sql: delete_sql!() };
pub(super) static COUNT: Statement = Statement { tag: "claviger.count", sql: count_sql!() };

impl Texts {
    /// Those of our own table. If there is none, the statement will say so.
    pub(super) const OURS: &'static Self = &OF_TIMESTAMPTZ;

    /// Returns all statements on a table of this layout.
    pub(super) const fn all(&'static self) -> [&'static Statement; 11] {
        [
            &self.load,
            &self.load_latest,
            &self.load_many,
            &self.load_latest_many,
            &self.insert,
            &self.holder,
            &self.update,
            &self.list,
            &self.delete_version,
            &DELETE,
            &COUNT,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reserved_ids_begin_as_the_statements_say() {
        let (_, prefix) = no_reserved_id!().split_once("<> ").unwrap();
        let prefix = prefix.trim_matches('\'');
        assert!(claviger::backend::is_reserved_id(prefix));
        assert!(!claviger::backend::is_reserved_id(&prefix[1..]));
        assert!(no_reserved_id!().contains(&format!("left(id::text, {})", prefix.len())));
    }

    #[test]
    fn every_statement_checks_its_own_tag_and_returns_it() {
        for texts in [&OF_TIMESTAMPTZ, &OF_TIMESTAMP] {
            let statements = texts.all();
            let tags: BTreeSet<_> = statements.iter().map(|statement| statement.tag).collect();
            assert_eq!(tags.len(), statements.len());
            for Statement { tag, sql } in statements {
                let checks: Vec<_> = sql.matches("$1 = '").collect();
                assert_eq!(checks.len(), 1, "{sql}");
                assert!(sql.contains(&format!("$1 = '{tag}'")), "{sql}");
                assert!(sql.contains(&format!("SELECT '{tag}'::text")), "{sql}");
                assert_eq!(sql.matches("claviger.").count(), 2, "{sql}");
            }
        }
    }
}
