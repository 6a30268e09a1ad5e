//! An open key store of any kind.

pub(crate) mod fault;

use std::io;
use std::path::Path;
use std::time::Duration;

use claviger::{
    BackendError, BoxedKms, BoxedMetastore, Error, InMemoryMetastore, MetastoreAdmin as _, RewrapOptions,
    RewrapReport, repair_system_keys, rewrap_system_keys,
};
#[cfg(feature = "dynamodb")]
use claviger_metastore::DynamoDbMetastore;
#[cfg(feature = "mysql")]
use claviger_metastore::MysqlMetastore;
#[cfg(feature = "postgres")]
use claviger_metastore::PostgresMetastore;
use claviger_metastore::{FindingId, SchemaReport, SqliteMetastore, look_for_equal_keys};

use tempfile::TempPath;

use crate::exit::Failure;
use crate::open::{folder_of, make_folder_of};
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

/// What a store is used for, and in spite of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// The dangerous findings in spite of which it is used.
    pub(crate) accepted: &'a [FindingId],
    /// Keys that the table keeps under another id serve decrypts.
    pub(crate) folded_ids: bool,
    /// Nothing is written, so that the right to is not asked for.
    pub(crate) read_only: bool,
}

impl Terms<'_> {
    /// The same for loading keys alone.
    pub(crate) const fn to_read(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// In spite of everything.
    pub(crate) const fn any() -> Self {
        Self { accepted: FindingId::ALL, folded_ids: false, read_only: false }
    }
}

