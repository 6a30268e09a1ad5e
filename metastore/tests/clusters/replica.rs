//! A replica that dies: whoever decrypts is answered by the store itself.

use std::time::Duration;

use claviger::{CryptoPolicy, Event, SessionFactory};
use claviger_metastore::PostgresMetastore;
use claviger_testkit::{Direction, Fault, Postgres, Proxy};

use crate::load::{Sealed, builder, factory, policy, raised, until};

fn reading_replicas(store: PostgresMetastore) -> SessionFactory {
    let policy: CryptoPolicy = policy().replica_reads(true).revoke_check_interval(Duration::from_secs(600));
    builder(store).policy(policy).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replica_is_left_alone_told_once_and_used_again_when_it_is_back() {
    let primary = Postgres::start();
    let url = primary.url("postgres");
    PostgresMetastore::builder().danger_unchecked().migrate().open(&url).await.unwrap();
    let standby = Postgres::standby_of(&primary, "second");
    let proxy = Proxy::start(&format!("127.0.0.1:{}", standby.port())).await;
    let replica = standby.url("postgres").replace(&standby.port().to_string(), &proxy.port().to_string());
    let writer = factory(PostgresMetastore::open(&url).await.unwrap());
    let mut sealed = Vec::new();
    for number in 0..400 {
        sealed.push(Sealed::new(&writer, &format!("p{number}"), "text").await.unwrap());
    }
    let store = PostgresMetastore::builder().replica_url(replica).open(&url).await.unwrap();
    let reader = reading_replicas(store);
    let is_down = || reader.status().unwrap().replica_down;
    let (of_living, rest) = sealed.split_at(50);
    let (of_dead, of_returned) = rest.split_at(200);
    let mut of_living = of_living.iter();
    // On a machine with much to do its first answers may come too late.
    until("it is asked", async || {
        of_living.next().unwrap().open(&reader).await.unwrap();
        !is_down() && proxy.accepted() > 0
    })
    .await;
    let lost_before = raised(&reader, Event::ReplicaLost);
    // It answers no more, and nobody hangs up.
    proxy.set(Fault::Stall { direction: Direction::ToClient, after: 0 });
    proxy.set_open(Fault::Stall { direction: Direction::ToClient, after: 0 });
    for sealed in of_dead {
        sealed.open(&reader).await.unwrap();
    }
    assert!(is_down());
    assert_eq!(raised(&reader, Event::ReplicaLost), lost_before + 1);
    proxy.set(Fault::None);
    proxy.set_open(Fault::None);
    let mut of_returned = of_returned.iter();
    until("it is asked again", async || {
        of_returned.next().unwrap().open(&reader).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        !is_down()
    })
    .await;
    assert_eq!(raised(&reader, Event::ReplicaLost), lost_before + 1);
}
