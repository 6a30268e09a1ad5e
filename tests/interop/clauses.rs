//! What holds between us and the peers on every store.
//!
//! The first peer of the world leads, as "Asherah" in the names; the others have to follow as we do.

use claviger::{DataRowRecord, Error, KeyId, MetastoreAdmin};

use crate::world::{EXPIRE_AFTER, HOUR, PARTITION, World, assert_decrypts, assert_one_key, now};

/// Makes each clause a test in worlds that `$world`, a future, makes.
macro_rules! clauses {
    ($world:expr) => {
        $crate::clauses::clauses! {
            @ $world;
            each_reads_what_the_other_writes_under_the_same_keys,
            those_who_write_at_once_agree_on_one_key,
            records_of_another_partition_are_refused_by_both,
            asherah_replaces_our_expired_keys_and_we_follow,
            we_replace_expired_keys_of_asherah_and_it_follows,
            asherah_replaces_a_key_we_revoked_and_we_follow_in_a_live_session,
            we_replace_a_key_revoked_in_the_minute_it_was_made_and_asherah_follows,
            we_replace_the_keys_under_a_revoked_system_key_and_asherah_follows,
            what_a_live_session_of_asherah_writes_around_a_revocation_is_readable,
        }
    };
    (@ $world:expr; $($clause:ident,)+) => {
        $(
            #[tokio::test]
            async fn $clause() {
                $crate::clauses::$clause($world.await).await;
            }
        )+
    };
}
pub(crate) use clauses;

/// Makes the clauses tests twice: either of the two packages leads.
macro_rules! led_by_each {
    ($module:ident, |$packages:ident| $world:expr) => {
        mod $module {
            use super::*;

            mod go_leads {
                use super::*;
                $crate::clauses::clauses!({
                    let $packages = &[Package::Go, Package::Rust];
                    $world
                });
            }

            mod rust_leads {
                use super::*;
                $crate::clauses::clauses!({
                    let $packages = &[Package::Rust, Package::Go];
                    $world
                });
            }
        }
    };
}
pub(crate) use led_by_each;

/// In every order of who comes first and so makes the keys.
pub(crate) async fn each_reads_what_the_other_writes_under_the_same_keys<S: MetastoreAdmin + Clone>(
    mut world: World<S>,
) {
    let ours = world.ours();
    let large = vec![0xa5; 100_000];
    let payloads: [&[u8]; 4] = [b"", b"\0", "4111 1111 1111 1111, Zoë".as_bytes(), &large];
    let partitions = world.partitions.clone();
    for (turn, partition) in partitions.iter().enumerate() {
        let session = ours.session(partition).unwrap();
        for payload in payloads.into_iter().cycle().skip(turn).take(2) {
            let mut records = Vec::new();
            if turn % 2 == 0 {
                records.push(session.encrypt(payload).await.unwrap());
            }
            if turn % 3 == 0 {
                records.extend(world.others.iter_mut().map(|peer| peer.encrypt(partition, payload)));
                records.push(world.lead.encrypt(partition, payload));
            } else {
                records.extend(world.peers().map(|peer| peer.encrypt(partition, payload)));
            }
            if turn % 2 == 1 {
                records.push(session.encrypt(payload).await.unwrap());
            }
            assert_one_key(&records);
            for record in &records {
                assert_decrypts(&session, record, payload).await;
                world.peers().for_each(|peer| peer.assert_decrypts(partition, record, payload));
            }
        }
    }
    // One system key, and not counted what a peer keeps beside the keys.
    assert_eq!(world.count().await, 1 + partitions.len() as u64);
}

pub(crate) async fn those_who_write_at_once_agree_on_one_key<S: MetastoreAdmin + Clone>(mut world: World<S>) {
    let mut agreed = 0;
    for attempt in 0.. {
        let partition = format!("new-{attempt}");
        let minute = now() / 60;
        world.catch_up();
        let session = world.ours().session(&partition).unwrap();
        world.peers().for_each(|peer| peer.begin_encrypt(&partition, b"at once"));
        let mut records = vec![session.encrypt(b"at once").await.unwrap()];
        records.extend(world.peers().map(|peer| peer.end_encrypt().unwrap()));
        for record in &records {
            assert_decrypts(&session, record, b"at once").await;
            world.peers().for_each(|peer| peer.assert_decrypts(&partition, record, b"at once"));
        }
        // Keys are made to the minute: those who begin in different ones may make two.
        if now() / 60 == minute {
            assert_one_key(&records);
            agreed += 1;
        }
        if agreed == 5 {
            break;
        }
    }
}

pub(crate) async fn records_of_another_partition_are_refused_by_both<S: MetastoreAdmin + Clone>(
    mut world: World<S>,
) {
    for record in world.all_encrypt(b"mine").await {
        for peer in world.peers() {
            peer.assert_refuses("customer-18", &record);
        }
        let error = world.ours().session("customer-18").unwrap().decrypt(&record).await.unwrap_err();
        assert!(matches!(error, Error::ForeignRecord), "{error:?}");
    }
}

