//! The move from one KMS to another: whatever fails, every key can be unwrapped by one of the two.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger::testing::{Fault, FaultyKms, FaultyMetastore, Operation, ReplaceOne as _, call};
use claviger::{
    BackendError, CallContext, Created, EnvelopeKeyRecord, Error, FailureClass, InMemoryMetastore, Insert,
    KeyId, KeyManagementService, KeyMeta, Latest, Limits, Metastore, MetastoreAdmin, Page, Replacement,
    Rewrap, RewrapOptions, RewrapReport, SecretKey, StaticKms, SystemRandom, rewrap_system_keys,
};

use crate::regions::{Regions, master_key};
use crate::support::{assert_all_decrypt, populate, rewrapped, system_key_metas, system_keys};

static ALL: RewrapOptions = RewrapOptions::new();

fn up_to_date(report: &RewrapReport) -> usize {
    report.keys.iter().filter(|(_, done)| matches!(done, Rewrap::UpToDate)).count()
}

fn kms(name: &str) -> Arc<StaticKms> {
    Arc::new(master_key(name))
}

#[tokio::test]
async fn moves_every_system_key_and_nothing_else() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    let rows = store.list("", None, 1_000, &call()).await.unwrap().records;
    let report = rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap();
    assert!(report.is_clean());
    assert_eq!((rewrapped(&report), report.keys.len()), (6, 6));
    assert_all_decrypt(&store, &new, &records).await;
    for (before, after) in rows.iter().zip(store.list("", None, 1_000, &call()).await.unwrap().records) {
        let is_system_key = before.meta().id().as_str().starts_with("_SK_");
        assert_eq!(*before != after, is_system_key, "{}", before.meta());
        assert_eq!(
            (before.meta(), before.parent(), before.is_revoked()),
            (after.meta(), after.parent(), after.is_revoked())
        );
    }
}

#[tokio::test]
async fn moved_keys_are_left_alone() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &old).await;
    drop(rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap());
    let rows = system_keys(&store).await;
    let report = rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap();
    assert_eq!(up_to_date(&report), 6);
    assert_eq!(system_keys(&store).await, rows);
    let anew = ALL.clone().even_if_up_to_date(true);
    assert_eq!(rewrapped(&rewrap_system_keys(&store, &new, &new, &anew).await.unwrap()), 6);
    assert!(system_keys(&store).await.iter().zip(&rows).all(|(now, before)| now != before));
}

#[tokio::test]
async fn revoked_keys_move_and_stay_revoked() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    for key in system_key_metas(&store).await {
        store.revoke(&key, &call()).await.unwrap();
    }
    assert!(rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap().is_clean());
    assert!(system_keys(&store).await.iter().all(EnvelopeKeyRecord::is_revoked));
    assert_all_decrypt(&store, &new, &records).await;
}

#[tokio::test]
async fn only_the_keys_asked_for_are_looked_at() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    populate(&store, &old).await;
    let metas = system_key_metas(&store).await;
    let faulty = FaultyMetastore::new(store.clone());
    let only = ALL.clone().only([metas[0].id().clone()]);
    let report = rewrap_system_keys(&faulty, &old, &new, &only).await.unwrap();
    let seen: Vec<&KeyMeta> = report.keys.iter().map(|(key, _)| key).collect();
    assert_eq!(seen, metas.iter().take(3).collect::<Vec<_>>());
    assert_eq!(faulty.faults().calls_of(Operation::List), 1);
    let nobodys = ALL.clone().only([KeyId::new("_SK_nobody_payments")]);
    assert_eq!(rewrap_system_keys(&faulty, &old, &new, &nobodys).await.unwrap().keys.len(), 0);
}

#[tokio::test]
async fn dry_run_unwraps_and_writes_nothing() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), FaultyKms::new(master_key("new")));
    populate(&store, &old).await;
    let rows = system_keys(&store).await;
    let report = rewrap_system_keys(&store, &old, &new, &ALL.clone().dry_run(true)).await.unwrap();
    assert!(report.is_clean());
    assert!(report.keys.iter().all(|(_, done)| matches!(done, Rewrap::Due { .. })));
    assert_eq!(system_keys(&store).await, rows);
    assert_eq!(new.faults().calls_of(Operation::WrapKey), 0);
    let stranger = kms("stranger");
    let report = rewrap_system_keys(&store, &stranger, &new, &ALL.clone().dry_run(true)).await.unwrap();
    assert!(!report.is_clean(), "what cannot be unwrapped cannot be moved");
}

