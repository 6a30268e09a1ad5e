//! What the table's columns can hold.
//!
//! The limits are those of the table that is there, ours or another Asherah's. Nothing is left to
//! the server, which may cut in silence.

use claviger::{EnvelopeKeyRecord, KeyId};
use sqlx::mysql::MySqlConnection;
use sqlx::{query_as, query_scalar};

use crate::sql::error::SqlError;
use crate::sql::{SqlFault, check_id, checked_json};

/// A column, as the server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The type without its length, in lower case.
    pub(super) kind: String,
    pub(super) chars_max: Option<u64>,
    pub(super) bytes_max: Option<u64>,
    pub(super) charset: String,
    pub(super) collation: String,
    /// What else there is to it: `on update current_timestamp()`.
    pub(super) extra: String,
}

impl Column {
    /// Returns `true` if texts that differ may be the same to the column. Only the collations of MariaDB and
    /// of MySQL that compare characters by their numbers and pad nothing tell all texts apart.
    pub(super) fn folds(&self) -> bool {
        let tells_apart = self.collation.ends_with("_nopad_bin") || self.collation == "utf8mb4_0900_bin";
        // Columns of bytes have no collation.
        !self.collation.is_empty() && !tells_apart
    }
}

// The casts: MySQL and MariaDB have these columns in different types.
const COLUMNS: &str = "SELECT CAST(column_name AS CHAR), CAST(data_type AS CHAR), \
    COALESCE(CAST(character_maximum_length AS CHAR), ''), COALESCE(CAST(character_octet_length AS CHAR), ''), \
    COALESCE(CAST(character_set_name AS CHAR), ''), COALESCE(CAST(collation_name AS CHAR), ''), \
    CAST(extra AS CHAR) \
    FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'encryption_key'";

pub(super) async fn columns(connection: &mut MySqlConnection) -> Result<Vec<Column>, SqlError> {
    type Described = (String, String, String, String, String, String, String);
    let described: Vec<Described> = query_as(COLUMNS).fetch_all(connection).await?;
    let of = |(name, kind, chars, bytes, charset, collation, extra): Described| Column {
        name: name.to_lowercase(),
        kind: kind.to_lowercase(),
        chars_max: chars.parse().ok(),
        bytes_max: bytes.parse().ok(),
        charset: charset.to_lowercase(),
        collation: collation.to_lowercase(),
        extra: extra.to_lowercase(),
    };
    Ok(described.into_iter().map(of).collect())
}

/// What fits into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    id: Text,
    record: Text,
    /// Whether the server refuses what does not fit.
    pub(super) is_strict: bool,
    /// Whether ids that differ may be one to the table.
    pub(super) folds: bool,
    /// Whether times are kept as instants, which sessions read and write in their zone.
    pub(super) is_zoned: bool,
}

/// What fits into a column of text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text {
    encoding: Encoding,
    limit: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Characters,
    Bytes,
}

/// Which characters fit into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// All: bytes, or the whole of Unicode.
    Any,
    /// Those of at most three bytes in UTF-8, which is what these servers once called UTF-8.
    ThreeBytes,
    /// Those of Windows-1252, which is what these servers call latin1.
    Latin1,
    /// Of other encodings we rely on no more than this.
    Ascii,
    /// Encodings in which not even ASCII stands for itself.
    Foreign,
}

impl Layout {
    /// What our own table holds, for as long as there is none.
    pub(super) const OURS: Self = Self {
        id: Text { encoding: Encoding::Any, limit: 255, unit: Unit::Bytes },
        record: Text { encoding: Encoding::Any, limit: 16_777_215, unit: Unit::Bytes },
        is_strict: true,
        folds: false,
        is_zoned: false,
    };

    /// Asks the server; `None` if there is no such table.
    pub(super) async fn read(connection: &mut MySqlConnection) -> Result<Option<Self>, SqlError> {
        let columns = columns(connection).await?;
        let mode: String =
            query_scalar("SELECT CAST(@@SESSION.sql_mode AS CHAR)").fetch_one(connection).await?;
        Ok(Self::of(&columns, is_strict(&mode)))
    }

    pub(super) fn of(columns: &[Column], is_strict: bool) -> Option<Self> {
        let text_of = |name: &str| columns.iter().find(|column| column.name == name).map(Text::of);
        let folds = columns.iter().any(|column| column.name == "id" && column.folds());
        let is_zoned = columns.iter().any(|column| column.name == "created" && column.kind == "timestamp");
        Some(Self { id: text_of("id")?, record: text_of("key_record")?, is_strict, folds, is_zoned })
    }

    pub(super) fn check_id(&self, id: &KeyId) -> Result<(), SqlFault> {
        check_id(id)?;
        let length = self.id.length(id.as_str());
        if length > self.id.limit {
            return Err(SqlFault::IdOverColumn { length, limit: self.id.limit, unit: self.id.unit_name() });
        }
        self.check_characters(id)
    }

    /// Checks the characters alone: a server asked for others would convert every row to compare.
    pub(super) fn check_characters(&self, id: &KeyId) -> Result<(), SqlFault> {
        if self.id.encoding.holds(id.as_str()) {
            Ok(())
        } else {
            Err(SqlFault::CharactersNotHeld { column: "id", key: id.clone() })
        }
    }

