//! Where the keys are.

use aws_sdk_dynamodb::config::Credentials;
use claviger::BoxedMetastore;
use claviger_metastore::{DynamoDbMetastore, MysqlMetastore, PostgresMetastore, SqliteMetastore};

pub(crate) const SERVICE: &str = "svc";
pub(crate) const PRODUCT: &str = "prod";

#[derive(Debug)]
pub(crate) enum Place {
    Postgres(String),
    MariaDb(String),
    DynamoDb(String),
    Sqlite(String),
}

pub(crate) enum Store {
    Postgres(PostgresMetastore),
    MariaDb(MysqlMetastore),
    DynamoDb(DynamoDbMetastore),
    Sqlite(SqliteMetastore),
}

impl Place {
    /// Makes the table, and a store for the operator.
    pub(crate) async fn create(&self) -> Store {
        match self {
            Self::Postgres(url) => Store::Postgres(PostgresMetastore::migrate(url).await.unwrap()),
            Self::MariaDb(url) => Store::MariaDb(MysqlMetastore::migrate(url).await.unwrap()),
            Self::DynamoDb(endpoint) => {
                Store::DynamoDb(Box::pin(dynamodb(endpoint).migrate().open()).await.unwrap())
            }
            Self::Sqlite(file) => Store::Sqlite(SqliteMetastore::migrate(file).await.unwrap()),
        }
    }

    /// Opens it as a service does.
    pub(crate) async fn open(&self) -> BoxedMetastore {
        match self {
            Self::Postgres(url) => BoxedMetastore::new(PostgresMetastore::open(url).await.unwrap()),
            Self::MariaDb(url) => BoxedMetastore::new(MysqlMetastore::open(url).await.unwrap()),
            Self::DynamoDb(endpoint) => {
                BoxedMetastore::new(Box::pin(dynamodb(endpoint).open()).await.unwrap())
            }
            Self::Sqlite(file) => BoxedMetastore::new(SqliteMetastore::open(file).await.unwrap()),
        }
    }

    /// A line for another process.
    pub(crate) fn to_line(&self) -> String {
        match self {
            Self::Postgres(url) => format!("postgres {url}"),
            Self::MariaDb(url) => format!("mariadb {url}"),
            Self::DynamoDb(endpoint) => format!("dynamodb {endpoint}"),
            Self::Sqlite(file) => format!("sqlite {file}"),
        }
    }

    pub(crate) fn from_line(line: &str) -> Self {
        let (kind, place) = line.split_once(' ').unwrap();
        let place = place.to_owned();
        match kind {
            "postgres" => Self::Postgres(place),
            "mariadb" => Self::MariaDb(place),
            "dynamodb" => Self::DynamoDb(place),
            "sqlite" => Self::Sqlite(place),
            other => panic!("{other}"),
        }
    }
}

fn dynamodb(endpoint: &str) -> claviger_metastore::DynamoDbBuilder {
    let credentials = Credentials::new("AKIDEXAMPLE", "canary-secret", None, None, "tests");
    DynamoDbMetastore::builder().region("eu-central-1").endpoint(endpoint).credentials(credentials)
}
