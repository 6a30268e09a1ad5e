//! Connections that a runtime opened which has ended.

use std::cell::Cell;

use claviger::testing::call;
use claviger::{FailureClass, FailureKind, Insert, Metastore as _};
use claviger_testkit::{Direction, Fault, Proxy, call_after_the_openers_end};
use tokio::runtime::Runtime;

use crate::engine::{Engine, LONG, MariaDb, Postgres};
use crate::keys::{NOW, record};

#[test]
fn postgres_outlives_the_runtime_that_connected_in_the_middle_of_a_call() {
    outlives::<Postgres>();
}

#[test]
fn mariadb_outlives_the_runtime_that_connected_in_the_middle_of_a_call() {
    outlives::<MariaDb>();
}

/// A load does not notice, and an insert may be made again.
fn outlives<E: Engine>() {
    let servers = Runtime::new().unwrap();
    let engine = servers.block_on(E::shared());
    let proxy = servers.block_on(Proxy::start(&engine.address()));
    let (old, new) = (record("alice", NOW), record("alice", NOW + 1));
    assert_eq!(
        servers.block_on(async { engine.direct().await.insert(&old, &call()).await }).unwrap(),
        Insert::Inserted
    );
    for inserts in [false, true] {
        let store = servers.block_on(engine.way(&proxy.address(), 1, LONG)).store;
        let (sent, connections) = (Cell::new(0), Cell::new(0));
        let opens = async {
            assert_eq!(store.load(old.meta(), &call()).await.unwrap().as_ref(), Some(&old));
            connections.set(proxy.accepted());
            proxy.set_open(Fault::Stall { direction: Direction::ToServer, after: 1 });
            sent.set(proxy.bytes().0);
        };
        let call = |()| {
            let (store, old, new) = (store.clone(), old.clone(), new.clone());
            async move {
                if inserts {
                    return store
                        .insert(&new, &call())
                        .await
                        .map(|inserted| assert_eq!(inserted, Insert::Inserted));
                }
                let loaded = store.load(old.meta(), &call()).await?;
                assert_eq!(loaded, Some(old));
                Ok(())
            }
        };
        let (called, caller) = call_after_the_openers_end(opens, call, || proxy.bytes().0 > sent.get());
        if inserts {
            assert_eq!(proxy.accepted(), connections.get(), "both calls used one");
            let lost = called.unwrap_err();
            assert_eq!(
                (lost.class(), lost.kind()),
                (FailureClass::Transient, Some(FailureKind::Unreachable))
            );
        } else {
            called.unwrap();
            assert_eq!(proxy.accepted(), connections.get() + 1, "it was made again over a new one");
        }
        caller.block_on(call(())).unwrap();
    }
}