/// On which tables a store is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admission<'a> {
    /// On those without a dangerous finding besides the accepted ones.
    Checked(Terms<'a>),
    /// On any, and on none: to look at it.
    Unchecked,
    /// On any; it is made if there is none.
    Made,
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

/// Tells a builder on which tables it may open.
macro_rules! accepting {
    ($builder:expr, $admission:expr) => {{
        let builder = $builder;
        match $admission {
            Admission::Checked(terms) => {
                let builder = builder.read_only(terms.read_only);
                terms.accepted.iter().fold(builder, |builder, id| builder.accept(*id))
            }
            Admission::Unchecked => builder.danger_unchecked(),
            Admission::Made => builder.danger_unchecked().migrate(),
        }
    }};
}

/// The same of a store whose table may take different ids for one.
macro_rules! admitted {
    ($builder:expr, $admission:expr) => {{
        let folded_ids = matches!($admission, Admission::Checked(terms) if terms.folded_ids);
        accepting!($builder.folded_ids(folded_ids), $admission)
    }};
}

impl Backend {
    pub(crate) async fn open(choice: &StoreChoice, admission: Admission<'_>) -> Result<Self, Failure> {
        let opened = match choice {
            StoreChoice::Memory => Ok(Self::Memory(InMemoryMetastore::new())),
            StoreChoice::Embedded(path) | StoreChoice::Sqlite(path) => sqlite(path, admission).await,
            StoreChoice::Postgres(url) => postgres(url, admission).await,
            StoreChoice::Mysql(url) => mysql(url, admission).await,
            StoreChoice::DynamoDb(url) => dynamodb(url, admission).await,
        };
        opened.map_err(|error| fault::opening(choice, &error))
    }

    /// Opens a store that is there; `None` if its file is not, or has no table. Nothing is made.
    pub(crate) async fn open_existing(
        choice: &StoreChoice,
        terms: Terms<'_>,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = choice.file() else {
            return Self::open(choice, Admission::Checked(terms)).await.map(Some);
        };
        let with_table: Vec<_> =
            terms.accepted.iter().copied().filter(|id| *id != FindingId::TableMissing).collect();
        let admission = Admission::Checked(Terms { accepted: &with_table, ..terms });
        let open = || admitted!(SqliteMetastore::builder(), admission).open(path);
        let mut opened = open().await;
        // Another first user may have made it just now, and whole: one that is there is looked at.
        if opened.as_ref().is_err_and(fault::is_lost) && path.exists() {
            opened = open().await;
        }
        match opened {
            Ok(store) => Ok(Some(Self::Sqlite(store))),
            Err(error) if fault::is_lost(&error) => Ok(None),
            Err(error) => Err(fault::opening(choice, &error.into())),
        }
    }

    /// Opens a store, and makes its file or the table in it if they are not there.
    pub(crate) async fn make(choice: &StoreChoice, terms: Terms<'_>) -> Result<Self, Failure> {
        Self::make_file(choice).await?;
        let admission = Admission::Checked(terms);
        let Some(path) = choice.file() else { return Self::open(choice, admission).await };
        let made = admitted!(SqliteMetastore::builder(), admission).migrate().open(path).await;
        made.map(Self::Sqlite).map_err(|error| fault::opening(choice, &error.into()))
    }

    /// Makes the file of a store in a file, if it is not there. That no log is left of another one has been
    /// looked for.
    pub(crate) async fn make_file(choice: &StoreChoice) -> Result<(), Failure> {
        let Some(path) = choice.file().filter(|path| !path.exists()) else { return Ok(()) };
        if matches!(choice, StoreChoice::Embedded(_)) {
            make_folder_of(path)?;
        }
        match make_whole(path).await {
            Err(error) if is_of_folder(&error) => Err(Failure::create(path, &error)),
            // Where the whole cannot be given its name it is made in place, or told why it cannot be.
            _ => Ok(()),
        }
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

    pub(crate) async fn check_schema(&self, choice: &StoreChoice) -> Result<SchemaReport, Failure> {
        let report = with_table!(self, store => store.check_schema().await, Ok(SchemaReport::default()));
        report.map_err(|error| fault::using(choice, "cannot check", &error))
    }

    /// Looks at every row for a key that another has too.
    pub(crate) async fn look_for_equal_keys(
        &self,
        choice: &StoreChoice,
        report: &mut SchemaReport,
    ) -> Result<(), Failure> {
        let looked = with_table!(self, store => look_for_equal_keys(store, report).await, Ok(()));
        looked.map_err(|error| fault::using(choice, "cannot check", &error))
    }

    /// How many rows there are.
    pub(crate) async fn count(&self) -> Result<u64, BackendError> {
        with_table!(self, store => store.count().await, Ok(0))
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

/// Makes a file that has its table when it has its name, so that nobody ever sees one without. It is not
/// made where there is one by now.
async fn make_whole(path: &Path) -> io::Result<()> {
    // With the files that SQLite keeps beside it.
    let making = tempfile::Builder::new().prefix(".claviger-keys-").tempdir_in(folder_of(path))?;
    let file = making.path().join("keys.db");
    SqliteMetastore::migrate(&file).await.map_err(io::Error::other)?.close().await;
    // The name itself is on the disk when the first key is: then SQLite syncs the folder, for its log.
    TempPath::try_from_path(file)?.persist_noclobber(path)?;
    Ok(())
}

/// Tells whether no file at all can be made there.
fn is_of_folder(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

async fn sqlite(path: &Path, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let builder = admitted!(SqliteMetastore::builder(), admission);
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
    let builder = admitted!(PostgresMetastore::builder(), admission);
    Ok(Backend::Postgres(Box::pin(builder.deadline(CALL_WAIT).open(&url.reveal())).await?))
}

#[cfg(not(feature = "postgres"))]
async fn postgres(_: &ServerUrl, _: Admission<'_>) -> Result<Backend, OpenError> {
    Err(NO_POSTGRES)
}

#[cfg(feature = "mysql")]
async fn mysql(url: &ServerUrl, admission: Admission<'_>) -> Result<Backend, OpenError> {
    let builder = admitted!(MysqlMetastore::builder(), admission);
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
    // Its ids are compared by their bytes, and fold with no other.
    let builder = accepting!(builder, admission);
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
    Ok(crate::escape::json(&format!("{schema:#}\n")))
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
