//! Any one of several services is enough.

use std::time::Duration;

use claviger::testing::{FailingRandom, Fault, Operation, call};
use claviger::{CallContext, FailureClass, FailureKind, KeyManagementService, SystemRandom, WrapHealth};
use claviger_kms::{AnyOfKms, AnyOfKmsBuilder};
use tokio::time::Instant;

use crate::support::{
    Copy, DEADLINE, Envelope, Member, any_of, assert_same, causes, fresh_key, k_of_n, members, meta, said,
    unwrap, wrap,
};

const HEDGE: Duration = Duration::from_millis(300);

fn writing(members: &[Member]) -> AnyOfKmsBuilder {
    any_of(members).asherah_compatible(false)
}

#[tokio::test(start_paused = true)]
async fn any_one_member_unwraps_whatever_ails_the_others() {
    let members = members::<3>();
    let key = fresh_key();
    let wrapped = wrap(&writing(&members).build().unwrap(), &key).await;
    assert_eq!(Envelope::read(&wrapped).members(), ["a", "b", "c"]);
    let fail = |class| move |member: &Member| member.faults().always(Fault::Fail(class));
    let ails: [&dyn Fn(&Member); 5] = [
        &fail(FailureClass::Transient),
        &fail(FailureClass::Permanent),
        &fail(FailureClass::Damaged),
        &|member| member.faults().always(Fault::Hang),
        &Member::lie,
    ];
    for (ail, how) in ails.iter().enumerate() {
        for healthy in 0..3 {
            let kms = writing(&members).build().unwrap();
            members
                .iter()
                .enumerate()
                .filter(|(place, _)| *place != healthy)
                .for_each(|(_, member)| how(member));
            let begun = Instant::now();
            assert_same(unwrap(&kms, &wrapped).await, &key);
            let waited = if ail == 3 { HEDGE * u32::try_from(healthy).unwrap() } else { Duration::ZERO };
            assert_eq!(begun.elapsed(), waited, "{healthy} alone, ail {ail}");
            members.iter().for_each(Member::heal);
        }
        let kms = writing(&members).build().unwrap();
        members.iter().for_each(how);
        let error = unwrap(&kms, &wrapped).await.unwrap_err();
        let classes = [
            FailureClass::Transient,
            FailureClass::Permanent,
            FailureClass::Damaged,
            FailureClass::Transient,
            FailureClass::Damaged,
        ];
        assert_eq!(error.class(), classes[ail]);
        assert_eq!(causes(&error).len(), 3, "every cause is kept");
        members.iter().for_each(Member::heal);
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_asked_in_the_order_of_the_configuration_and_no_more_than_needed() {
    let members = members::<3>();
    let key = fresh_key();
    let mut envelope = Envelope::read(&wrap(&writing(&members).build().unwrap(), &key).await);
    envelope.copies.reverse();
    let kms = writing(&members).build().unwrap();
    members.iter().for_each(Member::heal);
    assert_same(unwrap(&kms, &envelope.bytes()).await, &key);
    assert_eq!(members.each_ref().map(|member| member.faults().calls()), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_is_dropped() {
    let members = members::<2>();
    let kms = writing(&members).hedge_after(HEDGE / 2).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    members[0].faults().always(Fault::Hang);
    let begun = Instant::now();
    assert_same(unwrap(&kms, &wrapped).await, &key);
    assert_eq!(begun.elapsed(), HEDGE / 2);
    assert_eq!(members[0].faults().hanging(), 0);
}

/// The copies are bound to each other by the seal: two members never answer with two keys.
#[tokio::test(start_paused = true)]
async fn copies_of_two_envelopes_are_never_mixed() {
    let members = members::<2>();
    let kms = writing(&members).build().unwrap();
    let (key, other_key) = (fresh_key(), fresh_key());
    let ours = Envelope::read(&wrap(&kms, &key).await);
    let others = Envelope::read(&wrap(&kms, &other_key).await);
    for (first, second) in [(&ours, &others), (&others, &ours)] {
        let mut forged = ours.clone();
        forged.copies = vec![first.copies[0].clone(), second.copies[1].clone()];
        // Each member by itself, and both: the sealed key, or nothing.
        assert_same(unwrap(&kms, &forged.bytes()).await, &key);
        for down in 0..2 {
            let kms = writing(&members).build().unwrap();
            members[down].faults().always(Fault::Fail(FailureClass::Transient));
            if let Ok(unwrapped) = unwrap(&kms, &forged.bytes()).await {
                assert_same(Ok(unwrapped), &key);
            }
            members.iter().for_each(Member::heal);
        }
    }
    // With all copies another envelope's, nothing.
    let forged = Envelope { copies: others.copies, ..ours };
    assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);
}

#[tokio::test(start_paused = true)]
async fn names_that_were_exchanged_or_are_not_configured_bring_nothing() {
    let members = members::<2>();
    let kms = writing(&members).build().unwrap();
    let key = fresh_key();
    let ours = Envelope::read(&wrap(&kms, &key).await);
    let mut forged = ours.clone();
    forged.copies[0].member = "b".to_owned();
    forged.copies[1].member = "a".to_owned();
    assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);

    members.iter().for_each(Member::heal);
    let mut forged = ours.clone();
    forged.copies[0].member = "x".to_owned();
    forged.copies[1].member = "y".to_owned();
    let error = unwrap(&kms, &forged.bytes()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains(r#"copies by ["x", "y"]; configured are ["a", "b"]"#), "{}", said(&error));
    assert_eq!(members.each_ref().map(|member| member.faults().calls()), [0, 0]);
    // One more that is not configured does no harm.
    let mut more = ours;
    more.copies.push(Copy { member: "x".to_owned(), x: 9, ..more.copies[0].clone() });
    assert_same(unwrap(&kms, &more.bytes()).await, &key);
}

#[tokio::test(start_paused = true)]
async fn a_bare_envelope_is_tried_with_each_member() {
    let members = members::<3>();
    let key = fresh_key();
    for kms in [any_of(&members).build().unwrap(), writing(&members).build().unwrap()] {
        for member in &members {
            assert_same(unwrap(&kms, &member.wrap(&key).await).await, &key);
        }
        let foreign = Member::new().wrap(&key).await;
        let error = unwrap(&kms, &foreign).await.unwrap_err();
        assert_eq!(error.class(), FailureClass::Damaged);
        assert_eq!(causes(&error).len(), 3);
        // The one that is down may know it.
        members[1].faults().always(Fault::Fail(FailureClass::Transient));
        assert_eq!(unwrap(&kms, &foreign).await.unwrap_err().class(), FailureClass::Transient);
        members.iter().for_each(Member::heal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_compatible_one_stores_what_the_first_member_wraps_as_it_is() {
    let members = members::<2>();
    let kms = any_of(&members).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    assert_same(members[0].kms.unwrap_key(&wrapped, &meta(), &call()).await, &key);
    assert_eq!(members[1].faults().calls(), 0);
    // No other one steps in: it would not be what was asked for.
    members[0].faults().always(Fault::Fail(FailureClass::Transient));
    assert!(kms.wrap_key(&key, &meta(), &call()).await.unwrap_err().is_transient());
    assert_eq!(members[1].faults().calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_compatible_one_reads_what_another_wrote_for_all() {
    let members = members::<2>();
    let key = fresh_key();
    let wrapped = wrap(&writing(&members).build().unwrap(), &key).await;
    let kms = any_of(&members).build().unwrap();
    members[0].faults().always(Fault::Fail(FailureClass::Transient));
    assert_same(unwrap(&kms, &wrapped).await, &key);
}

#[tokio::test(start_paused = true)]
async fn copies_that_could_not_be_made_are_missing_and_fewer_than_asked_for_is_an_error() {
    let members = members::<3>();
    let key = fresh_key();
    members[0].faults().always(Fault::Fail(FailureClass::Permanent));
    members[2].faults().always(Fault::Hang);
    let begun = Instant::now();
    let kms = writing(&members).build().unwrap();
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(begun.elapsed(), DEADLINE);
    assert_eq!(wrapped.missing_copies(), ["a", "c"]);
    assert_same(unwrap(&kms, wrapped.bytes()).await, &key);
    let error =
        writing(&members).min_copies(2).build().unwrap().wrap_key(&key, &meta(), &call()).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(causes(&error).len(), 2);
    members[1].faults().always(Fault::Fail(FailureClass::Permanent));
    let kms = writing(&members[..2]).build().unwrap();
    assert_eq!(kms.wrap_key(&key, &meta(), &call()).await.unwrap_err().class(), FailureClass::Permanent);
}

#[tokio::test(start_paused = true)]
async fn inspect_tells_what_is_there_and_what_should_be() {
    let members = members::<3>();
    let [compatible, all] = [any_of(&members).build().unwrap(), writing(&members).build().unwrap()];
    let health = |present: &[&str], missing: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        WrapHealth::new(own(present), own(missing))
    };
    let key = fresh_key();
    let bare = wrap(&compatible, &key).await;
    assert_eq!(compatible.inspect(&bare).unwrap(), health(&["a"], &[]));
    assert_eq!(all.inspect(&bare).unwrap(), health(&["a"], &["b", "c"]));

    members[0].faults().always_for(Operation::WrapKey, Fault::Fail(FailureClass::Transient));
    let degraded = wrap(&all, &key).await;
    members[0].heal();
    assert_eq!(all.inspect(&degraded).unwrap(), health(&["b", "c"], &["a"]));
    assert_eq!(compatible.inspect(&degraded).unwrap(), health(&["b", "c"], &["a"]));
    // Who is not configured has a copy all the same.
    let fewer = writing(&members[..2]).build().unwrap();
    assert_eq!(fewer.inspect(&degraded).unwrap(), health(&["c", "b"], &["a"]));
    // A copy that its member does not take for its own is none.
    let mut forged = Envelope::read(&degraded);
    forged.copies[0].copy = Copy::new("b", 2, b"short").copy;
    assert_eq!(all.inspect(&forged.bytes()).unwrap(), health(&["c"], &["a", "b"]));
    // Nobody takes this for his own.
    assert_eq!(all.inspect(b"garbage").unwrap_err().class(), FailureClass::Damaged);
    assert_eq!(all.inspect(b"CLV1{}").unwrap_err().class(), FailureClass::Damaged);
    assert_eq!(members.iter().map(|member| member.faults().calls_of(Operation::UnwrapKey)).sum::<usize>(), 0);
}

#[tokio::test(start_paused = true)]
async fn randomness_that_fails_at_any_draw_is_a_transient_error_and_nobody_is_asked() {
    const DRAWS: u64 = 2;
    let members = members::<3>();
    for n in 1..=DRAWS {
        let kms = writing(&members).random(FailingRandom::new(SystemRandom::new(), n)).build().unwrap();
        assert!(kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err().is_transient(), "draw {n}");
        assert!(members.iter().all(|member| member.faults().calls() == 0), "draw {n}");
    }
    let kms = writing(&members).random(FailingRandom::new(SystemRandom::new(), DRAWS + 1)).build().unwrap();
    assert!(kms.wrap_key(&fresh_key(), &meta(), &call()).await.is_ok(), "there are {DRAWS} draws");
}

#[test]
fn what_cannot_work_is_refused_when_built() {
    let members: [Member; 3] = std::array::from_fn(|_| Member::new());
    let refused = |builder: AnyOfKmsBuilder| match builder.build() {
        Err(error) if error.kind() == Some(FailureKind::Settings) => {
            std::error::Error::source(&error).unwrap().to_string()
        }
        other => panic!("{other:?}"),
    };
    assert!(refused(AnyOfKms::builder()).contains("0 members"));
    assert!(refused(any_of(&members).min_copies(2)).contains("1 will be made"));
    assert!(refused(writing(&members).min_copies(4)).contains("3 will be made"));
    assert!(refused(writing(&members).min_copies(0)).contains("min_copies is 0"));
    assert!(refused(any_of(&members).member("a", members[0].kms.clone())).contains("two members"));
    assert!(refused(any_of(&members).member("x/y", members[0].kms.clone())).contains("is called"));
}

#[tokio::test(start_paused = true)]
async fn check_tries_each_member_within_its_deadline() {
    let members = members::<2>();
    members[0].faults().always(Fault::Hang);
    let begun = Instant::now();
    let checks = any_of(&members).build().unwrap().check(&CallContext::within(DEADLINE)).await;
    assert_eq!(begun.elapsed(), DEADLINE);
    assert_eq!(checks.iter().map(|check| check.is_good()).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_does_not_read_what_any_one_opens_nor_the_reverse() {
    let members = members::<2>();
    let key = fresh_key();
    let any = writing(&members).build().unwrap();
    let quorum = k_of_n(2, &members).build().unwrap();
    assert_eq!(unwrap(&quorum, &wrap(&any, &key).await).await.unwrap_err().class(), FailureClass::Permanent);
    assert_eq!(unwrap(&any, &wrap(&quorum, &key).await).await.unwrap_err().class(), FailureClass::Damaged);
}