#[tokio::test]
async fn key_of_a_third_service_fails_alone() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    let stranger = kms("stranger");
    let odd = &system_key_metas(&store).await[1];
    let row = system_keys(&store).await.swap_remove(1);
    let secret = old.unwrap_key(row.wrapped_key(), odd, &call()).await.unwrap();
    let foreign = stranger.wrap_key(&secret, odd, &call()).await.unwrap();
    assert!(store.replace_one(odd, row.wrapped_key(), foreign.bytes(), &call()).await.unwrap());
    let report = rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap();
    assert_eq!(rewrapped(&report), 5);
    let failed: Vec<_> = report.keys.iter().filter(|(_, done)| matches!(done, Rewrap::Failed(_))).collect();
    assert_eq!(failed.iter().map(|(key, _)| key).collect::<Vec<_>>(), [odd]);
    assert_eq!(**system_keys(&store).await[1].wrapped_key(), **foreign.bytes());
    drop(records);
}

/// Who can read every record when a call fails, hangs or loses its reply: a fleet that has both.
#[tokio::test(start_paused = true)]
async fn every_call_failing_loses_no_key() {
    let count = async |fault_at: Option<(u8, u64, Fault)>| {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        let records = populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        let parts = [store.faults(), from.faults(), to.faults()];
        if let Some((part, n, fault)) = fault_at {
            parts[usize::from(part)].at(n, fault);
        }
        let report =
            rewrap_system_keys(&store, &from, &to, &ALL.clone().limits(Limits::production().max_attempts(1)))
                .await;
        let calls = parts.map(|faults| faults.calls() as u64);
        // At any time one of the two unwraps each key.
        for row in system_keys(&rows).await {
            let by_old = old.unwrap_key(row.wrapped_key(), row.meta(), &call()).await.is_ok();
            let by_new = new.unwrap_key(row.wrapped_key(), row.meta(), &call()).await.is_ok();
            assert!(by_old || by_new, "{fault_at:?}");
        }
        // And another run brings it to its end.
        assert!(rewrap_system_keys(&rows, &old, &new, &ALL).await.unwrap().is_clean());
        assert_all_decrypt(&rows, &new, &records).await;
        (calls, report)
    };
    let (calls, report) = count(None).await;
    assert!(report.unwrap().is_clean());
    let mut failed = 0;
    for part in 0..3_u8 {
        for n in 1..=calls[usize::from(part)] {
            for class in [FailureClass::Transient, FailureClass::Permanent] {
                for fault in [Fault::Fail(class), Fault::LoseReply(class), Fault::Hang] {
                    let (_, report) = count(Some((part, n, fault))).await;
                    failed += u32::from(!report.is_ok_and(|report| report.is_clean()));
                }
            }
        }
    }
    println!("{calls:?} calls, {failed} runs that did not end clean");
    assert!(failed > 0);
}

/// A table that stores something else than it was given.
#[derive(Clone, Debug)]
struct MangledStore {
    rows: InMemoryMetastore,
    mangled: fn(&[u8]) -> &[u8],
}

impl Metastore for MangledStore {
    async fn load(
        &self,
        key: &KeyMeta,
        context: &CallContext,
    ) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        self.rows.load(key, context).await
    }

    async fn load_latest(
        &self,
        id: &KeyId,
        up_to: Created,
        context: &CallContext,
    ) -> Result<Option<Latest>, BackendError> {
        self.rows.load_latest(id, up_to, context).await
    }

    async fn load_many(
        &self,
        keys: &[KeyMeta],
        context: &CallContext,
    ) -> Result<Vec<Option<EnvelopeKeyRecord>>, BackendError> {
        self.rows.load_many(keys, context).await
    }

    async fn load_latest_many(
        &self,
        ids: &[KeyId],
        up_to: Created,
        context: &CallContext,
    ) -> Result<Vec<Option<Latest>>, BackendError> {
        self.rows.load_latest_many(ids, up_to, context).await
    }

    async fn insert(
        &self,
        record: &EnvelopeKeyRecord,
        context: &CallContext,
    ) -> Result<Insert, BackendError> {
        self.rows.insert(record, context).await
    }

    fn failovers(&self) -> u64 {
        self.rows.failovers()
    }
}

impl MetastoreAdmin for MangledStore {
    async fn list(
        &self,
        prefix: &str,
        after: Option<&KeyMeta>,
        limit: usize,
        context: &CallContext,
    ) -> Result<Page, BackendError> {
        self.rows.list(prefix, after, limit, context).await
    }

    async fn revoke(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.rows.revoke(key, context).await
    }

    async fn replace_many(
        &self,
        replacements: &[Replacement],
        context: &CallContext,
    ) -> Result<Vec<bool>, BackendError> {
        let mangled = replacements.iter().cloned().map(|mut replacement| {
            replacement.new = (self.mangled)(&replacement.new).into();
            replacement
        });
        self.rows.replace_many(&mangled.collect::<Vec<_>>(), context).await
    }

    async fn delete_version(&self, key: &KeyMeta, context: &CallContext) -> Result<bool, BackendError> {
        self.rows.delete_version(key, context).await
    }

    async fn delete(&self, id: &KeyId, context: &CallContext) -> Result<u64, BackendError> {
        self.rows.delete(id, context).await
    }

