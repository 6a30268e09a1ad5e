//! Who is asked for what, when, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::KeyManagementService as _;
use claviger::testing::{FixedClock, call};
use claviger_kms::CopyFailures;
use claviger_testkit::{AwsStandIn, Proxy, Reply};
use serde_json::json;
use tokio::sync::{Barrier, Notify};

use crate::stand_in::{base64, honest, regions};
use crate::support::{
    DAMAGED, EAST, EUROPE, PERMANENT, REGIONS, TRANSIENT, WEST, arn, assert_failed, assert_unwraps, chain,
    client, envelope, meta, new_secret, regions_of, wrap,
};

/// No hedge comes by chance.
const LATE: Duration = Duration::from_secs(100);

async fn three() -> [AwsStandIn; 3] {
    [AwsStandIn::start(honest).await, AwsStandIn::start(honest).await, AwsStandIn::start(honest).await]
}

fn named(stand_ins: &[AwsStandIn]) -> impl Iterator<Item = (&str, &AwsStandIn)> {
    REGIONS.into_iter().zip(stand_ins)
}

fn operations(stand_ins: &[AwsStandIn]) -> Vec<Vec<String>> {
    stand_ins.iter().map(AwsStandIn::operations).collect()
}

fn throttled() -> Reply {
    Reply::error(400, "ThrottlingException", "Rate exceeded")
}

