//! A small service that keeps notes per customer, encrypted, in its own SQLite table.
//!
//! It reads requests from standard input, one a line, and answers on standard output:
//!
//! ```text
//! $ cargo run -p claviger-example-service -- /tmp/notes
//! put alice call back on Monday
//! 1
//! get alice 1
//! call back on Monday
//! get bob 1
//! no such note
//! health
//! {"state":"ok","reasons":[]}
//! ```
//!
//! The folder then holds `notes.db` with the sealed notes, `keys.db` with the wrapped keys, and
//! `master.key`. A real service would take its master key from a KMS.

mod notes;

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use claviger::SessionFactory;
use claviger_kms::LocalKms;
use claviger_metastore::SqliteMetastore;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout};

use notes::Notes;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).ok_or("usage: claviger-example-service FOLDER")?;
    std::fs::create_dir_all(&folder)?;
    let service = Service::open(Path::new(&folder)).await?;

    let mut requests = BufReader::new(stdin()).lines();
    while let Some(request) = requests.next_line().await? {
        // One bad request does not end the service.
        let answer = service.answer(&request).await.unwrap_or_else(|error| format!("error: {error}"));
        stdout().write_all(format!("{answer}\n").as_bytes()).await?;
        stdout().flush().await?;
    }
    service.close().await
}

struct Service {
    factory: SessionFactory,
    keys: SqliteMetastore,
    notes: Notes,
}

impl Service {
    async fn open(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let keys = SqliteMetastore::migrate(folder.join("keys.db")).await?;
        let kms = LocalKms::open_or_create(folder.join("master.key"))?;
        let factory =
            SessionFactory::builder(keys.clone(), kms).service("notes").product("example").build()?;
        Ok(Self { factory, keys, notes: Notes::open(&folder.join("notes.db")).await? })
    }

    /// Each customer's notes are encrypted under that customer's key: the session of one cannot
    /// read the records of another, whatever the query returns.
    async fn answer(&self, request: &str) -> Result<String, Box<dyn Error>> {
        match request.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            ["put", customer, text] => {
                let session = self.factory.session(customer)?;
                let id = session.store(&self.notes.of(customer), text.as_bytes()).await?;
                Ok(id.to_string())
            }
            ["get", customer, id] => {
                let session = self.factory.session(customer)?;
                let note = session.load(&self.notes.of(customer), &id.parse()?).await?;
                Ok(note.map_or_else(
                    || "no such note".to_owned(),
                    |text| String::from_utf8_lossy(&text).into_owned(),
                ))
            }
            ["health"] => Ok(serde_json::to_string(&self.factory.status()?.health())?),
            _ => Err("a request is `put CUSTOMER TEXT`, `get CUSTOMER ID` or `health`".into()),
        }
    }

    async fn close(self) -> Result<(), Box<dyn Error>> {
        let report = self.factory.close(Duration::from_secs(5)).await?;
        self.notes.close().await;
        self.keys.close().await;
        if report.is_clean() { Ok(()) } else { Err(format!("not closed in time: {report:?}").into()) }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn notes_are_read_by_their_customer_only_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::open(folder.path()).await.unwrap();
        assert_eq!(service.answer("put alice call back on Monday").await.unwrap(), "1");
        assert_eq!(service.answer("get alice 1").await.unwrap(), "call back on Monday");
        assert_eq!(service.answer("get bob 1").await.unwrap(), "no such note");
        assert_eq!(service.answer("health").await.unwrap(), r#"{"state":"ok","reasons":[]}"#);
        assert!(service.answer("drop everything").await.is_err());
        service.close().await.unwrap();

        let service = Service::open(folder.path()).await.unwrap();
        assert_eq!(service.answer("get alice 1").await.unwrap(), "call back on Monday");
        service.close().await.unwrap();
        let stored = std::fs::read(folder.path().join("notes.db")).unwrap();
        assert!(!stored.windows(6).any(|window| window == b"Monday"), "a note is stored in the clear");
    }

    #[tokio::test]
    async fn a_note_that_another_process_keeps_waiting_may_be_stored_later() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::open(folder.path()).await.unwrap();
        service.answer("put alice first").await.unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("notes.db"));
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();

        let is_retryable = async || {
            let error = service.answer("put alice second").await.unwrap_err();
            error.downcast_ref::<claviger::Error>().unwrap().is_retryable()
        };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        assert!(is_retryable().await, "a lock passes");
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        sqlx::query("DROP TABLE notes").execute(&mut other).await.unwrap();
        assert!(!is_retryable().await, "a table that is not there does not come back");
        service.close().await.unwrap();
    }
}
