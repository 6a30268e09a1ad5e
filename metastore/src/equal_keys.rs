//! Wrapped keys that a table holds more than once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use claviger::{BackendError, CallContext, EnvelopeKeyRecord, ErrorChain, KeyMeta, MetastoreAdmin};

use crate::schema::{Finding, FindingId, SchemaReport};

/// Looks at every row for a wrapped key that another row has too, and adds what it finds to the report.
///
/// No program writes a key twice: somebody who writes to the table copied it, under an id of his own to read
/// what is sealed for another, or with a later time to bring a revoked key back. Rows of one time whose ids
/// differ by case, accents and trailing blanks alone are what `Ids that fold` in `docs/metastores.md` makes,
/// and a warning.
///
/// It reads the table from end to end, and once more if there is something to name. It keeps 20 bytes of
/// memory for each row, and reads a table of more than eight million rows in parts, each from end to end. Each
/// page of a thousand rows may take `page_time`.
///
/// ```
/// # use std::time::Duration;
/// # async fn example(
/// #     store: impl claviger::MetastoreAdmin,
/// #     mut report: claviger_metastore::SchemaReport,
/// # ) -> Result<(), claviger::BackendError> {
/// // After `store.check_schema(…)`.
/// claviger_metastore::look_for_equal_keys(&store, Duration::from_secs(30), &mut report).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As the store's failures are that may pass; rows that cannot be listed are a finding.
///
/// # Cancel safety
/// Nothing is changed.
pub async fn look_for_equal_keys(
    store: &impl MetastoreAdmin,
    page_time: Duration,
    report: &mut SchemaReport,
) -> Result<(), BackendError> {
    if report.findings().iter().any(|finding| UNLISTED.contains(&finding.id)) {
        return Ok(());
    }
    match equal_keys(store, page_time, DIGESTS_MAX).await {
        Ok(equal) => {
            equal.findings().into_iter().for_each(|finding| report.add(finding));
            Ok(())
        }
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            report.add(Finding::warning(
                FindingId::EqualKeys,
                format!(
                    "Not all rows could be listed, so keys that two of them hold were not looked for: {}.",
                    ErrorChain::new(&error)
                ),
                "See to what is in the way, with an operator's rights.",
            ));
            Ok(())
        }
    }
}

/// With one of these there is nothing to list, and the report says so already.
const UNLISTED: [FindingId; 2] = [FindingId::TableMissing, FindingId::ColumnMissing];

const ROWS_PER_PAGE: usize = 1_000;

/// How many digests are kept at once: some 150 MiB of them.
const DIGESTS_MAX: usize = 8 << 20;

/// How many keys are named, with how many rows of each. The others are counted.
const KEYS_NAMED_MAX: usize = 20;
const ROWS_NAMED_MAX: usize = 5;

/// The keys that more than one row has, with those rows.
#[derive(Debug, Default)]
struct EqualKeys {
    keys: HashMap<Arc<[u8]>, BTreeSet<KeyMeta>>,
    /// There are more than were looked at.
    are_more: bool,
}

async fn equal_keys(
    store: &impl MetastoreAdmin,
    page_time: Duration,
    digests_max: usize,
) -> Result<EqualKeys, BackendError> {
    // A digest is compared with no other run's, and what two keys have in common is looked at again.
    let hasher = RandomState::new();
    let digest = |record: &EnvelopeKeyRecord| hasher.hash_one(record.wrapped_key());
    let mut twice = HashSet::new();
    let mut from = Some(0);
    while let Some(first) = from {
        // Digests past it are left to the next part.
        let mut last = u64::MAX;
        let mut seen = HashSet::new();
        walk(store, page_time, |record| {
            let digest = digest(record);
            if (first..=last).contains(&digest) && !seen.insert(digest) && twice.len() <= TWICE_MAX {
                twice.insert(digest);
            }
            while seen.len() > digests_max && first < last {
                last = first + (last - first) / 2;
                seen.retain(|digest| *digest <= last);
            }
        })
        .await?;
        from = last.checked_add(1);
    }
    let mut equal = EqualKeys { are_more: twice.len() > TWICE_MAX, ..EqualKeys::default() };
    if !twice.is_empty() {
        walk(store, page_time, |record| {
            if twice.contains(&digest(record)) {
                let rows = equal.keys.entry(Arc::clone(record.wrapped_key())).or_default();
                if rows.len() <= ROWS_NAMED_MAX {
                    rows.insert(record.meta().clone());
                }
            }
        })
        .await?;
        // A version that is stored in several forms of its time is one, and a digest is not the key.
        equal.keys.retain(|_, rows| rows.len() > 1);
    }
    Ok(equal)
}

/// How many keys are looked at again.
const TWICE_MAX: usize = 10_000;

