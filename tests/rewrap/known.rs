//! A master key that has become known: its keys are revoked as they move.

use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{Fault, FaultyKms, FaultyMetastore, Operation, call};
use claviger::{
    Created, EnvelopeKeyRecord, FailureClass, InMemoryMetastore, Insert, KeyManagementService as _, Limits,
    Metastore as _, MetastoreAdmin as _, Rewrap, RewrapOptions, StaticKms, rewrap_system_keys,
};

use crate::regions::master_key;
use crate::support::{assert_all_decrypt, populate, rewrapped, system_key_metas, system_keys};

pub(crate) static REVOKING: RewrapOptions = RewrapOptions::new().revoke(true);

pub(crate) fn kms(name: &str) -> Arc<StaticKms> {
    Arc::new(master_key(name))
}

/// Requires that nothing that `to` opens is to encrypt.
async fn assert_nothing_is_laundered(store: &InMemoryMetastore, to: &StaticKms, case: &str) {
    for row in system_keys(store).await {
        let is_moved = to.unwrap_key(row.wrapped_key(), row.meta(), &call()).await.is_ok();
        assert!(!is_moved || row.is_revoked(), "{case}: {}", row.meta());
    }
}

#[tokio::test]
async fn what_is_wrapped_anew_is_revoked_and_goes_on_decrypting() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    let report = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((rewrapped(&report), report.keys.len()), (6, 6));
    assert!(system_keys(&store).await.iter().all(EnvelopeKeyRecord::is_revoked));
    assert_all_decrypt(&store, &new, &records).await;
    let again = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert!(again.keys.iter().all(|(_, done)| matches!(done, Rewrap::UpToDate)), "{again:?}");
}

#[tokio::test]
async fn keys_that_are_up_to_date_are_not_revoked() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &new).await;
    let report = rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap();
    assert_eq!((rewrapped(&report), report.keys.len()), (0, 6));
    assert!(!system_keys(&store).await.iter().any(EnvelopeKeyRecord::is_revoked));
}

#[tokio::test]
async fn nothing_is_revoked_in_a_dry_run_or_where_it_cannot_be_wrapped_anew() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), FaultyKms::new(master_key("new")));
    populate(&store, &old).await;
    let rows = system_keys(&store).await;
    drop(rewrap_system_keys(&store, &old, &new, &REVOKING.clone().dry_run(true)).await.unwrap());
    drop(rewrap_system_keys(&store, &kms("stranger"), &new, &REVOKING).await.unwrap());
    new.faults().always_for(Operation::WrapKey, Fault::Fail(FailureClass::Permanent));
    assert!(!rewrap_system_keys(&store, &old, &new, &REVOKING).await.unwrap().is_clean());
    assert_eq!(system_keys(&store).await, rows);
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_no_key_is_wrapped_anew_and_not_revoked() {
    let count = async |fault_at: Option<(u8, u64, Fault)>| {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        let records = populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        let parts = [store.faults(), from.faults(), to.faults()];
        if let Some((part, n, fault)) = fault_at {
            parts[usize::from(part)].at(n, fault);
        }
        let once = REVOKING.clone().limits(Limits::production().max_attempts(1));
        let report = rewrap_system_keys(&store, &from, &to, &once).await;
        let calls = parts.map(|faults| faults.calls() as u64);
        assert_nothing_is_laundered(&rows, &new, &format!("{fault_at:?}")).await;
        assert!(rewrap_system_keys(&rows, &old, &new, &REVOKING).await.unwrap().is_clean());
        assert!(system_keys(&rows).await.iter().all(EnvelopeKeyRecord::is_revoked), "{fault_at:?}");
        assert_all_decrypt(&rows, &new, &records).await;
        (calls, report)
    };
    let (calls, report) = count(None).await;
    assert!(report.unwrap().is_clean());
    let mut failed = 0;
    for part in 0..3_u8 {
        for n in 1..=calls[usize::from(part)] {
            for fault in
                [Fault::Fail(FailureClass::Permanent), Fault::LoseReply(FailureClass::Transient), Fault::Hang]
            {
                let (_, report) = count(Some((part, n, fault))).await;
                failed += u32::from(!report.is_ok_and(|report| report.is_clean()));
            }
        }
    }
    assert!(failed > 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_await_no_key_is_wrapped_anew_and_not_revoked() {
    let slow = Fault::Delay(Duration::from_millis(3));
    for polls in 0.. {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        for faults in [store.faults(), from.faults(), to.faults()] {
            faults.always(slow);
        }
        let run = async { rewrap_system_keys(&store, &from, &to, &REVOKING).await };
        let ended = tokio::time::timeout(Duration::from_millis(3) * polls, run).await.is_ok();
        assert_nothing_is_laundered(&rows, &new, &format!("{polls}")).await;
        if ended {
            assert!(polls > 30, "it was dropped at {polls} points only");
            return;
        }
    }
}

#[tokio::test]
async fn keys_created_later_are_left_out_and_told_and_those_that_are_up_to_date_are_not() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &old).await;
    let metas = system_key_metas(&store).await;
    // The second of three of each service: up to it, that time included.
    let upto = REVOKING.clone().created_up_to(metas[1].created());
    let before = system_keys(&store).await;
    let report = rewrap_system_keys(&store, &old, &new, &upto).await.unwrap();
    assert!(report.is_clean(), "what is left out is no failure");
    assert_eq!(report.left_out().collect::<Vec<_>>(), [&metas[2], &metas[5]]);
    assert_eq!(rewrapped(&report), 4);
    for (index, (before, now)) in before.iter().zip(system_keys(&store).await).enumerate() {
        assert_eq!(*before == now, index % 3 == 2, "{index}");
    }
    drop(rewrap_system_keys(&store, &old, &new, &RewrapOptions::new()).await.unwrap());
    let report = rewrap_system_keys(&store, &old, &new, &upto).await.unwrap();
    assert_eq!((report.left_out().count(), report.keys.len()), (0, 6));
    let dry = REVOKING.clone().created_up_to(Created::MIN).even_if_up_to_date(true).dry_run(true);
    assert_eq!(rewrap_system_keys(&store, &new, &new, &dry).await.unwrap().left_out().count(), 6);
}

/// A store whose writer takes back a revocation before the new form is there.
#[tokio::test]
async fn a_key_whose_revocation_is_taken_back_meanwhile_is_put_back() {
    let (store, old) = (InMemoryMetastore::new(), kms("old"));
    populate(&store, &old).await;
    let new = FaultyKms::new(master_key("new"));
    let only = system_keys(&store).await.swap_remove(0);
    let id = only.meta().id().clone();
    // One version only, so that it can be deleted by its id.
    store.delete(&id, &call()).await.unwrap();
    insert(&store, &only).await;
    let faulty = FaultyMetastore::new(store.clone());
    faulty.faults().next(Operation::ReplaceMany, Fault::Hang);
    let options = REVOKING.clone().only([id.clone()]);
    let (report, ()) = tokio::join!(rewrap_system_keys(&faulty, &old, &new, &options), async {
        faulty.faults().until_hanging(1).await;
        store.delete(&id, &call()).await.unwrap();
        insert(&store, &only).await;
        faulty.faults().release();
    });
    assert!(!report.unwrap().is_clean());
    assert_nothing_is_laundered(&store, &master_key("new"), "taken back").await;
}

async fn insert(store: &InMemoryMetastore, record: &EnvelopeKeyRecord) {
    assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
}
