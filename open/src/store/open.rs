//! Opens the metastore.

use std::fmt;
#[cfg(feature = "sqlite")]
use std::io;
use std::sync::Arc;

#[cfg(feature = "_table")]
use claviger::{BackendError, CallContext};
use claviger::{BoxedMetastore, BoxedMetastoreAdmin, InMemoryMetastore, MetastoreAdmin};
#[cfg(feature = "dynamodb")]
use claviger_metastore::DynamoDbMetastore;
#[cfg(feature = "mysql")]
use claviger_metastore::MysqlMetastore;
#[cfg(feature = "postgres")]
use claviger_metastore::PostgresMetastore;
#[cfg(feature = "_table")]
use claviger_metastore::SchemaReport;
#[cfg(feature = "sqlite")]
use claviger_metastore::{DangerousSchema, FindingId, SqliteMetastore};
#[cfg(any(feature = "postgres", feature = "mysql"))]
use secrecy::ExposeSecret as _;

use crate::BoxFuture;
use crate::error::OpenError;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::error::SpecError;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::store::SqlSpec;
use crate::store::StoreSpec;
use crate::store::options::StoreOptions;

/// An open metastore of any kind: for a factory, for operators, and with the checks of its table.
#[derive(Clone, Debug)]
pub struct OpenStore {
    store: BoxedMetastoreAdmin,
    table: Arc<dyn Table>,
}

/// Tells a builder on which tables it may open.
#[cfg(feature = "_table")]
macro_rules! accepting {
    ($builder:expr, $options:expr) => {{
        let mut builder = $builder;
        if $options.makes_table {
            builder = builder.migrate();
        }
        if $options.is_checked {
            let builder = builder.read_only($options.read_only);
            $options.accepted.iter().fold(builder, |builder, id| builder.accept(*id))
        } else {
            builder.danger_unchecked()
        }
    }};
}

/// The same of a store whose table may take different ids for one.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
macro_rules! admitted {
    ($builder:expr, $options:expr) => {{ accepting!($builder.folded_ids($options.is_checked && $options.folded_ids), $options) }};
}

/// The same of one on a server.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! on_server {
    ($builder:expr, $sql:expr, $options:expr) => {{
        let mut builder = admitted!($builder, $options);
        if let Some(connections) = $sql.options.connections_max {
            builder = builder.max_connections(connections);
        }
        if let Some(sql) = $sql.options.on_connect {
            builder = builder.on_connect(sql);
        }
        builder
    }};
}

