//! S1.2: no nonce serves twice.

use std::collections::HashSet;
use std::thread;

use claviger::testing::{SeededRandom, call};
use claviger::{DataRowRecord, MetastoreAdmin, SystemRandom};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::runtime::Builder;

use crate::world::World;

/// The register asks for 10^8, which is an hour's work for a release build; here it is what a
/// debug build does in seconds.
const WRAPS: usize = 100_000;
const THREADS: usize = 4;

/// Threads share the key, as those of a service do.
#[test]
fn s1_2_no_nonce_is_used_twice_under_one_key() {
    let world = World::new();
    let factory = world.builder().random(SystemRandom::new()).build().unwrap();
    let seal = |_| {
        let session = factory.session("partition").unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut used = Vec::new();
            for _ in 0..WRAPS / THREADS {
                let record = session.encrypt(b"").await.unwrap();
                used.push((
                    record.parent().unwrap().clone(),
                    nonce_of(record.wrapped_key()),
                    nonce_of(record.data()),
                ));
            }
            used
        })
    };
    let used: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || seal(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let wraps: HashSet<_> = used.iter().map(|(key, nonce, _)| (key, nonce)).collect();
    assert_eq!(wraps.len(), WRAPS);
    // Each data row key seals once, so that its nonce could repeat; a generator's would not.
    let nonces: HashSet<_> = used.iter().flat_map(|(_, wrap, data)| [wrap, data]).collect();
    assert_eq!(nonces.len(), 2 * WRAPS);
}

/// One draw serves one record: a key and two nonces, each byte of it used once.
#[tokio::test]
async fn s1_2_each_part_of_a_draw_is_used_once() {
    let (world, random) = (World::new(), SeededRandom::new(3));
    let factory = world.builder().random(random.clone()).build().unwrap();
    let session = factory.session("partition").unwrap();
    let records = [session.encrypt(b"one").await.unwrap(), session.encrypt(b"two").await.unwrap()];

    // A key and its nonce for the system key are the KMS's to draw; ours are these.
    let drawn = random.drawn();
    let lengths: Vec<usize> = drawn.iter().map(Vec::len).collect();
    assert_eq!(lengths, [32, 32, 12, 64, 64], "system key, intermediate key, its nonce, two records");
    let intermediate_key = &drawn[1];
    let rows = world.store.inner().list("", None, 10, &call()).await.unwrap().records;
    let row = rows.iter().find(|row| row.meta() == records[0].parent().unwrap()).unwrap();
    assert_eq!(nonce_of(row.wrapped_key()), *drawn[2]);
    for (record, draw) in records.iter().zip(&drawn[3..]) {
        assert_eq!(nonce_of(record.data()), draw[32..44]);
        assert_eq!(nonce_of(record.wrapped_key()), draw[44..56]);
        assert_eq!(open(intermediate_key, record.wrapped_key()), draw[..32], "the data row key");
    }
    let payloads = [b"one", b"two"].map(|payload| payload.to_vec());
    let opened =
        [0, 1].map(|record: usize| open(&drawn[3 + record][..32], DataRowRecord::data(&records[record])));
    assert_eq!(opened, payloads);
}

fn nonce_of(sealed: &[u8]) -> [u8; 12] {
    *sealed.last_chunk().unwrap()
}

/// Opens `ciphertext ‖ tag ‖ nonce`, by ring alone.
fn open(key: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (ciphertext, nonce) = sealed.split_last_chunk().unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut opened = ciphertext.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_in_place(nonce, Aad::empty(), &mut opened).unwrap().to_vec()
}