pub(crate) async fn asherah_replaces_our_expired_keys_and_we_follow<S: MetastoreAdmin + Clone>(
    mut world: World<S>,
) {
    world.clock.set_wall_back(EXPIRE_AFTER + HOUR);
    let old = world.encrypt(b"old").await;
    let rotated = world.lead.encrypt(PARTITION, b"rotated");
    assert_ne!(rotated.parent().unwrap(), old.parent().unwrap());
    assert_ne!(world.system_key_of(&rotated).await, world.system_key_of(&old).await);

    world.clock.advance(EXPIRE_AFTER + HOUR);
    let followed = world.all_encrypt(b"followed").await;
    assert_all_follow(&mut world, &[(&old, b"old"), (&rotated, b"rotated")], &followed).await;
    assert_eq!(world.count().await, 4);
}

pub(crate) async fn we_replace_expired_keys_of_asherah_and_it_follows<S: MetastoreAdmin + Clone>(
    mut world: World<S>,
) {
    let old = world.lead.encrypt(PARTITION, b"old");
    world.clock.advance(EXPIRE_AFTER + HOUR);
    let rotated = world.encrypt(b"rotated").await;
    assert_ne!(rotated.parent().unwrap(), old.parent().unwrap());
    assert_ne!(world.system_key_of(&rotated).await, world.system_key_of(&old).await);

    let followed = world.all_encrypt(b"followed").await;
    assert_all_follow(&mut world, &[(&old, b"old"), (&rotated, b"rotated")], &followed).await;
    assert_eq!(world.count().await, 4);
}

pub(crate) async fn asherah_replaces_a_key_we_revoked_and_we_follow_in_a_live_session<
    S: MetastoreAdmin + Clone,
>(
    mut world: World<S>,
) {
    world.clock.set_wall_back(2 * HOUR);
    let ours = world.ours();
    let session = ours.session(PARTITION).unwrap();
    let revoked = session.encrypt(b"revoked").await.unwrap();
    world.revoke(revoked.parent().unwrap()).await;

    let replaced = world.lead.encrypt(PARTITION, b"replaced");
    assert_ne!(replaced.parent().unwrap(), revoked.parent().unwrap());

    world.clock.advance(2 * HOUR);
    let mut followed = vec![session.encrypt(b"followed").await.unwrap()];
    followed.extend(world.all_encrypt(b"followed").await);
    assert_all_follow(&mut world, &[(&revoked, b"revoked"), (&replaced, b"replaced")], &followed).await;
}

/// Asherah itself cannot: its new key would have the creation time of the revoked one.
pub(crate) async fn we_replace_a_key_revoked_in_the_minute_it_was_made_and_asherah_follows<
    S: MetastoreAdmin + Clone,
>(
    mut world: World<S>,
) {
    let revoked = world.lead.encrypt(PARTITION, b"revoked");
    world.revoke(revoked.parent().unwrap()).await;

    let replaced = world.encrypt(b"replaced").await;
    assert!(replaced.parent_created() > revoked.parent_created());

    let followed = world.all_encrypt(b"followed").await;
    assert_all_follow(&mut world, &[(&revoked, b"revoked"), (&replaced, b"replaced")], &followed).await;
}

pub(crate) async fn we_replace_the_keys_under_a_revoked_system_key_and_asherah_follows<
    S: MetastoreAdmin + Clone,
>(
    mut world: World<S>,
) {
    let old = world.lead.encrypt(PARTITION, b"old");
    let revoked = world.system_key_of(&old).await;
    world.revoke(&revoked).await;

    let replaced = world.encrypt(b"replaced").await;
    assert_ne!(replaced.parent().unwrap(), old.parent().unwrap());
    assert_ne!(world.system_key_of(&replaced).await, revoked);

    let followed = world.all_encrypt(b"followed").await;
    assert_all_follow(&mut world, &[(&old, b"old"), (&replaced, b"replaced")], &followed).await;
}

/// A live session of Asherah may go on under the key for ever; we do not, nor does one that starts.
pub(crate) async fn what_a_live_session_of_asherah_writes_around_a_revocation_is_readable<
    S: MetastoreAdmin + Clone,
>(
    mut world: World<S>,
) {
    let mut live = world.live_lead();
    let mut records = vec![live.encrypt(PARTITION, b"live")];
    let revoked = records.first().unwrap().parent().unwrap().clone();
    world.revoke(&revoked).await;
    records.extend((0..3).map(|_| live.encrypt(PARTITION, b"live")));
    let replaced = world.encrypt(b"live").await;
    assert_ne!(*replaced.parent().unwrap(), revoked);
    records.extend((0..3).map(|_| live.encrypt(PARTITION, b"live")));
    records.push(replaced);

    let plaintexts: Vec<_> = records.iter().map(|record| (record, &b"live"[..])).collect();
    world.assert_all_decrypt(&plaintexts).await;
    for record in &records {
        live.assert_decrypts(PARTITION, record, b"live");
    }
    for record in world.all_encrypt(b"live").await {
        assert_ne!(*record.parent().unwrap(), revoked);
    }
}

/// The last of `before` brought the key that encrypted `followed`, and nobody has lost a record.
async fn assert_all_follow<S: MetastoreAdmin + Clone>(
    world: &mut World<S>,
    before: &[(&DataRowRecord, &[u8])],
    followed: &[DataRowRecord],
) {
    let (brought, _) = before.last().unwrap();
    assert_one_key(followed.iter().chain([*brought]));
    let id: &KeyId = brought.parent().unwrap().id();
    assert_eq!(world.versions(id).await, before.len());
    world.assert_all_decrypt(before).await;
    let followed: Vec<_> = followed.iter().map(|record| (record, &b"followed"[..])).collect();
    world.assert_all_decrypt(&followed).await;
}
