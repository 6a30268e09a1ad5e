//! Which metastore is meant.

pub(crate) mod open;
pub(crate) mod options;
mod sqlite;
pub(crate) mod url;

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::endpoint::endpoint;
use crate::environment::Environment;
use crate::error::SpecError;
use crate::fields::{Fields, TextOrTable};
use crate::private::by_reference;
use crate::secret::SecretSource;
use crate::store::sqlite::Place;
use crate::store::url::{DYNAMODB, Form, MYSQL, POSTGRES, ServerUrl};

/// A metastore, not opened yet. It is shown without its password.
///
/// It is read from a text such as `sqlite:keys.db`, or from a table in any format that serde reads:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use claviger_open::StoreSpec;
///
/// let text = StoreSpec::from_text("postgres://claviger:pw@db.example/keys", "metastore")?;
/// let table: StoreSpec = serde_json::from_str(
///     r#"{ "type": "postgres", "url": "postgres://claviger@db.example/keys", "password": "env:DB_PASSWORD" }"#,
/// )?;
/// assert_eq!(text.to_string(), "postgres://claviger@db.example/keys");
/// assert_eq!(text.to_string(), table.to_string());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreSpec {
    /// In the memory of this process: the keys are gone with it.
    Memory,
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// PostgreSQL, or what speaks its protocol.
    Postgres(SqlSpec),
    /// MySQL or MariaDB, or what speaks their protocol.
    Mysql(SqlSpec),
    /// A table of Amazon DynamoDB.
    DynamoDb(DynamoDbSpec),
}

/// A database on a server, not opened yet.
#[derive(Clone)]
pub struct SqlSpec {
    pub(crate) url: ServerUrl,
    /// In place of the one in the URL.
    pub(crate) password: Option<SecretSource>,
    pub(crate) options: SqlOptions,
}

/// What a table may say of a database on a server besides its URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct SqlOptions {
    pub(crate) connections_max: Option<NonZeroU32>,
    /// Statements for every new connection.
    pub(crate) on_connect: Option<&'static str>,
}

/// A table of DynamoDB, not opened yet.
#[derive(Clone)]
pub struct DynamoDbSpec {
    pub(crate) table: String,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

impl StoreSpec {
    /// Reads a text. `called` is the name that users know it by, such as `--metastore`, for messages.
    ///
    /// # Errors
    /// If it names no metastore. Nothing of it is repeated that may be a password.
    pub fn from_text(text: &str, called: &str) -> Result<Self, SpecError> {
        let wrong = |message: &str| SpecError::wrong(&format!("{called} {message}"));
        let Some((scheme, rest)) = text.split_once(':') else { return Err(wrong(UNKNOWN)) };
        match (scheme, rest) {
            ("memory", "") => Ok(Self::Memory),
            ("sqlite", path) => match sqlite::parse(path).map_err(wrong)? {
                Place::File(path) => Ok(Self::Sqlite(path)),
                Place::Memory => Ok(Self::Memory),
            },
            ("postgres" | "postgresql", _) => {
                ServerUrl::parse(text, &POSTGRES, called).map(SqlSpec::of).map(Self::Postgres)
            }
            ("mysql" | "mariadb", _) => {
                ServerUrl::parse(text, &MYSQL, called).map(SqlSpec::of).map(Self::Mysql)
            }
            ("dynamodb", _) => {
                let url = ServerUrl::parse(text, &DYNAMODB, called)?;
                let mut fields = Fields::default();
                if !url.host().is_empty() {
                    fields.add("table", url.host());
                }
                for name in ["region", "endpoint"] {
                    url.option(name).into_iter().for_each(|value| fields.add(name, value));
                }
                DynamoDbSpec::read(fields).map(Self::DynamoDb)
            }
            _ => Err(wrong(UNKNOWN)),
        }
    }

    /// Reads a text, or the file that it names as `@FILE`, which only its owner may read.
    ///
    /// # Errors
    /// As for [`from_text`](Self::from_text), and as the file cannot be read.
    pub fn from_reference(text: &str, called: &str) -> Result<Self, SpecError> {
        by_reference(text, called, ("the key store's URL", "change the password"), Self::from_text)
    }

