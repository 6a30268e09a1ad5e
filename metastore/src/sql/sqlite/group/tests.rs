use std::future::{Future, poll_fn};
use std::path::Path;

use claviger::testing::call;
use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::*;

async fn in_a_folder() -> (Arc<Group>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let group = Group::new(pool(&folder.path().join("keys.db")).await);
    (group, folder)
}

async fn pool(file: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    statements::create_table(&mut pool.acquire().await.unwrap()).await.unwrap();
    pool
}

fn insert(created: i64) -> Write {
    let key = KeyMeta::new(KeyId::new("_IK_a_svc_prod"), Created::new(created).unwrap());
    Write::Insert(EnvelopeKeyRecord::new(key, *b"wrapped", None))
}

/// Takes the writer's part before anybody has something to write.
fn become_writer(group: &Arc<Group>) -> Writer {
    group.queue().has_writer = true;
    Writer { group: Arc::clone(group), has_ended: false }
}

async fn assert_waits(mut writing: Pin<&mut impl Future<Output = Outcome>>) {
    let answer = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
    assert!(answer.is_pending(), "{answer:?}");
}

#[tokio::test]
async fn a_writer_that_dies_leaves_the_queue_to_another() {
    let (group, _folder) = in_a_folder().await;
    let writer = become_writer(&group);
    let (mut one, mut other) =
        (pin!(group.write(call().deadline, insert(1))), pin!(group.write(call().deadline, insert(2))));
    assert_waits(one.as_mut()).await;
    assert_waits(other.as_mut()).await;
    drop(writer);
    assert_eq!(one.await.unwrap(), 1);
    assert_eq!(other.await.unwrap(), 1);
}

#[tokio::test]
async fn who_was_in_the_batch_of_a_writer_that_dies_is_told_to_try_again() {
    let (group, _folder) = in_a_folder().await;
    let writer = become_writer(&group);
    let mut writing = pin!(group.write(call().deadline, insert(1)));
    assert_waits(writing.as_mut()).await;
    let batch = group.next_batch().unwrap();
    assert_eq!(batch.len(), 1);
    drop((batch, writer));
    assert!(writing.await.unwrap_err().is_transient());
    assert_eq!(group.write(call().deadline, insert(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn queue_and_batch_are_bounded_and_forget_who_has_gone() {
    let (group, _folder) = in_a_folder().await;
    let _writer = become_writer(&group);
    let mut calls: Vec<_> = (1..=1_030)
        .map(|created| Box::pin(tokio::task::unconstrained(group.write(call().deadline, insert(created)))))
        .collect();
    for writing in &mut calls {
        assert_waits(writing.as_mut()).await;
    }
    assert_eq!(group.queue().jobs.len(), QUEUE_MAX);
    assert_eq!(group.places.available_permits(), 0);
    assert_eq!(group.next_batch().unwrap().len(), BATCH_MAX);
    drop(calls);
    assert!(group.next_batch().is_none());
    assert!(group.queue().jobs.is_empty());
    assert_eq!(group.places.available_permits(), QUEUE_MAX);
}

#[test]
fn a_write_outside_a_runtime_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (group, _folder) = runtime.block_on(in_a_folder());
    let mut writing = pin!(group.write(call().deadline, insert(1)));
    let answer = writing.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let Poll::Ready(Err(error)) = answer else { panic!("it waits, or was written: {answer:?}") };
    assert!(!error.is_transient());
}
