//! Operations that the parent had begun when it forked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use claviger::{
    BackendError, DataRowRecord, Error, InMemoryMetastore, Persistence, Session, SessionFactory, SystemRandom,
};
use tokio::runtime::Builder;

use crate::{assert_works, builder, forked, in_use};

/// Waits for nothing, in either process: what counts is who holds it.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

type Begun<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// A record at hand, or a place for one.
struct AtHand(DataRowRecord);

impl Persistence for AtHand {
    type Key = ();

    async fn store(&self, _record: &DataRowRecord) -> Result<(), BackendError> {
        Ok(())
    }

    async fn load(&self, _key: &()) -> Result<Option<DataRowRecord>, BackendError> {
        Ok(Some(self.0.clone()))
    }
}

/// Every operation that may have to wait, by its name: begun, and waiting.
fn begun<'a>(
    factory: &'a SessionFactory,
    session: &'a Session,
    at_hand: &'a AtHand,
    json: &'a str,
    waker: &Waker,
) -> Vec<(&'static str, Begun<'a>)> {
    let key = at_hand.0.parent().unwrap();
    let mut begun: Vec<(&str, Begun<'a>)> = vec![
        ("encrypt", Box::pin(async { session.encrypt(b"").await.map(drop) })),
        ("encrypt_json", Box::pin(async { session.encrypt_json(b"").await.map(drop) })),
        ("store", Box::pin(async { session.store(at_hand, b"").await })),
        ("decrypt", Box::pin(async { session.decrypt(&at_hand.0).await.map(drop) })),
        ("decrypt_json", Box::pin(async { session.decrypt_json(json.as_bytes()).await.map(drop) })),
        ("load", Box::pin(async { session.load(at_hand, &()).await.map(drop) })),
        ("warm_up", Box::pin(async { factory.warm_up(["other"]).await.map(drop) })),
        ("restore_lost", Box::pin(async { factory.restore_lost(key).await.map(drop) })),
        // The last, since after it nothing begins.
        ("close", Box::pin(async { factory.close(Duration::from_secs(9)).await.map(drop) })),
    ];
    for (name, operation) in &mut begun {
        assert!(poll(operation.as_mut(), waker).is_pending(), "{name}");
    }
    begun
}

#[test]
fn s2_5_forked_child_is_refused_by_what_the_parent_began() {
    let (_factory, _session, record) = in_use(SystemRandom::new());
    let json = record.to_json();
    // Nobody drives it, so what is begun comes to no end.
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let (store, handle) = (InMemoryMetastore::new(), runtime.handle().clone());
    let factory = builder(store, SystemRandom::new()).runtime(handle).build().unwrap();
    let (session, at_hand) = (factory.session("partition").unwrap(), AtHand(record));
    let nobody = Arc::new(Nobody);
    let mut held = begun(&factory, &session, &at_hand, &json, &Waker::from(Arc::clone(&nobody)));
    forked(|| {
        for (name, mut operation) in held.drain(..) {
            let polled = poll(operation.as_mut(), Waker::noop());
            assert!(matches!(polled, Poll::Ready(Err(Error::Forked))), "{name}");
        }
    });
    // They wait for flights: dropping that takes locks which a thread of the parent may hold.
    let holders = Arc::strong_count(&nobody);
    forked(|| {
        for (name, operation) in held.drain(..) {
            drop(operation);
            assert_eq!(Arc::strong_count(&nobody), holders, "{name}");
        }
    });
    held.clear();
    assert_eq!(Arc::strong_count(&nobody), 1, "the parent lets go of what it waited for");
}

/// A child that waited for a lock which a thread of the parent held at the fork would hang until its
/// alarm: that thread does not exist there.
#[test]
fn s2_5_forked_child_lets_go_of_what_a_busy_parent_began() {
    // Its loads run on a thread of its own.
    let (factory, _session, record) = in_use(SystemRandom::new());
    for fork in 0..500 {
        let sessions = [0, 1, 2, 3].map(|number| factory.session(&format!("{fork} {number}")).unwrap());
        let mut waiting: Vec<_> = sessions.iter().map(|session| Box::pin(session.encrypt(b""))).collect();
        // The loads that they wait for land at just this time.
        waiting.retain_mut(|operation| poll(operation.as_mut(), Waker::noop()).is_pending());
        forked(|| {
            if let Some(operation) = waiting.first_mut() {
                assert!(matches!(poll(operation.as_mut(), Waker::noop()), Poll::Ready(Err(Error::Forked))));
            }
            waiting.clear();
        });
    }
    assert_works(&factory, &record);
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}
