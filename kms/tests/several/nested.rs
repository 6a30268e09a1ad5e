//! Members that are made of members.

use claviger::testing::{Fault, Operation, call};
use claviger::{FailureClass, KeyManagementService, StaticKms};
use claviger_kms::{AnyOfKms, KofNKms};

use crate::support::{
    Envelope, Member, any_of, assert_same, fresh_key, k_of_n, members, meta, said, unwrap, wrap,
};

#[tokio::test(start_paused = true)]
async fn a_quorum_is_a_member_of_any_of() {
    let [inner, outer] = [members::<3>(), members::<3>()];
    let quorum = std::sync::Arc::new(k_of_n(2, &inner).build().unwrap());
    let kms = AnyOfKms::builder()
        .member("quorum", std::sync::Arc::clone(&quorum))
        .member("hsm", outer[0].kms.clone())
        .asherah_compatible(false)
        .build()
        .unwrap();
    let key = fresh_key();
    inner[0].faults().always_for(Operation::WrapKey, Fault::Fail(FailureClass::Transient));
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(wrapped.missing_copies(), ["quorum/a"]);
    let health = kms.inspect(wrapped.bytes()).unwrap();
    assert_eq!(health.present, ["quorum", "hsm"]);
    assert_eq!(health.missing, ["quorum/a"]);
    assert_same(unwrap(&kms, wrapped.bytes()).await, &key);
    assert_eq!(outer[0].faults().calls_of(Operation::UnwrapKey), 0);
    // The quorum is lost.
    inner[1].faults().always(Fault::Fail(FailureClass::Transient));
    assert_same(unwrap(&kms, wrapped.bytes()).await, &key);
    assert_eq!(outer[0].faults().calls_of(Operation::UnwrapKey), 1);
}

/// How a store moves to a quorum: what one member wrapped alone, and what the quorum wraps.
#[tokio::test(start_paused = true)]
async fn a_quorum_comes_first_in_a_move_to_it() {
    let [inner, old] = [members::<3>(), members::<3>()];
    let key = fresh_key();
    let bare = old[0].wrap(&key).await;
    let for_both = wrap(&any_of(&old[..2]).asherah_compatible(false).build().unwrap(), &key).await;
    let kms = AnyOfKms::builder()
        .member("quorum", k_of_n(2, &inner).build().unwrap())
        .member("a", old[0].kms.clone())
        .build()
        .unwrap();
    assert_same(unwrap(&kms, &bare).await, &key);
    assert_same(unwrap(&kms, &for_both).await, &key);
    let wrapped = wrap(&kms, &key).await;
    assert_eq!(Envelope::read(&wrapped).kind, "k-of-n");
    assert_same(unwrap(&kms, &wrapped).await, &key);
    assert_same(unwrap(&k_of_n(2, &inner).build().unwrap(), &wrapped).await, &key);
    // Where a move stands can be seen.
    assert_eq!(kms.inspect(&wrapped).unwrap().missing, [""; 0]);
    assert_eq!(kms.inspect(&bare).unwrap().missing, ["quorum"]);
    assert_eq!(kms.inspect(&for_both).unwrap().missing, ["quorum"]);
}

#[tokio::test(start_paused = true)]
async fn any_of_is_a_member_of_a_quorum() {
    let [one, other] = [members::<2>(), members::<2>()];
    let any = |members: &[Member]| any_of(members).asherah_compatible(false).build().unwrap();
    let kms = claviger_kms::KofNKms::builder(2)
        .member("one", any(&one))
        .member("other", any(&other))
        .asherah_compatible(false)
        .build()
        .unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    for member in [&one[0], &other[1]] {
        member.faults().always(Fault::Fail(FailureClass::Transient));
    }
    assert_same(unwrap(&kms, &wrapped).await, &key);
    one[1].faults().always(Fault::Fail(FailureClass::Transient));
    assert!(unwrap(&kms, &wrapped).await.unwrap_err().is_transient());
}

#[tokio::test(start_paused = true)]
async fn any_of_is_a_member_of_any_of_and_never_writes_what_it_cannot_read() {
    let [one, other] = [members::<2>(), members::<2>()];
    let inner = || any_of(&one).asherah_compatible(false).build().unwrap();
    let outer = |compatible| {
        let builder = AnyOfKms::builder().member("inner", inner()).member("b", other[0].kms.clone());
        builder.asherah_compatible(compatible).build().unwrap()
    };
    let key = fresh_key();
    let wrapped = wrap(&outer(false), &key).await;
    other[0].faults().always(Fault::Fail(FailureClass::Transient));
    assert_same(unwrap(&outer(false), &wrapped).await, &key);
    let error = outer(true).wrap_key(&key, &meta(), &call()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains("give its members to this one"), "{}", said(&error));
}

#[tokio::test(start_paused = true)]
async fn what_grows_beyond_a_record_is_refused_before_it_is_stored() {
    let key = fresh_key();
    let leaves: Vec<Member> = (0..10).map(|_| Member::new()).collect();
    let all = || {
        let add = |builder: claviger_kms::AnyOfKmsBuilder, place: usize| {
            builder.member(format!("leaf{place}"), leaves.get(place).unwrap().kms.clone())
        };
        (0..10).fold(AnyOfKms::builder().asherah_compatible(false), add)
    };
    let ten_by_ten = (0..10).fold(AnyOfKms::builder().asherah_compatible(false), |builder, place| {
        builder.member(format!("branch{place}"), all().build().unwrap())
    });
    let ten_by_ten = ten_by_ten.build().unwrap();
    // 100 copies still fit.
    let wrapped = wrap(&ten_by_ten, &key).await;
    assert_same(unwrap(&ten_by_ten, &wrapped).await, &key);
    let twice = |kms: std::sync::Arc<AnyOfKms>| {
        let builder = AnyOfKms::builder().asherah_compatible(false);
        (0..4)
            .fold(builder, |builder, place| builder.member(format!("m{place}"), std::sync::Arc::clone(&kms)))
    };
    let too_big = twice(std::sync::Arc::new(ten_by_ten)).build().unwrap();
    let error = too_big.wrap_key(&key, &meta(), &call()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains("48000 bytes"), "{}", said(&error));
}

/// A key is as well locked as where it is locked least.
#[test]
fn memory_is_locked_as_by_the_member_that_locks_it_least() {
    use claviger::LockPolicy::{Off, Prefer, Require};

    let member = |locks| StaticKms::with_lock_policy(&fresh_key(), locks).unwrap();
    for (own, members, weakest) in [
        (Require, [Require, Require], Require),
        (Require, [Prefer, Require], Prefer),
        (Require, [Require, Off], Off),
        (Prefer, [Require, Require], Prefer),
        (Off, [Prefer, Require], Off),
    ] {
        let any = AnyOfKms::builder().member("a", member(members[0])).member("b", member(members[1]));
        assert_eq!(any.lock_policy(own).build().unwrap().lock_policy(), Some(weakest));
        let quorum = KofNKms::builder(2).asherah_compatible(false);
        let quorum = quorum.member("a", member(members[0])).member("b", member(members[1]));
        assert_eq!(quorum.lock_policy(own).build().unwrap().lock_policy(), Some(weakest));
    }
}
