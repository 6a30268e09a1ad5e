//! What a forked child finds of its parent's factory (S2.5), and what signals leave of its keys.
//!
//! These tests are of the library that is built on this crate. They are here since they fork and catch
//! signals, which takes `unsafe`.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "forks, and catches signals")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]
#![allow(clippy::cast_possible_truncation, reason = "takes words apart into bytes")]

mod begun;
mod profiled;
#[path = "../../../tests/memory_scan/random.rs"]
mod random;
#[path = "../../../tests/memory_scan/scan.rs"]
mod scan;

use std::collections::HashSet;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use claviger::{
    DataRowRecord, Error, InMemoryMetastore, Limits, Metastore, SecretKey, SecureRandom, Session,
    SessionFactory, SessionFactoryBuilder, StaticKms, SystemRandom,
};
use tokio::runtime::Builder;

use random::Recomputable;
use scan::scan;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn s2_5_forked_child_is_refused_by_the_parents_factory() {
    let (factory, session, record) = in_use(SystemRandom::new());
    let json = record.to_json();
    forked(|| {
        assert!(matches!(factory.session("partition"), Err(Error::Forked)));
        assert!(matches!(factory.status(), Err(Error::Forked)));
        assert!(matches!(at_once(factory.close(SECOND)), Err(Error::Forked)));
        assert!(matches!(at_once(session.encrypt(b"")), Err(Error::Forked)));
        assert!(matches!(at_once(session.decrypt(&record)), Err(Error::Forked)));
        assert!(matches!(at_once(session.encrypt_json(b"")), Err(Error::Forked)));
        assert!(matches!(at_once(session.decrypt_json(json.as_bytes())), Err(Error::Forked)));
        // A child of the child is no more the parent than the child is.
        forked(|| assert!(matches!(at_once(session.encrypt(b"")), Err(Error::Forked))));
    });
    assert_works(&factory, &record);
}

#[test]
fn s2_5_forked_child_reads_no_key_of_the_parent() {
    let random = Recomputable::new(9);
    let (factory, session, record) = in_use(random.clone());
    forked(|| {
        let hits = scan(&random.needles());
        assert_eq!((hits.protected, hits.elsewhere.len()), (0, 0), "{:?}", hits.elsewhere);
    });
    assert!(scan(&random.needles()).protected > 0, "the parent has its keys");
    drop(session);
    assert_works(&factory, &record);
}

#[test]
fn s2_5_forked_child_drops_the_parents_factory_without_harm() {
    let store = Arc::new(InMemoryMetastore::new());
    let factory = builder(Arc::clone(&store), SystemRandom::new()).build().unwrap();
    let session = factory.session("partition").unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let record = runtime.block_on(session.encrypt(b"payload")).unwrap();
    let holders = Arc::strong_count(&store);
    let mut held = Some((factory, session));
    forked(|| {
        drop(held.take());
        assert_eq!(Arc::strong_count(&store), holders, "its connections are the parent's");
    });
    let (factory, session) = held.unwrap();
    drop(session);
    assert_works(&factory, &record);
}

/// A child that waited for a lock which a thread of the parent held at the fork would hang until
/// its alarm: that thread does not exist there.
#[test]
fn s2_5_forked_child_waits_for_no_lock_of_a_busy_parent() {
    let (factory, session, record) = in_use(SystemRandom::new());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop_also_after_a_failure = StopOnDrop(&stop);
        for worker in 0..2 {
            let (factory, stop) = (factory.clone(), &stop);
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().enable_time().build().unwrap();
                for partition in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Mostly handles made and dropped, now and then a key made, and one evicted.
                    let session = factory.session(&format!("{worker} {partition}")).unwrap();
                    if partition.is_multiple_of(16) {
                        runtime.block_on(session.encrypt(b"")).unwrap();
                    }
                }
            });
        }
        for fork in 0..1_500 {
            let mut held = Some((factory.clone(), factory.session(&format!("fork {fork}")).unwrap()));
            forked(|| {
                let (factory, session) = held.take().unwrap();
                assert!(matches!(factory.status(), Err(Error::Forked)));
                assert!(matches!(at_once(session.encrypt(b"")), Err(Error::Forked)));
                drop(factory);
                drop(session);
            });
        }
    });
    drop(session);
    assert_works(&factory, &record);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn s2_5_forked_child_builds_a_factory_of_its_own() {
    let (factory, session, record) = in_use(SystemRandom::new());
    forked(|| {
        let (own, _session, theirs) = in_use(SystemRandom::new());
        assert_works(&own, &theirs);
        assert!(matches!(at_once(session.encrypt(b"")), Err(Error::Forked)), "the parent's stays refused");
    });
    assert_works(&factory, &record);
}

/// The register asks for 10^6; a debug build draws these in seconds.
#[test]
fn s2_5_forked_child_draws_no_nonce_of_its_parent_or_sibling() {
    const CHILDREN: usize = 4;
    const RECORDS: usize = 5_000;
    let (_factory, session, _record) = in_use(SystemRandom::new());
    let draw = |session: &Session| {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let seal = |_| runtime.block_on(session.encrypt(b"")).unwrap().wrapped_key().last_chunk().copied();
        (0..RECORDS).filter_map(seal).collect::<Vec<[u8; NONCE_BYTES]>>()
    };
    let mut nonces = draw(&session);
    for _ in 0..CHILDREN {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let child = start(|| {
            let (_own, session, _record) = in_use(SystemRandom::new());
            writer.write_all(draw(&session).as_flattened()).unwrap();
        });
        drop(writer);
        nonces.extend(all_from(&mut reader).as_chunks().0);
        assert_ended_well(child);
    }
    nonces.extend(draw(&session));
    assert_eq!(nonces.len(), (CHILDREN + 2) * RECORDS);
    assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), nonces.len());
}

const NONCE_BYTES: usize = 12;

/// A factory with few keys in its cache, one of its sessions, and a record of that.
fn in_use(random: impl SecureRandom + Clone) -> (SessionFactory, Session, DataRowRecord) {
    let factory = builder(InMemoryMetastore::new(), random).build().unwrap();
    let session = factory.session("partition").unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let record = runtime.block_on(session.encrypt(b"payload")).unwrap();
    (factory, session, record)
}

fn builder(metastore: impl Metastore, random: impl SecureRandom) -> SessionFactoryBuilder {
    let master_key = SecretKey::generate(&random).unwrap();
    SessionFactory::builder(metastore, StaticKms::new(&master_key).unwrap())
        .service("service")
        .product("product")
        .limits(Limits::production().max_intermediate_keys(10))
        .random(random)
}

fn assert_works(factory: &SessionFactory, record: &DataRowRecord) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let session = factory.session("partition").unwrap();
    assert_eq!(*runtime.block_on(session.decrypt(record)).unwrap(), *b"payload");
    runtime.block_on(session.encrypt(b"")).unwrap();
}

/// Returns what a future answers at its first poll: there is no runtime of the parent's to wait on.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Forks, and asserts that `child` returns in the child; a hang there counts as failure.
fn forked(child: impl FnOnce()) {
    assert_ended_well(start(child));
}

fn start(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls nothing that another thread's lock could block but malloc, which
    // glibc makes usable after a fork, and, so is the claim, claviger. It ends by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            // SAFETY: both calls only concern this process.
            unsafe { libc::alarm(20) };
            let is_well = catch_unwind(AssertUnwindSafe(child)).is_ok();
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!is_well)) };
        }
        child => child,
    }
}

fn assert_ended_well(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let status = ExitStatus::from_raw(status);
    assert!(status.success(), "the forked child: {status}");
}

fn all_from(reader: &mut PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}
