//! The status as it is serialised: operators' programs rely on its shape.

use std::time::Duration;

use claviger::Event;
use claviger::testing::call;
use claviger::{KeyId, KeyMeta, MetastoreAdmin as _};
use serde_json::{Value, json};

use crate::support::{DOWN, in_world};

#[test]
fn a_status_has_the_shape_that_is_documented() {
    in_world(
        |builder| builder,
        async |world| {
            let record = world.session("alice").encrypt(b"").await.unwrap();
            world.clock.advance(Duration::from_millis(1_500));
            let key = KeyMeta::new(KeyId::new("_IK_alice_checkout_payments"), record.parent_created());
            assert!(world.store.inner().delete_version(&key, &call()).await.unwrap());
            world.factory.invalidate(key.id()).unwrap();
            assert!(world.session("alice").decrypt(&record).await.is_err());
            world.clock.advance(Duration::from_millis(2_500));
            world.store.faults().always(DOWN);
            assert!(world.session("bob").encrypt(b"").await.is_err());

            let status = serde_json::to_value(world.factory.status().unwrap()).unwrap();
            let mut events: serde_json::Map<_, _> =
                Event::ALL.iter().map(|event| (event.name().to_owned(), json!(0))).collect();
            events.insert("row_lost".to_owned(), json!(1));
            let answered = |dependency: &str, failures: u32, ago: f64| {
                json!({
                    "dependency": dependency, "down": false, "failures": failures,
                    "since_good_answer_seconds": ago,
                })
            };
            let memory = &status["memory"];
            assert!(memory["unlocked_bytes"].as_u64() > Some(0), "{memory}");
            let expected = json!({
                "health": {
                    "state": "degraded",
                    "reasons": [
                        { "reason": "dependency_failing", "dependency": "metastore_reads", "failures": 1 },
                        { "reason": "rows_lost", "rows": 1 },
                    ],
                },
                "intermediate_keys": 0,
                "system_keys": 1,
                "orphans": [],
                "loads": 0,
                "memory": {
                    "slots": 1, "regions": memory["regions"], "mapped_bytes": memory["mapped_bytes"],
                    "locked_bytes": 0, "unlocked_bytes": memory["unlocked_bytes"], "lock_refused": false,
                    "dump_exclusion_refused": memory["dump_exclusion_refused"],
                    "fork_wipe_refused": memory["fork_wipe_refused"],
                },
                "events": Value::Object(events),
                "incomplete_keys": [],
                "metastore_down": false,
                "metastore_read_only": false,
                "replica_down": false,
                "kms_down": false,
                "lost_rows": [{
                    "key": { "id": "_IK_alice_checkout_payments", "created": key.created().unix_seconds() },
                    "age_seconds": 2.5,
                }],
                "dependencies": [
                    answered("metastore_reads", 1, 2.5),
                    answered("metastore_writes", 0, 4.0),
                    {
                        "dependency": "metastore_replica", "down": false, "failures": 0,
                        "since_good_answer_seconds": null,
                    },
                    answered("kms", 0, 4.0),
                ],
                "sources_connected": [],
                "sources_lost": 0,
                "closed": false,
            });
            assert_eq!(status, expected);
        },
    );
}
