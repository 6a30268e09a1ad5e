//! A session's life in steps, each of which can fail and be repeated.

use std::sync::Mutex;

use claviger::testing::call;
use claviger::{
    BackendError, DataRowRecord, Error, KeyMeta, MetastoreAdmin, Persistence, Session, SessionFactory,
};

use crate::world::{DAY, HOUR, World, assert_at_rest, settle};

/// The steps, in order.
pub(crate) const STEPS: [Step; 8] = [
    Step::Create,
    Step::Encrypt,
    Step::Rotate,
    Step::Revoke,
    Step::Decrypt,
    Step::Store,
    Step::Load,
    Step::DecryptAfterRestart,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Encrypt,
    Rotate,
    Revoke,
    Decrypt,
    Store,
    Load,
    DecryptAfterRestart,
}

/// A session on its way through the script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) world: World,
    factory: SessionFactory,
    session: Session,
    records: Vec<DataRowRecord>,
    rows: Rows,
}

const PAYLOAD: &[u8] = b"4111 1111 1111 1111";

impl Script {
    pub(crate) fn new(world: World) -> Self {
        let factory = world.factory_without_retries();
        let session = factory.session("partition").unwrap();
        Self { world, factory, session, records: Vec::new(), rows: Rows::default() }
    }

    /// Brings about what the step is to meet. Never fails, and is not repeated.
    pub(crate) async fn prepare(&mut self, step: Step) {
        match step {
            Step::Rotate => self.world.clock.advance(91 * DAY),
            Step::Revoke => {
                let newest: KeyMeta = self.records.last().unwrap().parent().unwrap().clone();
                assert!(self.world.store.inner().revoke(&newest, &call()).await.unwrap());
                self.world.clock.advance(HOUR);
            }
            Step::DecryptAfterRestart => {
                self.factory = self.world.factory_without_retries();
                self.session = self.factory.session("partition").unwrap();
            }
            Step::Create | Step::Encrypt | Step::Decrypt | Step::Store | Step::Load => {}
        }
    }

    /// Takes the step. What it may repeat after a failure, it repeats whole.
    pub(crate) async fn take(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Create | Step::Encrypt | Step::Rotate | Step::Revoke => {
                self.records.push(self.session.encrypt(PAYLOAD).await?);
            }
            Step::Decrypt => assert_eq!(*self.session.decrypt(&self.records[0]).await?, *PAYLOAD),
            Step::Store => self.session.store(&self.rows, PAYLOAD).await?,
            Step::Load => {
                let loaded = self.session.load(&self.rows, &()).await?;
                assert_eq!(*loaded.unwrap(), *PAYLOAD);
            }
            Step::DecryptAfterRestart => {
                for record in &self.records {
                    assert_eq!(*self.session.decrypt(record).await?, *PAYLOAD);
                }
            }
        }
        Ok(())
    }

    /// Asserts that nothing half-made is about: each key in memory is in the cache and in the store.
    pub(crate) async fn assert_at_rest(&self) {
        settle(&self.factory).await;
        let status = self.factory.status().unwrap();
        assert_at_rest(&status);
        assert!(status.memory.slots as u64 <= self.world.rows().await, "a key is cached that is not stored");
    }

    /// Asserts that a factory that has never seen these keys reads all records.
    pub(crate) async fn assert_nothing_lost(&self) {
        let session = self.world.factory().session("partition").unwrap();
        for record in &self.records {
            assert_eq!(*session.decrypt(record).await.unwrap(), *PAYLOAD);
        }
    }
}

/// A user's storage with one row.
#[derive(Debug, Default)]
struct Rows(Mutex<Option<DataRowRecord>>);

impl Persistence for Rows {
    type Key = ();

    async fn store(&self, record: &DataRowRecord) -> Result<(), BackendError> {
        *self.0.lock().unwrap() = Some(record.clone());
        Ok(())
    }

    async fn load(&self, _row: &()) -> Result<Option<DataRowRecord>, BackendError> {
        Ok(self.0.lock().unwrap().clone())
    }
}
