//! Rows in the far future, which other Asherahs go on using, and how they are cleared away.

use std::time::Duration;

use claviger::testing::FixedClock;
use claviger::{DataRowRecord, Error, MetastoreAdmin};

use crate::peer::{Package, Peer};
use crate::world::{MINUTE, NAMES, PARTITION, World, assert_one_key, habits, now};

/// So far that the keys there are have ended by then.
const AHEAD: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// What the runbook says is to be done in the database: the statements that hold this.
pub(crate) fn documented(contains: &str) -> &'static str {
    let blocks =
        include_str!("../../docs/runbook.md").split("```sql\n").filter_map(|block| block.split_once("```"));
    blocks.map(|(sql, _)| sql).find(|sql| sql.contains(contains)).unwrap()
}

/// A member whose clock was ahead left rows; all of it is read by everybody, ours rotate as ever, and by the
/// steps of the runbook the others do so again too, with nothing lost.
pub(crate) async fn rows_far_ahead_are_read_by_all_and_cleared_away<S: MetastoreAdmin + Clone>(
    mut world: World<S>,
    packages: &[Package],
    clear: impl AsyncFn(&World<S>),
) {
    let before = world.encrypt(b"1").await;
    world.clock = FixedClock::new(now() + AHEAD.as_secs());
    let far = world.encrypt(b"2").await;
    assert_ne!(far.parent().unwrap(), before.parent().unwrap());
    world.clock = FixedClock::new(now());
    let theirs: Vec<DataRowRecord> = world.peers().map(|peer| peer.encrypt(PARTITION, b"3")).collect();
    assert_one_key(std::iter::once(&far).chain(&theirs));
    // Ours, whatever happens to the key.
    world.revoke(before.parent().unwrap()).await;
    world.clock.advance(MINUTE);
    let ours = world.encrypt(b"4").await;
    assert!(
        ours.parent().unwrap() != before.parent().unwrap() && ours.parent().unwrap() != far.parent().unwrap()
    );
    let mut all = vec![(&before, &b"1"[..]), (&far, b"2"), (&ours, b"4")];
    all.extend(theirs.iter().map(|record| (record, &b"3"[..])));
    world.assert_all_decrypt(&all).await;

    // The steps.
    let mut anew = Vec::new();
    for (record, plaintext) in
        all.into_iter().filter(|(record, _)| record.parent().unwrap() == far.parent().unwrap())
    {
        let opened = world.ours().session(PARTITION).unwrap().decrypt(record).await.unwrap();
        anew.push((world.encrypt(&opened).await, plaintext.to_vec()));
    }
    clear(&world).await;
    let mut peers = Peer::start_all(packages, &world.place, &habits(NAMES));
    world.lead = peers.remove(0);
    world.others = peers;
    let after: Vec<DataRowRecord> = world.peers().map(|peer| peer.encrypt(PARTITION, b"5")).collect();
    assert_one_key(std::iter::once(&ours).chain(&after));
    let mut all = vec![(&before, &b"1"[..]), (&ours, b"4")];
    all.extend(anew.iter().map(|(record, plaintext)| (record, &plaintext[..])));
    all.extend(after.iter().map(|record| (record, &b"5"[..])));
    world.assert_all_decrypt(&all).await;
    let gone = world.ours().session(PARTITION).unwrap().decrypt(&far).await;
    assert!(matches!(gone, Err(Error::KeyNotFound(_))), "{gone:?}");
}
