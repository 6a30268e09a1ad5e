//! An open key store of any kind.

pub(crate) mod fault;

use std::path::Path;
use std::time::Duration;

use claviger::{
    BackendError, BoxedKms, BoxedMetastore, Error, InMemoryMetastore, RewrapOptions, RewrapReport,
    repair_system_keys, rewrap_system_keys,
};
#[cfg(feature = "dynamodb")]
use claviger_metastore::DynamoDbMetastore;
#[cfg(feature = "mysql")]
use claviger_metastore::MysqlMetastore;
#[cfg(feature = "postgres")]
use claviger_metastore::PostgresMetastore;
use claviger_metastore::{FindingId, SchemaReport, SqliteMetastore};

use crate::exit::Failure;
use crate::open::make_folder_of;
use crate::store::{ServerUrl, StoreChoice};

/// An open key store.
#[derive(Debug)]
pub(crate) enum Backend {
    Memory(InMemoryMetastore),
    Sqlite(SqliteMetastore),
    #[cfg(feature = "postgres")]
    Postgres(PostgresMetastore),
    #[cfg(feature = "mysql")]
    Mysql(MysqlMetastore),
    #[cfg(feature = "dynamodb")]
    DynamoDb(DynamoDbMetastore),
}

/// On which tables a store is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admission<'a> {
    /// On those without a dangerous finding besides these.
    Checked(&'a [FindingId]),
    /// On those, and on those where it may not write: to load keys alone.
    ToRead(&'a [FindingId]),
    /// On any, and on none: to look at it, or to make it.
    Unchecked,
}

/// Why a store could not be opened.
#[derive(Debug)]
enum OpenError {
    /// This binary was built without the feature.
    #[cfg(not(all(feature = "postgres", feature = "mysql", feature = "dynamodb")))]
    Missing {
        server: &'static str,
        feature: &'static str,
    },
    Store(BackendError),
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        Self::Store(error)
    }
}

/// Does the same with every kind of store that has a table, and has `$nothing` for the one in memory.
macro_rules! with_table {
    ($backend:expr, $store:ident => $work:expr, $nothing:expr) => {
        match $backend {
            Backend::Memory(_) => $nothing,
            Backend::Sqlite($store) => $work,
            #[cfg(feature = "postgres")]
            Backend::Postgres($store) => $work,
            #[cfg(feature = "mysql")]
            Backend::Mysql($store) => $work,
            #[cfg(feature = "dynamodb")]
            Backend::DynamoDb($store) => $work,
        }
    };
}

/// Says to a store's builder on which tables it starts.
macro_rules! admitting {
    ($builder:expr, $admission:expr) => {{
        let builder = $builder.read_only(matches!($admission, Admission::ToRead(_)));
        match $admission {
            Admission::Checked(accepted) | Admission::ToRead(accepted) => {
                accepted.iter().fold(builder, |builder, id| builder.accept(*id))
            }
            Admission::Unchecked => builder.danger_unchecked(),
        }
    }};
}

impl Backend {
    pub(crate) async fn open(choice: &StoreChoice, admission: Admission<'_>) -> Result<Self, Failure> {
        let opened = match choice {
            StoreChoice::Memory => Ok(Self::Memory(InMemoryMetastore::new())),
            StoreChoice::Embedded(path) => {
                make_folder_of(path)?;
                sqlite(path, admission).await
            }
            StoreChoice::Sqlite(path) => sqlite(path, admission).await,
            StoreChoice::Postgres(url) => postgres(url, admission).await,
            StoreChoice::Mysql(url) => mysql(url, admission).await,
            StoreChoice::DynamoDb(url) => dynamodb(url, admission).await,
        };
        opened.map_err(|error| fault::opening(choice, &error))
    }

    pub(crate) fn boxed(&self) -> BoxedMetastore {
        match self {
            Self::Memory(store) => BoxedMetastore::new(store.clone()),
            Self::Sqlite(store) => BoxedMetastore::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => BoxedMetastore::new(store.clone()),
            #[cfg(feature = "mysql")]
            Self::Mysql(store) => BoxedMetastore::new(store.clone()),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(store) => BoxedMetastore::new(store.clone()),
        }
    }

    /// Makes the table if it is not there.
    pub(crate) async fn migrate(&self, choice: &StoreChoice) -> Result<(), Failure> {
        let made = with_table!(self, store => store.migrate().await, Ok(()));
        made.map_err(|error| fault::using(choice, "cannot make the table of", &error))
    }

    pub(crate) async fn check_schema(&self, choice: &StoreChoice) -> Result<SchemaReport, Failure> {
        let report = with_table!(self, store => store.check_schema().await, Ok(SchemaReport::default()));
        report.map_err(|error| fault::using(choice, "cannot check", &error))
    }

    pub(crate) async fn repair(&self, kms: &BoxedKms, which: &RewrapOptions) -> Result<RewrapReport, Error> {
        let nothing = Ok(RewrapReport::default());
        with_table!(self, store => Box::pin(repair_system_keys(store, kms, which)).await, nothing)
    }

    pub(crate) async fn rewrap(
        &self,
        from: &BoxedKms,
        to: &BoxedKms,
        which: &RewrapOptions,
    ) -> Result<RewrapReport, Error> {
        let nothing = Ok(RewrapReport::default());
        with_table!(self, store => Box::pin(rewrap_system_keys(store, from, to, which)).await, nothing)
    }