/// Shows every row that can be read.
async fn walk(
    store: &impl MetastoreAdmin,
    page_time: Duration,
    mut each: impl FnMut(&EnvelopeKeyRecord),
) -> Result<(), BackendError> {
    let mut after = None;
    loop {
        let page = store.list("", after.as_ref(), ROWS_PER_PAGE, &CallContext::within(page_time)).await?;
        page.records.iter().for_each(&mut each);
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

impl EqualKeys {
    fn findings(&self) -> Vec<Finding> {
        let (folded, copied): (Vec<_>, Vec<_>) = self.keys.values().partition(|rows| fold_alike(rows));
        let mut findings = Vec::new();
        if !copied.is_empty() {
            findings.push(Finding::dangerous(
                FindingId::EqualKeys,
                format!(
                    "{}. No program writes a key twice: somebody copied it, to read what is sealed for \
                     another, or to bring back a key that was revoked.",
                    self.named(copied)
                ),
                "See who may write to the table; take what was sealed under these keys for read by others; revoke \
                 every row of them, and encrypt that data anew before any is deleted.",
            ));
        }
        if !folded.is_empty() {
            findings.push(Finding::warning(
                FindingId::EqualKeys,
                format!(
                    "{}. Their ids differ by case, accents or trailing blanks alone, as where a table that \
                     took them for one was copied.",
                    self.named(folded)
                ),
                "Nothing, if it was you; else see who may write to the table.",
            ));
        }
        findings
    }

    /// Names keys by their rows.
    fn named(&self, mut keys: Vec<&BTreeSet<KeyMeta>>) -> String {
        keys.sort();
        let more = if self.are_more { "more than " } else { "" };
        let count = keys.len();
        let named = keys.iter().take(KEYS_NAMED_MAX).map(|rows| {
            let named: Vec<_> = rows.iter().take(ROWS_NAMED_MAX).map(KeyMeta::to_string).collect();
            let others = if rows.len() > ROWS_NAMED_MAX { " and others" } else { "" };
            format!("{}{others}", named.join(" = "))
        });
        let named: Vec<_> = named.collect();
        let others = if count > KEYS_NAMED_MAX { "; and others" } else { "" };
        format!("{more}{count} wrapped keys are in more than one row: {}{others}", named.join("; "))
    }
}

/// Returns `true` if the rows are those that one was copied to since a table took their ids for one.
fn fold_alike(rows: &BTreeSet<KeyMeta>) -> bool {
    let folded: HashSet<_> = rows.iter().map(|key| (key.id().folded(), key.created())).collect();
    folded.len() == 1
}

#[cfg(test)]
mod tests {
    use claviger::testing::call;
    use claviger::{Created, InMemoryMetastore, Insert, KeyId, Metastore as _};

    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    fn row(id: &str, created: i64, key: &[u8]) -> EnvelopeKeyRecord {
        EnvelopeKeyRecord::new(KeyMeta::new(KeyId::new(id), Created::new(created).unwrap()), key, None)
    }

    async fn store_of(rows: impl IntoIterator<Item = EnvelopeKeyRecord>) -> InMemoryMetastore {
        let store = InMemoryMetastore::new();
        for row in rows {
            assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
        }
        store
    }

    #[tokio::test]
    async fn copies_are_found_whatever_the_memory() {
        let copies = [row("a", 1, b"one"), row("b", 1, b"one"), row("c", 1, b"two"), row("c", 9, b"two")];
        let others = (0..3_000).map(|number| row(&format!("_IK_{number}"), 1, &i32::to_be_bytes(number)));
        let store = store_of(copies.into_iter().chain(others)).await;
        for digests_max in [1, 2, 100, 2_999, 10_000] {
            let findings = equal_keys(&store, TIME, digests_max).await.unwrap().findings();
            assert_eq!(findings.len(), 1, "{digests_max}");
            let named = "2 wrapped keys are in more than one row: a@1 = b@1; c@1 = c@9. ";
            assert!(findings[0].what.starts_with(named), "{digests_max}: {}", findings[0].what);
        }
    }

    #[tokio::test]
    async fn what_is_named_is_bounded() {
        let rows = (0..100).flat_map(|key: i32| {
            (1..=10).map(move |row_number| row(&format!("{key:02}"), row_number, &key.to_be_bytes()))
        });
        let findings = equal_keys(&store_of(rows).await, TIME, 10_000).await.unwrap().findings();
        let what = &findings[0].what;
        assert!(what.starts_with("100 wrapped keys are in more than one row: 00@1 = 00@2"), "{what}");
        assert!(what.contains("00@5 and others; 01@1 = ") && what.contains("19@5 and others; and others. "));
        assert!(!what.contains("00@6") && !what.contains("20@1"), "{what}");
    }

    fn folded(id: &str) -> String {
        KeyId::new(id).folded()
    }

    #[test]
    fn ids_fold_as_the_usual_collations_fold_them() {
        for (one, other) in
            [("a", "A"), ("\u{e9}", "e"), ("e\u{301}", "\u{c9}"), ("a", "a  "), ("\u{d6}", "o")]
        {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        for (one, other) in [("a", "b"), (" a", "a"), ("a b", "ab"), ("_IK_a_s_p", "_IK_b_s_p")] {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[tokio::test]
    async fn copies_of_one_time_whose_ids_fold_alike_are_a_warning_and_others_an_alarm() {
        use crate::schema::Severity::{Dangerous, Warning};
        let cases = [
            ([row("Alice", 1, b"k"), row("alice ", 1, b"k")], Warning),
            ([row("Alice", 1, b"k"), row("alice", 2, b"k")], Dangerous),
            ([row("alice", 1, b"k"), row("alicf", 1, b"k")], Dangerous),
        ];
        for (rows, severity) in cases {
            let mut report = SchemaReport::default();
            look_for_equal_keys(&store_of(rows).await, TIME, &mut report).await.unwrap();
            let found: Vec<_> = report.findings().iter().map(|it| (it.id, it.severity)).collect();
            assert_eq!(found, [(FindingId::EqualKeys, severity)]);
        }
    }
}