    /// Reads the variable `CLAVIGER_METASTORE`; `None` if it is not set.
    ///
    /// # Errors
    /// As for [`from_reference`](Self::from_reference).
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, SpecError> {
        let text = environment.text(VARIABLE);
        text.map(|text| Self::from_reference(&text, VARIABLE)).transpose()
    }

    /// Reads a table, or a text in its place, which users know by the name `called`.
    pub(crate) fn from_text_or_table(given: TextOrTable, called: &str) -> Result<Self, SpecError> {
        given.read(|text| Self::from_reference(text, called), Self::from_fields)
    }

    pub(crate) fn from_fields(mut fields: Fields) -> Result<Self, SpecError> {
        let kind = fields.need("type", KINDS)?;
        match &*kind {
            "memory" => fields.finish().map(|()| Self::Memory),
            "sqlite" => {
                let path = fields.need("path", "name a file")?;
                // As a text would have it: SQLite has names that are no file's.
                let place = sqlite::parse(&path).map_err(|why| fields.wrong(why))?;
                fields.finish()?;
                Ok(match place {
                    Place::File(path) => Self::Sqlite(path),
                    Place::Memory => Self::Memory,
                })
            }
            "postgres" => SqlSpec::read(fields, &POSTGRES).map(Self::Postgres),
            "mysql" => SqlSpec::read(fields, &MYSQL).map(Self::Mysql),
            "dynamodb" => DynamoDbSpec::read(fields).map(Self::DynamoDb),
            _ => Err(fields.wrong(&format!("it is of a type that is not known; {KINDS}"))),
        }
    }

    /// Returns the file that it is, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the files with certificates, keys and passwords for the connection.
    #[must_use]
    pub fn secret_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Postgres(sql) | Self::Mysql(sql) => {
                let mut files = sql.url.files();
                files.extend(sql.password.as_ref().and_then(SecretSource::file).map(Path::to_owned));
                files
            }
            _ => Vec::new(),
        }
    }

    /// Returns `true` if a text for [`from_text`](Self::from_text) is a URL with a password in it, also one that
    /// cannot be read as a URL: most often it is an unescaped password that makes it so.
    #[must_use]
    pub fn text_has_secret(text: &str) -> bool {
        url::has_password(text)
    }
}

impl SqlSpec {
    pub(crate) fn of(url: ServerUrl) -> Self {
        Self { url, password: None, options: SqlOptions::default() }
    }

    fn read(mut fields: Fields, form: &Form) -> Result<Self, SpecError> {
        let text = fields.need("url", &format!("say {}", form.usage()))?;
        let url = ServerUrl::parse(&text, form, NAME).map_err(|error| {
            let at = fields.wrong("").at();
            error.or_at(at)
        })?;
        let password = fields.text("password")?.map(SecretSource::new);
        if password.is_some() && url::has_password(&text) {
            return Err(fields.wrong("has a password in its url besides; keep one"));
        }
        let options =
            SqlOptions { connections_max: fields.count("max-connections")?, ..SqlOptions::default() };
        fields.finish()?;
        Ok(Self { url, password, options })
    }
}

impl DynamoDbSpec {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let spec = Self {
            table: fields.text("table")?.unwrap_or_else(|| ASHERAHS_TABLE.to_owned()),
            region: fields.text("region")?,
            endpoint: endpoint(&mut fields, "endpoint")?,
        };
        fields.finish()?;
        Ok(spec)
    }
}

/// Names it without a password.
impl fmt::Display for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(sql) | Self::Mysql(sql) => sql.url.fmt(f),
            Self::DynamoDb(spec) => write!(f, "dynamodb://{}", spec.table),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// As [`Display`](fmt::Display).
impl fmt::Debug for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SqlSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for DynamoDbSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, region, endpoint } = self;
        let mut fields = f.debug_struct("DynamoDbSpec");
        fields.field("table", table).field("region", region).field("endpoint", endpoint).finish()
    }
}

/// What a description calls it.
pub(crate) const NAME: &str = "metastore";

const VARIABLE: &str = "CLAVIGER_METASTORE";

/// Asherah's own table.
pub(crate) const ASHERAHS_TABLE: &str = "EncryptionKey";

const KINDS: &str = "say sqlite, postgres, mysql, dynamodb or memory";

const UNKNOWN: &str = "names no store that claviger knows; say sqlite:PATH, postgres://…, mysql://…, \
                       dynamodb://TABLE or memory:, or @FILE for a file that says it";
