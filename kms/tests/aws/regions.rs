//! Keys that are disabled, deleted, wrong or of several regions, on LocalStack, which is faithful there.

use aws_sdk_kms::Client;
use claviger::KeyManagementService as _;
use claviger::testing::call;
use claviger_kms::AwsKms;
use claviger_testkit::shared_localstack;

use crate::support::{
    DAMAGED, EAST, EUROPE, PERMANENT, REGIONS, WEST, assert_failed, assert_unwraps, client, meta, new_key,
    new_secret, regions_of, wrap,
};

/// A service with a key in each region, and those keys.
struct Setup {
    kms: AwsKms,
    keys: Vec<String>,
}

impl Setup {
    async fn new(regions: &[&str]) -> Self {
        let mut builder = AwsKms::builder();
        let mut keys = Vec::new();
        for region in regions {
            let key = new_key(shared_localstack(), region).await;
            builder = builder.region(*region, &key).client(*region, operator(region));
            keys.push(key);
        }
        Self { kms: builder.open().await.unwrap(), keys }
    }
}

fn operator(region: &str) -> Client {
    client(shared_localstack(), region)
}

#[tokio::test]
async fn a_disabled_key_is_a_permanent_failure_until_it_is_enabled() {
    let Setup { kms, keys } = Setup::new(&[EAST]).await;
    let key = new_secret();
    let wrapped = wrap(&kms, &key).await;
    operator(EAST).disable_key().key_id(&keys[0]).send().await.unwrap();
    assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, PERMANENT, "DisabledException");
    assert_failed(kms.wrap_key(&key, &meta(), &call()).await, PERMANENT, "DisabledException");
    operator(EAST).enable_key().key_id(&keys[0]).send().await.unwrap();
    assert_unwraps(&kms, &wrapped, &key).await;
}

#[tokio::test]
async fn a_key_that_is_to_be_deleted_is_a_permanent_failure_until_that_is_cancelled() {
    let Setup { kms, keys } = Setup::new(&[EAST]).await;
    let key = new_secret();
    let wrapped = wrap(&kms, &key).await;
    operator(EAST).schedule_key_deletion().key_id(&keys[0]).send().await.unwrap();
    assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, PERMANENT, "KMSInvalidStateException");
    assert_failed(kms.wrap_key(&key, &meta(), &call()).await, PERMANENT, "KMSInvalidStateException");
    operator(EAST).cancel_key_deletion().key_id(&keys[0]).send().await.unwrap();
    operator(EAST).enable_key().key_id(&keys[0]).send().await.unwrap();
    assert_unwraps(&kms, &wrapped, &key).await;
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_a_permanent_failure() {
    let nothing = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let kms = AwsKms::builder().region(EAST, nothing).client(EAST, operator(EAST)).open().await.unwrap();
    let wrapped = wrap(&Setup::new(&[EAST]).await.kms, &new_secret()).await;
    assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, PERMANENT, "NotFoundException");
    assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, PERMANENT, "NotFoundException");
}

/// While the preferred region's key is disabled, the others read and write; what is written lacks that
/// region's copy, and says so.
#[tokio::test]
async fn other_regions_serve_while_one_regions_key_is_disabled() {
    let Setup { kms, keys } = Setup::new(&REGIONS).await;
    let key = new_secret();
    let whole = wrap(&kms, &key).await;
    operator(EAST).disable_key().key_id(&keys[0]).send().await.unwrap();
    assert_unwraps(&kms, &whole, &key).await;
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(wrapped.missing_copies(), [EAST]);
    assert_eq!(regions_of(wrapped.bytes()), [WEST, EUROPE]);
    operator(EAST).enable_key().key_id(&keys[0]).send().await.unwrap();
    assert_unwraps(&kms, wrapped.bytes(), &key).await;
}

/// A master key is replaced by another: the old one goes on to unwrap as long as it is said to.
#[tokio::test]
async fn a_previous_key_unwraps_what_it_wrapped() {
    let Setup { kms: before, keys } = Setup::new(&[EAST, WEST]).await;
    let key = new_secret();
    let wrapped = wrap(&before, &key).await;
    let strict = Setup::new(&[EAST, WEST]).await.kms;
    assert_failed(strict.unwrap_key(&wrapped, &meta(), &call()).await, DAMAGED, "IncorrectKeyException");
    let mut now = AwsKms::builder();
    for (region, old_key) in [EAST, WEST].into_iter().zip(&keys) {
        let new_key = new_key(shared_localstack(), region).await;
        now = now.region(region, new_key).previous_arn(region, old_key).client(region, operator(region));
    }
    let now = now.open().await.unwrap();
    assert_unwraps(&now, &wrapped, &key).await;
    // What is wrapped now is nothing to the old key.
    let again = wrap(&now, &key).await;
    assert_unwraps(&now, &again, &key).await;
    assert_failed(before.unwrap_key(&again, &meta(), &call()).await, DAMAGED, "IncorrectKeyException");
}

/// A key of several regions is one key under two ARNs; each region's is the configured one.
#[tokio::test]
async fn a_key_of_several_regions_serves_in_each() {
    let primary = operator(EAST).create_key().multi_region(true).send().await.unwrap();
    let primary = primary.key_metadata.unwrap().arn.unwrap();
    operator(EAST).replicate_key().key_id(&primary).replica_region(WEST).send().await.unwrap();
    let replica = primary.replace(EAST, WEST);
    assert!(replica.contains("key/mrk-"), "{replica}");
    let both = AwsKms::builder().region(EAST, &primary).region(WEST, &replica);
    let both = both.client(EAST, operator(EAST)).client(WEST, operator(WEST)).open().await.unwrap();
    let key = new_secret();
    let wrapped = wrap(&both, &key).await;
    for (region, arn) in [(EAST, &primary), (WEST, &replica)] {
        let alone = AwsKms::builder().region(region, arn).client(region, operator(region));
        assert_unwraps(&alone.open().await.unwrap(), &wrapped, &key).await;
    }
}

/// Any one region unwraps what three wrapped.
#[tokio::test]
async fn every_region_alone_unwraps() {
    let Setup { kms, keys } = Setup::new(&REGIONS).await;
    let key = new_secret();
    let wrapped = wrap(&kms, &key).await;
    for (region, arn) in REGIONS.into_iter().zip(&keys) {
        let alone = AwsKms::builder().region(region, arn).client(region, operator(region));
        assert_unwraps(&alone.open().await.unwrap(), &wrapped, &key).await;
    }
}

#[tokio::test]
async fn check_tells_the_region_whose_key_is_disabled() {
    let Setup { kms, keys } = Setup::new(&REGIONS).await;
    operator(WEST).disable_key().key_id(&keys[1]).send().await.unwrap();
    for check in kms.check(&call()).await {
        assert_eq!(check.is_good(), check.name != WEST, "{check:?}");
    }
}