    /// Returns what makes the table of a store that need not be there.
    pub(crate) fn schema(choice: &StoreChoice) -> Result<String, Failure> {
        let schema = match choice {
            StoreChoice::Memory => Ok(String::new()),
            StoreChoice::Embedded(_) | StoreChoice::Sqlite(_) => Ok(SqliteMetastore::SCHEMA.to_owned()),
            StoreChoice::Postgres(_) => postgres_schema(),
            StoreChoice::Mysql(_) => mysql_schema(),
            StoreChoice::DynamoDb(url) => dynamodb_schema(url),
        };
        // Statements end with a semicolon, for the programs that read them.
        let whole = |sql: &str| format!("{};\n", sql.trim_end().trim_end_matches(';'));
        match choice {
            StoreChoice::DynamoDb(_) => schema,
            _ => schema.map(|sql| whole(&sql)),
        }
        .map_err(|error| fault::opening(choice, &error))
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Memory(_) => {}
            Self::Sqlite(store) => store.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.close().await,
            #[cfg(feature = "mysql")]
            Self::Mysql(store) => store.close().await,
            // It has nothing to close.
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(_) => {}
        }
    }
}

async fn sqlite(path: &Path, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let builder = SqliteMetastore::builder();
    let builder = admitting!(builder, admission);
    Ok(Backend::Sqlite(builder.open(path).await?))
}

/// How long a database has for an answer. Nobody waits at a counter for a file, and a run that gives
/// up has to begin anew.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(10);

/// How many calls are under way at once: as many as the databases' stores have connections, so that
/// none of them spends its time waiting for one.
pub(crate) const CALLS_MAX: usize = 10;

#[cfg(feature = "postgres")]
async fn postgres(url: &ServerUrl, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let builder = PostgresMetastore::builder();
    let builder = admitting!(builder, admission);
    Ok(Backend::Postgres(Box::pin(builder.deadline(CALL_WAIT).open(&url.reveal())).await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &ServerUrl, _: Admission<'_>) -> Result<Backend, OpenError> {
    Err(NO_POSTGRES)
}

#[cfg(feature = "mysql")]
async fn mysql(url: &ServerUrl, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let builder = MysqlMetastore::builder();
    let builder = admitting!(builder, admission);
    Ok(Backend::Mysql(Box::pin(builder.deadline(CALL_WAIT).open(&url.reveal())).await?))
}

#[cfg(not(feature = "mysql"))]
async fn mysql(_: &ServerUrl, _: Admission<'_>) -> Result<Backend, OpenError> {
    Err(NO_MYSQL)
}

#[cfg(feature = "dynamodb")]
async fn dynamodb(url: &ServerUrl, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let mut builder = DynamoDbMetastore::builder().table(dynamodb_table(url));
    if let Some(region) = url.option("region") {
        builder = builder.region(region);
    }
    if let Some(endpoint) = url.option("endpoint") {
        builder = builder.endpoint(endpoint);
    }
    let builder = admitting!(builder, admission);
    Ok(Backend::DynamoDb(Box::pin(builder.open()).await?))
}

#[cfg(not(feature = "dynamodb"))]
async fn dynamodb(_: &ServerUrl, _: Admission<'_>) -> Result<Backend, OpenError> {
    Err(NO_DYNAMODB)
}

#[cfg(feature = "postgres")]
#[expect(clippy::unnecessary_wraps, reason = "as the other of the two")]
fn postgres_schema() -> Result<String, OpenError> {
    Ok(PostgresMetastore::SCHEMA.to_owned())
}

#[cfg(not(feature = "postgres"))]
fn postgres_schema() -> Result<String, OpenError> {
    Err(NO_POSTGRES)
}

#[cfg(feature = "mysql")]
#[expect(clippy::unnecessary_wraps, reason = "as the other of the two")]
fn mysql_schema() -> Result<String, OpenError> {
    Ok(MysqlMetastore::SCHEMA.to_owned())
}

#[cfg(not(feature = "mysql"))]
fn mysql_schema() -> Result<String, OpenError> {
    Err(NO_MYSQL)
}

/// Asherah's own table, unless one is named.
#[cfg(feature = "dynamodb")]
fn dynamodb_table(url: &ServerUrl) -> &str {
    match url.host() {
        "" => "EncryptionKey",
        table => table,
    }
}

/// What `aws dynamodb create-table --cli-input-json` takes, and what the store's own request says.
#[cfg(feature = "dynamodb")]
fn dynamodb_schema(url: &ServerUrl) -> Result<String, OpenError> {
    let schema = serde_json::json!({
        "TableName": dynamodb_table(url),
        "AttributeDefinitions": [
            {"AttributeName": "Id", "AttributeType": "S"},
            {"AttributeName": "Created", "AttributeType": "N"},
        ],
        "KeySchema": [
            {"AttributeName": "Id", "KeyType": "HASH"},
            {"AttributeName": "Created", "KeyType": "RANGE"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": true,
    });
    Ok(format!("{schema:#}\n"))
}

#[cfg(not(feature = "dynamodb"))]
fn dynamodb_schema(_: &ServerUrl) -> Result<String, OpenError> {
    Err(NO_DYNAMODB)
}

#[cfg(not(feature = "postgres"))]
const NO_POSTGRES: OpenError = OpenError::Missing { server: "PostgreSQL", feature: "postgres" };

#[cfg(not(feature = "mysql"))]
const NO_MYSQL: OpenError = OpenError::Missing { server: "MySQL and MariaDB", feature: "mysql" };

#[cfg(not(feature = "dynamodb"))]
const NO_DYNAMODB: OpenError = OpenError::Missing { server: "DynamoDB", feature: "dynamodb" };