#[tokio::test]
async fn s3_11_a_wrap_is_one_generate_data_key_and_an_encrypt_in_each_other_region() {
    let servers = three().await;
    let kms = regions(named(&servers)).hedge_after(LATE).preferred(WEST).open().await.unwrap();
    let wrapped = wrap(&kms, &new_secret()).await;
    assert_eq!(operations(&servers), [["Encrypt"], ["GenerateDataKey"], ["Encrypt"]]);
    assert_eq!(regions_of(&wrapped), [WEST, EAST, EUROPE]);
    for copy in envelope(&wrapped)["kmsKeks"].as_array().unwrap() {
        assert_eq!(copy["arn"], arn(copy["region"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn s3_11_an_unwrap_is_one_decrypt_in_the_preferred_region() {
    let servers = three().await;
    let kms = regions(named(&servers)).hedge_after(LATE).preferred(EUROPE).open().await.unwrap();
    let key = new_secret();
    let wrapped = wrap(&kms, &key).await;
    servers.iter().for_each(AwsStandIn::forget);
    assert_unwraps(&kms, &wrapped, &key).await;
    assert_eq!(operations(&servers), [vec![], vec![], vec!["Decrypt".to_owned()]]);
}

#[tokio::test]
async fn inspect_asks_nobody_and_tells_what_is_there() {
    let servers = three().await;
    let wrapped = wrap(&regions(named(&servers[..2])).open().await.unwrap(), &new_secret()).await;
    servers.iter().for_each(AwsStandIn::forget);
    let kms = regions(named(&servers).skip(1)).open().await.unwrap();
    let health = kms.inspect(&wrapped).unwrap();
    assert_eq!((health.present, health.missing), (vec![WEST.to_owned()], vec![EUROPE.to_owned()]));
    // A copy that cannot be one is none.
    let mut broken = envelope(&wrapped);
    broken["kmsKeks"][1]["encryptedKek"] = json!("*");
    let health = kms.inspect(broken.to_string().as_bytes()).unwrap();
    assert_eq!(health.missing, [WEST, EUROPE]);
    assert!(operations(&servers).concat().is_empty());
    assert_failed(kms.inspect(b"{}"), DAMAGED, "no envelope");
}

#[tokio::test]
async fn the_other_regions_wrap_at_the_same_time() {
    let first = AwsStandIn::start(honest).await;
    let both = Arc::new(Barrier::new(2));
    // Neither answers until both were asked.
    let other = || {
        let both = Arc::clone(&both);
        AwsStandIn::start_with(move |request| {
            let both = Arc::clone(&both);
            async move {
                both.wait().await;
                honest(&request)
            }
        })
    };
    let servers = [first, other().await, other().await];
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    assert_eq!(regions_of(&wrap(&kms, &new_secret()).await), REGIONS);
}

#[tokio::test]
async fn a_region_that_fails_is_named_among_the_missing_copies_and_another_generates() {
    let servers = [
        AwsStandIn::start(|_| throttled()).await,
        AwsStandIn::start(honest).await,
        AwsStandIn::start(honest).await,
    ];
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    let key = new_secret();
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(wrapped.missing_copies(), [EAST]);
    assert_eq!(regions_of(wrapped.bytes()), [WEST, EUROPE]);
    assert_eq!(kms.inspect(wrapped.bytes()).unwrap().missing, [EAST]);
    // It is asked for its copy all the same: what throttled one request may grant the next.
    assert_eq!(
        operations(&servers),
        [vec!["GenerateDataKey", "Encrypt"], vec!["GenerateDataKey"], vec!["Encrypt"]]
    );
    assert_unwraps(&kms, wrapped.bytes(), &key).await;
}

#[tokio::test]
async fn fewer_regions_than_min_regions_are_an_error_of_the_failures_class() {
    let denied = || Reply::error(400, "AccessDeniedException", "not authorized");
    for (reply, class) in [(throttled as fn() -> Reply, TRANSIENT), (denied, PERMANENT)] {
        let servers = [AwsStandIn::start(honest).await, AwsStandIn::start(move |_| reply()).await];
        let open = |least| regions(named(&servers)).hedge_after(LATE).min_regions(least).open();
        let kms = open(2).await.unwrap();
        let answer = kms.wrap_key(&new_secret(), &meta(), &call()).await;
        assert_failed(
            answer,
            class,
            "only 1 of the 2 regions that are asked for could wrap the key: back end",
        );
        let kms = open(1).await.unwrap();
        assert_eq!(kms.wrap_key(&new_secret(), &meta(), &call()).await.unwrap().missing_copies(), [WEST]);
    }
}

#[tokio::test]
async fn when_all_regions_fail_every_cause_is_kept() {
    let servers = [
        AwsStandIn::start(|_| Reply::error(400, "DisabledException", "it is disabled")).await,
        AwsStandIn::start(|_| throttled()).await,
        AwsStandIn::start(|_| Reply::error(400, "AccessDeniedException", "not authorized")).await,
    ];
    let honest = three().await;
    let wrapped = wrap(&regions(named(&honest)).open().await.unwrap(), &new_secret()).await;
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    let errors = [
        kms.unwrap_key(&wrapped, &meta(), &call()).await.unwrap_err(),
        kms.wrap_key(&new_secret(), &meta(), &call()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.class(), TRANSIENT);
        let text = chain(&error);
        for says in ["DisabledException", "ThrottlingException", "AccessDeniedException"] {
            assert!(text.contains(says), "{text}");
        }
        let causes = std::error::Error::source(&error).unwrap().downcast_ref::<CopyFailures>().unwrap();
        let names: Vec<_> = causes.failures().iter().map(|failure| failure.name.as_str()).collect();
        assert_eq!(names, REGIONS);
    }
}

#[tokio::test]
async fn a_copy_that_does_not_open_the_key_is_passed_over() {
    let servers = three().await;
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    let key = new_secret();
    let (mut forged, other) = (envelope(&wrap(&kms, &key).await), envelope(&wrap(&kms, &new_secret()).await));
    // Another key's data key, a ciphertext that is none, and what is no base64.
    forged["kmsKeks"][0]["encryptedKek"] = other["kmsKeks"][0]["encryptedKek"].clone();
    forged["kmsKeks"][1]["encryptedKek"] = json!(base64(b"nonsense"));
    assert_unwraps(&kms, forged.to_string().as_bytes(), &key).await;
    forged["kmsKeks"][2]["encryptedKek"] = json!("*");
    let refused = kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await;
    assert_failed(refused, DAMAGED, "authentication failed");
}

#[tokio::test]
async fn what_is_unwrapped_must_be_a_data_key() {
    for length in [0, 1, 31, 33, 64] {
        let wrong = move |request: &claviger_testkit::Request| match request.operation.as_str() {
            "Decrypt" => Reply::ok(json!({ "Plaintext": base64(&vec![7; length]) })),
            _ => honest(request),
        };
        let servers = [AwsStandIn::start(wrong).await];
        let kms = regions(named(&servers)).open().await.unwrap();
        let wrapped = wrap(&kms, &new_secret()).await;
        assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, DAMAGED, "not a data key");
    }
}

#[tokio::test]
async fn an_answer_without_what_was_asked_for_is_transient() {
    let better_times = AwsStandIn::start(honest).await;
    let wrapped = wrap(&regions([(EAST, &better_times)]).open().await.unwrap(), &new_secret()).await;
    let key = base64(&[7; 32]);
    for half in [
        json!({}),
        json!({ "Plaintext": key }),
        json!({ "Plaintext": key, "CiphertextBlob": "" }),
        json!({ "Plaintext": key, "CiphertextBlob": base64(&[7; 6145]) }),
        json!({ "Plaintext": base64(&[7; 31]), "CiphertextBlob": "AAAA" }),
        json!({ "CiphertextBlob": "AAAA" }),
    ] {
        let can_decrypt = half.get("Plaintext").is_some();
        let servers = [AwsStandIn::start(move |_| Reply::ok(half.clone())).await];
        let kms = regions(named(&servers)).open().await.unwrap();
        assert_failed(
            kms.wrap_key(&new_secret(), &meta(), &call()).await,
            TRANSIENT,
            "GenerateDataKey in us-east-1",
        );
        if !can_decrypt {
            assert_failed(
                kms.unwrap_key(&wrapped, &meta(), &call()).await,
                TRANSIENT,
                "Decrypt in us-east-1",
            );
        }
    }
    // Of another region's copy, it is a copy that is missing.
    let empty = |_: &claviger_testkit::Request| Reply::ok(json!({ "CiphertextBlob": "" }));
    let servers = [better_times, AwsStandIn::start(empty).await];
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    assert_eq!(kms.wrap_key(&new_secret(), &meta(), &call()).await.unwrap().missing_copies(), [WEST]);
}

/// The preferred region is asked and says nothing; the next one wins. The request that lost is dropped,
/// and its connection with it.
#[tokio::test]
async fn s3_11_the_loser_of_a_hedged_call_is_cancelled_and_its_connection_ends() {
    let silent = AwsStandIn::start(|_| Reply::Silence).await;
    let proxy = Proxy::start(silent.endpoint().trim_start_matches("http://")).await;
    let honest = AwsStandIn::start(honest).await;
    let builder = regions([(EAST, &silent), (WEST, &honest)]);
    let through = client(&format!("http://{}", proxy.address()), EAST);
    let builder = builder.client(EAST, through).hedge_after(Duration::from_millis(5));
    let kms = builder.open().await.unwrap();
    let alone = regions([(WEST, &honest)]).open().await.unwrap();
    let key = new_secret();
    let mut wrapped = envelope(&wrap(&alone, &key).await);
    let mut copy = wrapped["kmsKeks"][0].clone();
    copy["region"] = json!(EAST);
    wrapped["kmsKeks"].as_array_mut().unwrap().push(copy);
    assert_unwraps(&kms, wrapped.to_string().as_bytes(), &key).await;
    assert_eq!(silent.operations(), ["Decrypt"], "the preferred region was asked");
    assert_ends(&proxy).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_requests_along() {
    let asked = Arc::new(Notify::new());
    let silent = AwsStandIn::start_with({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.notify_one();
            async { Reply::Silence }
        }
    })
    .await;
    let proxy = Proxy::start(silent.endpoint().trim_start_matches("http://")).await;
    let through = client(&format!("http://{}", proxy.address()), EAST);
    let kms = regions([(EAST, &silent)]).client(EAST, through).open().await.unwrap();
    let (key, about, context) = (new_secret(), meta(), call());
    tokio::select! {
        answer = kms.wrap_key(&key, &about, &context) => panic!("{answer:?}"),
        () = asked.notified() => {}
    }
    assert_eq!(proxy.connections(), 1);
    assert_ends(&proxy).await;
}

async fn assert_ends(proxy: &Proxy) {
    let ended = async {
        while proxy.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the connection ends");
}

#[tokio::test]
async fn s3_11_a_dead_region_gets_one_request_a_second_and_its_copies_are_missing() {
    let is_dead = Arc::new(AtomicBool::new(true));
    let flaky = AwsStandIn::start({
        let is_dead = Arc::clone(&is_dead);
        move |request| if is_dead.load(Ordering::SeqCst) { throttled() } else { honest(request) }
    })
    .await;
    let servers = [AwsStandIn::start(honest).await, flaky];
    let clock = FixedClock::new(1_700_000_000);
    let kms = regions(named(&servers)).hedge_after(LATE).clock(clock.clone()).open().await.unwrap();
    let key = new_secret();
    for _ in 0..100 {
        assert_eq!(kms.wrap_key(&key, &meta(), &call()).await.unwrap().missing_copies(), [WEST]);
        clock.advance(Duration::from_millis(100));
    }
    // Three until it is taken to be dead, and then the last tenth of a second is the tenth probe's.
    let asked = servers[1].operations().len();
    assert!((3..=3 + 10).contains(&asked), "{asked} requests in ten seconds");
    is_dead.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    assert_eq!(kms.wrap_key(&key, &meta(), &call()).await.unwrap().missing_copies(), [""; 0]);
}

/// A region that says nothing is not what every call waits for first; it is still asked when no other
/// answers.
#[tokio::test]
async fn s3_11_a_region_that_was_late_is_asked_last() {
    let silent = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
    let server = |silent: &Arc<AtomicBool>| {
        let silent = Arc::clone(silent);
        AwsStandIn::start(
            move |request| {
                if silent.load(Ordering::SeqCst) { Reply::Silence } else { honest(request) }
            },
        )
    };
    let servers = [server(&silent[0]).await, server(&silent[1]).await];
    // The clock stands still: what is late now stays so.
    let clock = FixedClock::new(1_700_000_000);
    let kms = regions(named(&servers)).hedge_after(Duration::from_secs(1));
    let kms = kms.clock(clock.clone()).open().await.unwrap();
    let key = new_secret();
    let wrapped = wrap(&kms, &key).await;
    silent[0].store(true, Ordering::SeqCst);
    servers.iter().for_each(AwsStandIn::forget);
    for _ in 0..20 {
        assert_unwraps(&kms, &wrapped, &key).await;
    }
    assert_eq!(operations(&servers), [vec!["Decrypt"; 1], vec!["Decrypt"; 20]]);
    clock.advance(Duration::from_secs(1));
    assert_unwraps(&kms, &wrapped, &key).await;
    assert_eq!(operations(&servers), [vec!["Decrypt"; 2], vec!["Decrypt"; 21]]);
    silent[0].store(false, Ordering::SeqCst);
    silent[1].store(true, Ordering::SeqCst);
    assert_unwraps(&kms, &wrapped, &key).await;
    assert_eq!(operations(&servers), [vec!["Decrypt"; 3], vec!["Decrypt"; 22]]);
}

/// However many copies an envelope has, few are tried, and every region's first is among them.
#[tokio::test]
async fn the_number_of_copies_that_are_tried_is_bounded() {
    let servers = three().await;
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    let key = new_secret();
    let mut forged = envelope(&wrap(&kms, &key).await);
    let bad = json!({ "region": EAST, "arn": "", "encryptedKek": base64(b"nonsense") });
    let copies = forged["kmsKeks"].as_array_mut().unwrap();
    copies.remove(0);
    copies.splice(0..0, std::iter::repeat_n(bad.clone(), 100));
    servers.iter().for_each(AwsStandIn::forget);
    assert_unwraps(&kms, forged.to_string().as_bytes(), &key).await;
    assert_eq!(operations(&servers), [vec!["Decrypt"], vec!["Decrypt"], vec![]]);
    forged["kmsKeks"] = std::iter::repeat_n(bad, 100).collect();
    servers.iter().for_each(AwsStandIn::forget);
    assert_failed(
        kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await,
        DAMAGED,
        "no copy served",
    );
    assert_eq!(operations(&servers).concat().len(), 16);
}

/// A region that an envelope names twice has two copies.
#[tokio::test]
async fn the_second_copy_of_a_region_serves_when_the_first_does_not() {
    let servers = [AwsStandIn::start(honest).await];
    let kms = regions(named(&servers)).hedge_after(LATE).open().await.unwrap();
    let key = new_secret();
    let mut twice = envelope(&wrap(&kms, &key).await);
    let bad = json!({ "region": EAST, "arn": "", "encryptedKek": base64(b"nonsense") });
    twice["kmsKeks"].as_array_mut().unwrap().insert(0, bad);
    assert_unwraps(&kms, twice.to_string().as_bytes(), &key).await;
}

#[tokio::test]
async fn copies_of_regions_that_are_not_configured_are_not_tried() {
    let servers = three().await;
    let wrapped = wrap(&regions(named(&servers)).open().await.unwrap(), &new_secret()).await;
    let elsewhere = AwsStandIn::start(honest).await;
    let kms = regions([("ap-south-1", &elsewhere)]).open().await.unwrap();
    let refused = kms.unwrap_key(&wrapped, &meta(), &call()).await;
    assert_failed(refused, PERMANENT, "it has us-east-1, us-west-2, eu-west-1");
    assert_eq!(elsewhere.operations(), [""; 0]);
}

#[tokio::test]
async fn check_tries_every_region_by_itself() {
    let servers = [
        AwsStandIn::start(honest).await,
        AwsStandIn::start(|_| throttled()).await,
        AwsStandIn::start(honest).await,
    ];
    let kms = regions(named(&servers)).hedge_after(LATE).min_regions(3).open().await.unwrap();
    let checks = kms.check(&call()).await;
    assert_eq!(checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), REGIONS);
    assert_eq!(checks.iter().map(claviger_kms::CopyCheck::is_good).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(
        operations(&servers),
        [vec!["GenerateDataKey", "Decrypt"], vec!["GenerateDataKey"], vec!["GenerateDataKey", "Decrypt"]]
    );
}

/// A check asks, and says why, also where calls are not made any more.
#[tokio::test]
async fn check_asks_a_region_that_is_left_alone() {
    let servers = [AwsStandIn::start(|_| throttled()).await];
    let clock = FixedClock::new(1_700_000_000);
    let kms = regions(named(&servers)).clock(clock).open().await.unwrap();
    for _ in 0..5 {
        assert!(kms.wrap_key(&new_secret(), &meta(), &call()).await.is_err());
    }
    assert_eq!(servers[0].operations().len(), 3);
    let [check] = kms.check(&call()).await.try_into().unwrap();
    assert_failed(check.wrap, TRANSIENT, "ThrottlingException");
    assert_eq!(servers[0].operations().len(), 4);
}
