//! What is refused before any member is asked, and what is not.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper fails its test by panicking")]

use claviger::testing::{Fault, Operation, call};
use claviger::{FailureClass, KeyManagementService};
use claviger_kms::{AnyOfKms, KofNKms};

use crate::support::{
    Envelope, Member, any_of, assert_same, fresh_key, k_of_n, members, meta, said, unwrap, wrap,
};

async fn assert_refused_without_asking(kms: &impl KeyManagementService, wrapped: &[u8], members: &[Member]) {
    let asked = || members.iter().map(|member| member.faults().calls()).sum::<usize>();
    let before = asked();
    let error = unwrap(kms, wrapped).await.unwrap_err();
    assert!(!error.was_asked() && !error.is_transient(), "{}", said(&error));
    assert_eq!(asked(), before);
}

fn strangers(members: &[Member]) -> AnyOfKms {
    let builder = AnyOfKms::builder().asherah_compatible(false);
    builder.member("stranger", members[0].kms.clone()).build().unwrap()
}

#[tokio::test]
async fn any_of_says_of_an_envelope_that_it_was_refused_without_asking() {
    let members = members::<2>();
    let kms = any_of(&members).asherah_compatible(false).build().unwrap();
    let wrapped = wrap(&kms, &fresh_key()).await;
    let mut nothing_in_it = Envelope::read(&wrapped);
    nothing_in_it.copies.clear();
    for malformed in [&b"CLV1{"[..], &wrapped[..wrapped.len() - 1], &nothing_in_it.bytes()] {
        assert_refused_without_asking(&kms, malformed, &members).await;
        assert!(!kms.inspect(malformed).unwrap_err().was_asked());
    }
    assert_refused_without_asking(&strangers(&members), &wrapped, &members).await;
    members.iter().for_each(|member| member.faults().always(Fault::Fail(FailureClass::Permanent)));
    assert!(unwrap(&kms, &wrapped).await.unwrap_err().was_asked());
}

#[tokio::test]
async fn k_of_n_says_of_an_envelope_that_it_was_refused_without_asking() {
    let members = members::<3>();
    let kms = k_of_n(2, &members).build().unwrap();
    let wrapped = wrap(&kms, &fresh_key()).await;
    for malformed in [&b"CLV1{"[..], &wrapped[..wrapped.len() - 1], &[7; 60]] {
        assert_refused_without_asking(&kms, malformed, &members).await;
    }
    let more = k_of_n(3, &members).build().unwrap();
    assert_refused_without_asking(&more, &wrapped, &members).await;
    let [one, other, _] = &members;
    let strangers = KofNKms::builder(2).asherah_compatible(false);
    let strangers = strangers.member("x", one.kms.clone()).member("y", other.kms.clone()).build().unwrap();
    assert_refused_without_asking(&strangers, &wrapped, &members).await;
    let compatible = k_of_n(2, &members).asherah_compatible(true).build().unwrap();
    assert!(!compatible.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err().was_asked());
    // One share came, which is too few.
    members[1..].iter().for_each(|member| member.faults().always(Fault::Fail(FailureClass::Permanent)));
    assert!(unwrap(&kms, &wrapped).await.unwrap_err().was_asked());
}

/// The refusal of a member is that of the whole, if all members refuse so.
#[tokio::test]
async fn members_that_ask_nobody_make_a_whole_that_asked_nobody() {
    let of_inner = members::<3>();
    let two_of_three = k_of_n(2, &of_inner).build().unwrap();
    let wrapped = wrap(&two_of_three, &fresh_key()).await;
    let three_of_three = || k_of_n(3, &of_inner).build().unwrap();
    let one = AnyOfKms::builder().member("inner", three_of_three()).build().unwrap();
    assert_refused_without_asking(&one, &wrapped, &of_inner).await;
    let beside = Member::new();
    let two = AnyOfKms::builder().member("inner", three_of_three()).member("beside", beside.kms.clone());
    assert!(unwrap(&two.build().unwrap(), &wrapped).await.unwrap_err().was_asked());
    // Likewise a wrap, for which one was asked and answered, and too few were left.
    let two = AnyOfKms::builder().asherah_compatible(false).min_copies(2);
    let compatible = k_of_n(2, &of_inner).asherah_compatible(true).build().unwrap();
    let two = two.member("inner", compatible).member("beside", beside.kms.clone()).build().unwrap();
    assert!(two.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err().was_asked());
}

/// It is read from the bytes: a member that is down is not up for it.
#[tokio::test(start_paused = true)]
async fn an_inspection_closes_no_members_breaker() {
    let members = members::<1>();
    let kms = any_of(&members).asherah_compatible(false).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    members[0].faults().always_for(Operation::UnwrapKey, Fault::Fail(FailureClass::Transient));
    while members[0].faults().calls_of(Operation::UnwrapKey) < 3 {
        assert!(unwrap(&kms, &wrapped).await.unwrap_err().is_transient());
    }
    kms.inspect(&wrapped).unwrap();
    members[0].heal();
    assert!(unwrap(&kms, &wrapped).await.unwrap_err().is_transient(), "it was not asked");
    let afresh = any_of(&members).asherah_compatible(false).build().unwrap();
    assert_same(unwrap(&afresh, &wrapped).await, &key);
}