    async fn count(&self, context: &CallContext) -> Result<u64, BackendError> {
        self.rows.count(context).await
    }
}

#[tokio::test]
async fn what_a_store_mangles_is_taken_back() {
    let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), Regions::new(&["us", "eu"]));
    let records = populate(&rows, &old).await;
    let before = system_keys(&rows).await;
    // As a TEXT column does in a careless mode.
    let store = MangledStore { rows: rows.clone(), mangled: |new| &new[..new.len().min(60)] };
    let report = rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap();
    assert!(report.keys.iter().all(|(_, done)| is_told(done)), "{report:?}");
    assert_eq!(system_keys(&rows).await, before);
    assert_all_decrypt(&rows, &old, &records).await;
}

#[tokio::test]
async fn another_key_in_its_place_is_taken_back_though_the_former_service_unwraps_it() {
    static ANOTHER: OnceLock<Vec<u8>> = OnceLock::new();
    let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), Regions::new(&["us", "eu"]));
    let records = populate(&rows, &old).await;
    let secret = SecretKey::generate(&SystemRandom::new()).unwrap();
    let before = system_keys(&rows).await;
    let another = old.wrap_key(&secret, before[0].meta(), &call()).await.unwrap();
    ANOTHER.set(another.bytes().to_vec()).unwrap();
    let store = MangledStore {
        rows: rows.clone(),
        mangled: |new| if new.len() > 60 { ANOTHER.get().unwrap() } else { new },
    };
    let report = rewrap_system_keys(&store, &old, &new, &ALL).await.unwrap();
    assert!(report.keys.iter().all(|(_, done)| is_told(done)), "{report:?}");
    assert_eq!(system_keys(&rows).await, before);
    assert_all_decrypt(&rows, &old, &records).await;
}

fn is_told(done: &Rewrap) -> bool {
    matches!(done, Rewrap::Failed(Error::Metastore { operation: "replace_many", .. }))
}

#[tokio::test]
async fn two_operators_at_once_agree() {
    let (store, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&store, &old).await;
    let (one, other) = tokio::join!(
        rewrap_system_keys(&store, &old, &new, &ALL),
        rewrap_system_keys(&store, &old, &new, &ALL)
    );
    for report in [one.unwrap(), other.unwrap()] {
        assert!(report.is_clean(), "{report:?}");
    }
    assert_all_decrypt(&store, &new, &records).await;
}

#[tokio::test(start_paused = true)]
async fn another_writer_in_between_is_not_overwritten() {
    let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
    let records = populate(&rows, &old).await;
    let slow = FaultyKms::new(Arc::clone(&new));
    slow.faults().next(Operation::WrapKey, Fault::Hang);
    let run = rewrap_system_keys(&rows, &old, &slow, &ALL);
    let meanwhile = async {
        slow.faults().until_hanging(1).await;
        let anew = ALL.clone().even_if_up_to_date(true);
        assert!(rewrap_system_keys(&rows, &old, &new, &anew).await.unwrap().is_clean());
        let rows = system_keys(&rows).await;
        slow.faults().release();
        rows
    };
    let (report, by_other) = tokio::join!(run, meanwhile);
    let report = report.unwrap();
    assert!(report.is_clean());
    assert_eq!((up_to_date(&report), rewrapped(&report)), (6, 0));
    assert_eq!(system_keys(&rows).await, by_other);
    assert_all_decrypt(&rows, &new, &records).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_at_every_await_loses_no_key() {
    let slow = Fault::Delay(Duration::from_millis(3));
    for polls in 0.. {
        let (rows, old, new) = (InMemoryMetastore::new(), kms("old"), kms("new"));
        let records = populate(&rows, &old).await;
        let store = FaultyMetastore::new(rows.clone());
        let (from, to) = (FaultyKms::new(Arc::clone(&old)), FaultyKms::new(Arc::clone(&new)));
        for faults in [store.faults(), from.faults(), to.faults()] {
            faults.always(slow);
        }
        let run = async { rewrap_system_keys(&store, &from, &to, &ALL).await };
        let ended = tokio::time::timeout(Duration::from_millis(3) * polls, run).await.is_ok();
        assert!(rewrap_system_keys(&rows, &old, &new, &ALL).await.unwrap().is_clean());
        assert_all_decrypt(&rows, &new, &records).await;
        if ended {
            assert!(polls > 30, "it was dropped at {polls} points only");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_cannot_be_listed_is_an_error() {
    let (store, old) = (FaultyMetastore::new(InMemoryMetastore::new()), kms("old"));
    store.faults().always(Fault::Fail(FailureClass::Transient));
    let error = rewrap_system_keys(&store, &old, &old, &ALL).await.unwrap_err();
    assert!(matches!(error, Error::Metastore { operation: "list", .. }) && error.is_retryable());
}