impl StoreSpec {
    /// Opens it.
    ///
    /// # Errors
    /// [`OpenError`], which says why: no secret is in it.
    ///
    /// # Cancel safety
    /// A table that was to be made is there or is not.
    #[cfg_attr(not(feature = "_table"), expect(unused_variables, reason = "the one in memory takes none"))]
    pub async fn open(&self, options: &StoreOptions) -> Result<OpenStore, OpenError> {
        match self {
            Self::Memory => Ok(OpenStore::of(InMemoryMetastore::new())),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => {
                Ok(OpenStore::of(admitted!(SqliteMetastore::builder(), options).open(path).await?))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(sql) => {
                let builder = on_server!(PostgresMetastore::builder(), sql, options);
                Ok(OpenStore::of(Box::pin(builder.open(&sql.reveal(options)?)).await?))
            }
            #[cfg(feature = "mysql")]
            Self::Mysql(sql) => {
                let builder = on_server!(MysqlMetastore::builder(), sql, options);
                Ok(OpenStore::of(Box::pin(builder.open(&sql.reveal(options)?)).await?))
            }
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(spec) => {
                let mut builder = DynamoDbMetastore::builder().table(&spec.table);
                if let Some(region) = &spec.region {
                    builder = builder.region(region);
                }
                if let Some(endpoint) = &spec.endpoint {
                    builder = builder.endpoint(endpoint);
                }
                // Its ids are compared by their bytes, and fold with no other.
                Ok(OpenStore::of(Box::pin(accepting!(builder, options).open()).await?))
            }
            #[cfg(not(all(
                feature = "sqlite",
                feature = "postgres",
                feature = "mysql",
                feature = "dynamodb"
            )))]
            other => Err(other.missing()),
        }
    }

    /// Opens one that is there; `None` if its file is not, or has no table. Nothing is made, whatever `options` say.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open_existing(&self, options: &StoreOptions) -> Result<Option<OpenStore>, OpenError> {
        #[cfg(feature = "sqlite")]
        if let Self::Sqlite(path) = self {
            let options = options.clone().with_table();
            let open = || admitted!(SqliteMetastore::builder(), options).open(path);
            let mut opened = open().await;
            // Another first user may have made it just now, and whole: one that is there is looked at.
            if opened.as_ref().is_err_and(is_lost) && path.exists() {
                opened = open().await;
            }
            return match opened {
                Ok(store) => Ok(Some(OpenStore::of(store))),
                Err(error) if is_lost(&error) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        self.open(&StoreOptions { makes_table: false, ..options.clone() }).await.map(Some)
    }

    /// Returns what makes the table of a metastore that need not be there: statements of SQL, or what
    /// `aws dynamodb create-table --cli-input-json` takes.
    ///
    /// # Errors
    /// [`OpenError::MissingFeature`].
    pub fn schema(&self) -> Result<String, OpenError> {
        match self {
            Self::Memory => Ok(String::new()),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Ok(statements(SqliteMetastore::SCHEMA)),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Ok(statements(PostgresMetastore::SCHEMA)),
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => Ok(statements(MysqlMetastore::SCHEMA)),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(spec) => Ok(create_table(&spec.table)),
            #[cfg(not(all(
                feature = "sqlite",
                feature = "postgres",
                feature = "mysql",
                feature = "dynamodb"
            )))]
            other => Err(other.missing()),
        }
    }

    #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "dynamodb")))]
    const fn missing(&self) -> OpenError {
        let (service, feature) = match self {
            Self::Memory | Self::Sqlite(_) => ("SQLite", "sqlite"),
            Self::Postgres(_) => ("PostgreSQL", "postgres"),
            Self::Mysql(_) => ("MySQL and MariaDB", "mysql"),
            Self::DynamoDb(_) => ("DynamoDB", "dynamodb"),
        };
        OpenError::MissingFeature { service, feature }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl SqlSpec {
    /// The URL with its password.
    fn reveal(&self, options: &StoreOptions) -> Result<String, SpecError> {
        let reveal = |source: &crate::secret::SecretSource| {
            source.reveal(&options.environment, "the password of the metastore", "password = \"@FILE\"")
        };
        let password = self.password.as_ref().map(reveal).transpose()?;
        Ok(self.url.reveal(password.as_ref().map(|password| password.expose_secret())))
    }
}

/// Statements end with a semicolon, for the programs that read them.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
fn statements(sql: &str) -> String {
    format!("{};\n", sql.trim_end().trim_end_matches(';'))
}

/// What the metastore's own request says.
#[cfg(feature = "dynamodb")]
fn create_table(name: &str) -> String {
    let schema = serde_json::json!({
        "TableName": name,
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
    format!("{schema:#}\n")
}

/// Returns `true` if the file of a store that must be there is not, is empty, or has no table.
#[cfg(feature = "sqlite")]
fn is_lost(error: &BackendError) -> bool {
    let lacks_table = |dangerous: &DangerousSchema| {
        dangerous.findings.iter().any(|finding| finding.id == FindingId::TableMissing)
    };
    let causes = || {
        let error: &(dyn std::error::Error + 'static) = error;
        std::iter::successors(Some(error), |&error| error.source())
    };
    causes()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::NotFound)
        || causes().filter_map(|cause| cause.downcast_ref()).any(lacks_table)
}

impl OpenStore {
    fn of<S: MetastoreAdmin + Table + Clone>(store: S) -> Self {
        Self { table: Arc::new(store.clone()), store: BoxedMetastoreAdmin::new(store) }
    }

    /// Returns it for a factory.
    #[must_use]
    pub fn metastore(&self) -> BoxedMetastore {
        self.store.clone().into()
    }

    /// Returns it for operators.
    #[must_use]
    pub const fn admin(&self) -> &BoxedMetastoreAdmin {
        &self.store
    }

    /// Checks its table. One that has none is without findings.
    ///
    /// # Errors
    /// As the metastore's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    #[cfg(feature = "_table")]
    pub async fn check_schema(&self, context: &CallContext) -> Result<SchemaReport, BackendError> {
        self.table.check_schema(context).await
    }

    /// Closes its connections; SQLite tidies up then, so that a copy of its one file is whole.
    ///
    /// # Cancel safety
    /// It goes on at another call.
    pub async fn close(&self) {
        self.table.close().await;
    }
}

/// What the tables of all metastores have in common.
trait Table: fmt::Debug + Send + Sync + 'static {
    #[cfg(feature = "_table")]
    fn check_schema<'a>(
        &'a self,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<SchemaReport, BackendError>>;

    fn close(&self) -> BoxFuture<'_, ()>;
}

impl Table for InMemoryMetastore {
    #[cfg(feature = "_table")]
    fn check_schema<'a>(
        &'a self,
        _context: &'a CallContext,
    ) -> BoxFuture<'a, Result<SchemaReport, BackendError>> {
        Box::pin(async { Ok(SchemaReport::default()) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(feature = "dynamodb")]
impl Table for DynamoDbMetastore {
    fn check_schema<'a>(
        &'a self,
        context: &'a CallContext,
    ) -> BoxFuture<'a, Result<SchemaReport, BackendError>> {
        Box::pin(Self::check_schema(self, context))
    }

    /// It has nothing to close.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
macro_rules! sql_table {
    ($store:ty) => {
        impl Table for $store {
            fn check_schema<'a>(
                &'a self,
                context: &'a CallContext,
            ) -> BoxFuture<'a, Result<SchemaReport, BackendError>> {
                Box::pin(Self::check_schema(self, context))
            }

            fn close(&self) -> BoxFuture<'_, ()> {
                Box::pin(Self::close(self))
            }
        }
    };
}

#[cfg(feature = "sqlite")]
sql_table!(SqliteMetastore);
#[cfg(feature = "postgres")]
sql_table!(PostgresMetastore);
#[cfg(feature = "mysql")]
sql_table!(MysqlMetastore);
