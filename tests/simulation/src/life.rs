//! What a process's users do: each operation is a task, and may go away at any await.

use std::pin::pin;
use std::task::Poll;

use claviger::{DataRowRecord, Error, Session, SessionFactory};
use tokio::time::{Instant, timeout};

use crate::machine::Machine;
use crate::operator;
use crate::oracle::{self, Asked};
use crate::plan::Leave;
use crate::settings::ms;
use crate::world::{Sealed, Shared};

/// One operation, while it is under way.
pub(crate) struct Operation {
    world: Shared,
    pub(crate) asked: Asked,
}

impl Operation {
    pub(crate) fn new(world: Shared, who: usize, partition: String) -> Self {
        let mut life = 0;
        if let Some(seen) = world.lock().machines.get_mut(who) {
            seen.operations += 1;
            life = seen.life;
        }
        Self { world, asked: Asked { who, life, partition, at: Instant::now() } }
    }

    /// Encrypts, unless the caller leaves before.
    pub(crate) async fn encrypt(mut self, session: Session, leave: Leave) {
        self.asked.at = Instant::now();
        let plaintext = format!("{} {:?}", self.asked.partition, self.asked.at).into_bytes();
        match leaving(leave, session.encrypt(&plaintext)).await {
            Some(outcome) => self.encrypted(plaintext, outcome),
            None => self.world.tell(format!("{} leaves encrypt {}", self.asked.who, self.asked.partition)),
        }
    }

    pub(crate) fn encrypted(&self, plaintext: Vec<u8>, outcome: Result<DataRowRecord, Error>) {
        let mut world = self.world.lock();
        let Asked { who, partition, .. } = &self.asked;
        match outcome {
            Ok(record) => {
                let Some(key) = record.parent().cloned() else { return };
                world.tell(&format!("{who} encrypts {partition} under {}", crate::short(&key)));
                let partition = partition.clone();
                let sealed = Sealed { record, key, partition, plaintext };
                oracle::encrypt::returned(&mut world, &self.asked, &sealed);
                world.sealed.push(sealed);
            }
            Err(error) => {
                world.tell(&format!("{who} cannot encrypt {partition}: {error}"));
                oracle::encrypt::failed(&mut world, &self.asked, &error);
            }
        }
    }

    /// Decrypts, unless the caller leaves before.
    pub(crate) async fn decrypt(mut self, session: Session, sealed: Sealed, leave: Leave) {
        self.asked.at = Instant::now();
        match leaving(leave, session.decrypt(&sealed.record)).await {
            Some(outcome) => self.decrypted(&sealed, outcome.map(|plaintext| plaintext.to_vec())),
            None => self.world.tell(format!("{} leaves decrypt", self.asked.who)),
        }
    }

    pub(crate) fn decrypted(&self, sealed: &Sealed, outcome: Result<Vec<u8>, Error>) {
        let mut world = self.world.lock();
        let (who, key) = (self.asked.who, crate::short(&sealed.key));
        match outcome {
            Ok(plaintext) => {
                world.tell(&format!("{who} decrypts under {key}"));
                oracle::decrypt::returned(&mut world, &self.asked, sealed, &plaintext);
            }
            Err(error) => {
                world.tell(&format!("{who} cannot decrypt under {key}: {error}"));
                oracle::decrypt::failed(&mut world, &self.asked, sealed, &error);
            }
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let (who, life) = (self.asked.who, self.asked.life);
        let mut world = self.world.lock();
        if let Some(seen) = world.machines.get_mut(who).filter(|seen| seen.life == life) {
            seen.operations = seen.operations.saturating_sub(1);
        }
    }
}

/// Warms a process up, unless the caller leaves before.
pub(crate) async fn warm_up(
    world: Shared,
    who: usize,
    factory: SessionFactory,
    partitions: Vec<String>,
    leave: Leave,
) {
    match leaving(leave, factory.warm_up(&partitions)).await {
        Some(Ok(report)) => {
            let (loaded, cached, failed) = (report.loaded, report.cached, report.failed.len());
            world.tell(format!("{who} warmed up: {loaded} loaded, {cached} cached, {failed} failed"));
        }
        Some(Err(error)) => world.tell(format!("{who} cannot warm up: {error}")),
        None => world.tell(format!("{who} leaves warm-up")),
    }
}

/// Waits for a future, and drops it when the caller leaves: `None`.
pub(crate) async fn leaving<F: Future>(leave: Leave, future: F) -> Option<F::Output> {
    match leave {
        Leave::Never => Some(future.await),
        Leave::After(time) => timeout(ms(time), future).await.ok(),
        Leave::Polls(polls) => {
            let (mut future, mut left) = (pin!(future), polls);
            std::future::poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if left <= 1 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        }
    }
}

/// Tells a factory that the rows of this key in the table, or of any, may have changed.
pub(crate) fn invalidate(world: &Shared, machine: &Machine, number: Option<usize>) {
    let key = number.map(|number| operator::row(&world.lock(), number));
    let told = match &key {
        None => machine.factory.invalidate_all(),
        Some(None) => return,
        Some(Some(key)) => machine.factory.invalidate(key.id()),
    };
    if told.is_err() {
        return;
    }
    let mut world = world.lock();
    let now = Instant::now();
    if let Some(seen) = world.machines.get_mut(machine.who) {
        match key.flatten() {
            None => seen.told_all = Some(now),
            Some(key) => drop(seen.told.insert(key.id().clone(), now)),
        }
    }
    world.tell(&format!("{} is told of changes", machine.who));
}

/// Puts back what a factory found lost.
pub(crate) async fn restore_lost(world: Shared, who: usize, factory: SessionFactory) {
    let lost = factory.status().map(|status| status.lost_rows).unwrap_or_default();
    for row in lost {
        let said = match factory.restore_lost(&row.key).await {
            Ok(is_back) => format!("{who} restores {}: {is_back}", crate::short(&row.key)),
            Err(error) => format!("{who} cannot restore {}: {error}", crate::short(&row.key)),
        };
        world.tell(said);
    }
}