    /// Makes the JSON of a record that is to be written.
    pub(super) fn checked_json(&self, record: &EnvelopeKeyRecord) -> Result<String, SqlFault> {
        let json = checked_json(record)?;
        let length = self.record.length(&json);
        if length > self.record.limit {
            return Err(SqlFault::RecordTooLong { length, limit: self.record.limit });
        }
        if self.record.encoding.holds(&json) {
            Ok(json)
        } else {
            Err(SqlFault::CharactersNotHeld { column: "key_record", key: record.meta().id().clone() })
        }
    }
}

impl Text {
    fn of(column: &Column) -> Self {
        let (unit, limit) = match column.kind.as_str() {
            "char" | "varchar" => (Unit::Characters, column.chars_max),
            // The server states the limits of its TEXT types in bytes.
            _ => (Unit::Bytes, column.bytes_max),
        };
        Self { encoding: Encoding::of(column), limit: limit.unwrap_or(u64::MAX), unit }
    }

    fn length(&self, text: &str) -> u64 {
        let length = match self.unit {
            Unit::Characters => text.chars().count(),
            Unit::Bytes => text.len(),
        };
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    const fn unit_name(&self) -> &'static str {
        match self.unit {
            Unit::Characters => "characters",
            Unit::Bytes => "bytes",
        }
    }
}

impl Encoding {
    pub(super) fn of(column: &Column) -> Self {
        match column.charset.as_str() {
            // Columns of bytes have none.
            "" | "binary" | "utf8mb4" => Self::Any,
            "utf8mb3" | "utf8" => Self::ThreeBytes,
            "latin1" => Self::Latin1,
            "ucs2" | "utf16" | "utf16le" | "utf32" => Self::Foreign,
            _ => Self::Ascii,
        }
    }

    pub(super) fn holds(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::ThreeBytes => text.chars().all(|character| character.len_utf8() < 4),
            Self::Latin1 => text.is_ascii() || text.chars().all(is_in_latin1),
            Self::Ascii | Self::Foreign => text.is_ascii(),
        }
    }
}

/// Of the 32 places that Windows-1252 has of its own, five are empty; the servers give them to the
/// control characters of the same numbers.
fn is_in_latin1(character: char) -> bool {
    const OWN: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    character.is_ascii() || ('\u{a0}'..='\u{ff}').contains(&character) || OWN.contains(character)
}

/// Returns `true` if an `sql_mode` refuses what does not fit, in tables with transactions at least.
pub(super) fn is_strict(mode: &str) -> bool {
    mode.split(',').any(|mode| matches!(mode, "STRICT_ALL_TABLES" | "STRICT_TRANS_TABLES" | "TRADITIONAL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str, charset: &str, chars_max: u64, bytes_max: u64) -> Column {
        let [name, kind, charset] = [name, kind, charset].map(Into::into);
        let (chars_max, bytes_max) = (Some(chars_max), Some(bytes_max));
        Column { name, kind, charset, chars_max, bytes_max, ..Column::default() }
    }

    fn legacy(charset: &str) -> Layout {
        let id = column("id", "varchar", charset, 255, 255);
        let record = column("key_record", "text", charset, 65_535, 65_535);
        Layout::of(&[id, record], true).unwrap()
    }

    #[test]
    fn ids_are_measured_as_the_column_does() {
        let (ours, legacy) = (Layout::OURS, legacy("utf8mb4"));
        let of_two_bytes = |count| KeyId::new("é".repeat(count));
        ours.check_id(&of_two_bytes(127)).unwrap();
        let fault = ours.check_id(&of_two_bytes(128)).unwrap_err();
        assert!(matches!(fault, SqlFault::IdOverColumn { length: 256, limit: 255, unit: "bytes" }));
        legacy.check_id(&of_two_bytes(255)).unwrap();
        assert!(matches!(legacy.check_id(&of_two_bytes(256)), Err(SqlFault::IdTooLong { chars: 256 })));
    }

    #[test]
    fn characters_are_those_of_the_columns_encoding() {
        let cases = [
            ("utf8mb4", "aé€\u{3042}\u{1f600}", ""),
            ("", "aé€\u{3042}\u{1f600}", ""),
            ("utf8mb3", "aé€\u{3042}\u{ffff}", "\u{10000}\u{1f600}"),
            ("latin1", "aé€\u{a0}ÿŸ\u{81}\u{9d}", "\u{80}\u{9f}Ā\u{3042}\u{1f600}"),
            ("ascii", "a~\u{7f}", "é€"),
            ("sjis", "a", "あ"),
        ];
        for (charset, held, refused) in cases {
            let layout = legacy(charset);
            for character in held.chars() {
                assert!(
                    layout.check_id(&KeyId::new(String::from(character))).is_ok(),
                    "{charset} {character:?}"
                );
            }
            for character in refused.chars() {
                let fault = layout.check_id(&KeyId::new(String::from(character)));
                let is_refused = matches!(fault, Err(SqlFault::CharactersNotHeld { column: "id", .. }));
                assert!(is_refused, "{charset} {character:?}");
            }
        }
    }

    #[test]
    fn a_mode_is_strict_by_a_word_of_its_own() {
        for mode in ["STRICT_ALL_TABLES", "ANSI,STRICT_TRANS_TABLES,NO_ZERO_DATE", ",STRICT_ALL_TABLES"] {
            assert!(is_strict(mode), "{mode}");
        }
        for mode in ["", "NO_ENGINE_SUBSTITUTION", "XSTRICT_ALL_TABLES"] {
            assert!(!is_strict(mode), "{mode}");
        }
    }
}
