//! A quorum: which shares open it, how soon, and which do not.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::time::Duration;

use claviger::testing::{FailingRandom, Fault, FixedClock, Operation, call};
use claviger::{FailureClass, FailureKind, KeyManagementService, SecretKey, SystemRandom, WrapHealth};
use claviger_kms::{KofNKms, KofNKmsBuilder};
use tokio::time::Instant;

use crate::support::{
    Copy, DEADLINE, Envelope, Member, NAMES, any_of, assert_same, causes, fresh_key, k_of_n, members, meta,
    said, unwrap, wrap,
};

const K: u8 = 3;
const N: usize = 5;

/// All subsets of five, as which of them are in.
fn subsets() -> impl Iterator<Item = [bool; N]> {
    (0..1_u8 << N).map(|mask| std::array::from_fn(|place| mask >> place & 1 == 1))
}

fn size(subset: [bool; N]) -> usize {
    subset.iter().filter(|is_in| **is_in).count()
}

/// Makes the members that are not in the subset useless.
fn spoil(members: &[Member; N], subset: [bool; N], how: Spoilt) {
    for (member, is_in) in members.iter().zip(subset) {
        match how {
            _ if is_in => {}
            Spoilt::Fails(class) => member.faults().always(Fault::Fail(class)),
            Spoilt::Hangs => member.faults().always(Fault::Hang),
            Spoilt::Lies => member.lie(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Spoilt {
    Fails(FailureClass),
    Hangs,
    Lies,
}

const ALL_WAYS: [Spoilt; 5] = [
    Spoilt::Fails(FailureClass::Transient),
    Spoilt::Fails(FailureClass::Permanent),
    Spoilt::Fails(FailureClass::Damaged),
    Spoilt::Hangs,
    Spoilt::Lies,
];

#[tokio::test(start_paused = true)]
async fn every_subset_of_k_opens_whatever_ails_the_others() {
    let members = members::<N>();
    let key = fresh_key();
    let wrapped = wrap(&k_of_n(K, &members).build().unwrap(), &key).await;
    for how in ALL_WAYS {
        for subset in subsets().filter(|subset| size(*subset) >= usize::from(K)) {
            let kms = k_of_n(K, &members).build().unwrap();
            spoil(&members, subset, how);
            let begun = Instant::now();
            assert_same(unwrap(&kms, &wrapped).await, &key);
            assert_eq!(begun.elapsed(), Duration::ZERO, "{how:?} {subset:?}: nobody is waited for");
            members.iter().for_each(Member::heal);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_subset_of_fewer_than_k_opens_whatever_ails_the_others() {
    let members = members::<N>();
    let key = fresh_key();
    let wrapped = wrap(&k_of_n(K, &members).build().unwrap(), &key).await;
    for how in ALL_WAYS {
        for subset in subsets().filter(|subset| size(*subset) < usize::from(K)) {
            let kms = k_of_n(K, &members).build().unwrap();
            spoil(&members, subset, how);
            let begun = Instant::now();
            let error = unwrap(&kms, &wrapped).await.unwrap_err();
            let (class, took) = match how {
                Spoilt::Fails(class) => (class, Duration::ZERO),
                Spoilt::Hangs => (FailureClass::Transient, DEADLINE),
                Spoilt::Lies => (FailureClass::Damaged, Duration::ZERO),
            };
            assert_eq!(error.class(), class, "{how:?} {subset:?}");
            assert_eq!(begun.elapsed(), took, "{how:?} {subset:?}");
            let failed = if how == Spoilt::Lies { 0 } else { N - size(subset) };
            assert_eq!(causes(&error).len(), failed, "{how:?} {subset:?}: every cause is kept");
            members.iter().for_each(Member::heal);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shares_that_were_taken_away_do_not_open() {
    let members = members::<N>();
    let kms = k_of_n(K, &members).build().unwrap();
    let key = fresh_key();
    let whole = Envelope::read(&wrap(&kms, &key).await);
    for subset in subsets() {
        let mut cut = whole.clone();
        let mut places = subset.iter();
        cut.copies.retain(|_| *places.next().unwrap());
        let answer = unwrap(&kms, &cut.bytes()).await;
        if size(subset) >= usize::from(K) {
            assert_same(answer, &key);
        } else {
            assert_eq!(answer.unwrap_err().class(), FailureClass::Damaged, "{subset:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn latency_is_that_of_the_kth_fastest_in_every_order() {
    let members = members::<N>();
    let key = fresh_key();
    for k in 2..=5 {
        let kms = k_of_n(k, &members).build().unwrap();
        let wrapped = wrap(&kms, &key).await;
        for order in permutations() {
            for (member, place) in members.iter().zip(order) {
                member.faults().always(Fault::Delay(Duration::from_millis(10 * place)));
            }
            let begun = Instant::now();
            assert_same(unwrap(&kms, &wrapped).await, &key);
            assert_eq!(begun.elapsed(), Duration::from_millis(10 * u64::from(k)), "{k} of {order:?}");
            members.iter().for_each(Member::heal);
        }
    }
}

/// The 120 orders of 1 to 5.
fn permutations() -> Vec<[u64; N]> {
    let all = (0..N.pow(5)).map(|number| {
        std::array::from_fn(|place| (number / N.pow(u32::try_from(place).unwrap()) % N) as u64 + 1)
    });
    let all: Vec<[u64; N]> = all.filter(|order| (1..=5).all(|place| order.contains(&place))).collect();
    assert_eq!(all.len(), 120);
    all
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_not_needed_any_more_are_dropped() {
    let members = members::<N>();
    let kms = k_of_n(K, &members).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    members[0].faults().always(Fault::Hang);
    members[4].faults().always(Fault::Hang);
    assert_same(unwrap(&kms, &wrapped).await, &key);
    assert_eq!([members[0].faults().hanging(), members[4].faults().hanging()], [0, 0]);
}

/// A member that came back is found out though the others are quicker, so that its call is never needed.
#[tokio::test(start_paused = true)]
async fn a_slow_member_that_was_down_is_asked_again_before_it_is_needed() {
    let members = members::<3>();
    let clock = FixedClock::new(1_700_000_000);
    let kms = k_of_n(2, &members).clock(clock.clone()).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    members[2].faults().always(Fault::Fail(FailureClass::Transient));
    members[1].faults().always(Fault::Delay(Duration::from_millis(1)));
    for _ in 0..5 {
        assert_same(unwrap(&kms, &wrapped).await, &key);
    }
    let asked = members[2].faults().calls_of(Operation::UnwrapKey);
    assert_eq!(asked, 3, "it is left alone");

    members[2].faults().heal();
    members[2].faults().always(Fault::Delay(Duration::from_millis(50)));
    clock.advance(Duration::from_secs(1));
    for _ in 0..5 {
        assert_same(unwrap(&kms, &wrapped).await, &key);
    }
    assert_eq!(members[2].faults().calls_of(Operation::UnwrapKey), asked + 1, "it is probed once");
    tokio::time::sleep(Duration::from_millis(50)).await;
    // From now on its calls are dropped again when they are not needed.
    members[2].faults().heal();
    members[2].faults().always(Fault::Hang);
    assert_same(unwrap(&kms, &wrapped).await, &key);
    assert_eq!(members[2].faults().hanging(), 0);
    members[2].faults().heal();
    members[0].faults().always(Fault::Fail(FailureClass::Transient));
    assert_same(unwrap(&kms, &wrapped).await, &key);
}

#[tokio::test(start_paused = true)]
async fn a_wrap_asks_members_that_are_left_alone_too() {
    let members = members::<3>();
    let kms = k_of_n(2, &members).build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    members[2].faults().always(Fault::Fail(FailureClass::Transient));
    members[1].faults().always(Fault::Delay(Duration::from_millis(1)));
    for _ in 0..5 {
        assert_same(unwrap(&kms, &wrapped).await, &key);
    }
    members[2].faults().heal();
    let wrapped = kms.wrap_key(&key, &meta(), &call()).await.unwrap();
    assert_eq!(wrapped.missing_copies(), [""; 0]);
    // It answered, so it is up.
    members[0].faults().always(Fault::Fail(FailureClass::Transient));
    assert_same(unwrap(&kms, wrapped.bytes()).await, &key);
}

#[tokio::test(start_paused = true)]
async fn wrong_shares_at_any_place_and_time_are_passed_over() {
    let members = members::<N>();
    let key = fresh_key();
    let wrapped = wrap(&k_of_n(K, &members).build().unwrap(), &key).await;
    for wrong in subsets().filter(|wrong| size(*wrong) <= N - usize::from(K)) {
        for order in permutations().into_iter().step_by(7) {
            let kms = k_of_n(K, &members).build().unwrap();
            for ((member, is_wrong), place) in members.iter().zip(wrong).zip(order) {
                member.faults().always(Fault::Delay(Duration::from_millis(10 * place)));
                if is_wrong {
                    member.lie();
                }
            }
            // It takes until the third right share is there.
            let mut right: Vec<u64> = order
                .into_iter()
                .zip(wrong)
                .filter(|(_, is_wrong)| !is_wrong)
                .map(|(place, _)| place)
                .collect();
            right.sort_unstable();
            let begun = Instant::now();
            assert_same(unwrap(&kms, &wrapped).await, &key);
            assert_eq!(begun.elapsed(), Duration::from_millis(10 * right[2]), "{wrong:?} {order:?}");
            members.iter().for_each(Member::heal);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_ten_members_half_may_lie() {
    let members: Vec<Member> = (0..10).map(|_| Member::new()).collect();
    let kms = members
        .iter()
        .enumerate()
        .fold(KofNKms::builder(5).asherah_compatible(false), |builder, (place, member)| {
            builder.member(format!("m{place}"), member.kms.clone())
        });
    let kms = kms.build().unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    for liar in 0..5 {
        members[liar * 2].lie();
        assert_same(unwrap(&kms, &wrapped).await, &key);
    }
    members[1].lie();
    // All 252 subsets were tried.
    assert_eq!(unwrap(&kms, &wrapped).await.unwrap_err().class(), FailureClass::Damaged);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_share_and_too_few_others_is_damage_unless_more_may_come() {
    let members = members::<N>();
    let kms = k_of_n(K, &members).build().unwrap();
    let wrapped = wrap(&kms, &fresh_key()).await;
    let ail = |faults: &[(usize, FailureClass)]| {
        members.iter().for_each(Member::heal);
        members[0].lie();
        for (place, class) in faults {
            members[*place].faults().always(Fault::Fail(*class));
        }
    };
    ail(&[(1, FailureClass::Permanent), (2, FailureClass::Permanent)]);
    assert_eq!(unwrap(&kms, &wrapped).await.unwrap_err().class(), FailureClass::Damaged);
    ail(&[(1, FailureClass::Permanent), (2, FailureClass::Transient)]);
    assert_eq!(unwrap(&kms, &wrapped).await.unwrap_err().class(), FailureClass::Transient);
    // Whatever the one that is down says later, three it will not be.
    members.iter().for_each(Member::heal);
    for member in &members[..3] {
        member.faults().always(Fault::Fail(FailureClass::Permanent));
    }
    members[3].faults().always(Fault::Fail(FailureClass::Transient));
    let error = unwrap(&kms, &wrapped).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains("1 shares came, no 3 of which open the envelope"), "{}", said(&error));
    assert_eq!(causes(&error).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn exchanged_shares_and_those_of_other_envelopes_do_not_fit() {
    let members = members::<3>();
    let kms = k_of_n(2, &members).build().unwrap();
    let (key, other_key) = (fresh_key(), fresh_key());
    let (ours, others) = (wrap(&kms, &key).await, wrap(&kms, &other_key).await);
    let (ours, others) = (Envelope::read(&ours), Envelope::read(&others));

    // One share of another envelope: two are left.
    let mut forged = ours.clone();
    forged.copies[1] = others.copies[1].clone();
    assert_same(unwrap(&kms, &forged.bytes()).await, &key);
    // Two: one of each is left, and they never mix.
    forged.copies[2] = others.copies[2].clone();
    assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);
    // With the seal they are the other envelope.
    forged.sealed.clone_from(&others.sealed);
    assert_same(unwrap(&kms, &forged.bytes()).await, &other_key);

    // Shares under each other's names are refused by the members; at each other's places they do not fit.
    let names: fn(&mut Copy, &mut Copy) = |a, b| std::mem::swap(&mut a.member, &mut b.member);
    let places: fn(&mut Copy, &mut Copy) = |a, b| std::mem::swap(&mut a.x, &mut b.x);
    for exchange in [names, places] {
        let mut forged = ours.clone();
        forged.copies.pop();
        let [a, b] = forged.copies.as_mut_slice() else { panic!("two copies are left") };
        exchange(a, b);
        assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);
    }
    // One share twice is one share.
    let mut forged = ours.clone();
    forged.copies = vec![ours.copies[0].clone(), Copy { x: 2, ..ours.copies[0].clone() }];
    assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);
    let mut forged = ours.clone();
    forged.copies[1].x = forged.copies[0].x;
    assert_eq!(unwrap(&kms, &forged.bytes()).await.unwrap_err().class(), FailureClass::Damaged);
    assert_same(unwrap(&kms, &ours.bytes()).await, &key);
}

/// Whoever has one member, or two of a quorum of three, puts no key of his own into the store.
#[tokio::test(start_paused = true)]
async fn fewer_members_than_k_cannot_make_an_envelope() {
    let members = members::<N>();
    let kms = k_of_n(K, &members).build().unwrap();
    let own = fresh_key();
    let bare = members[0].wrap(&own).await;
    let error = unwrap(&kms, &bare).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains("legacy_member"), "{}", said(&error));

    // A genuine quorum of two of his members, and one that any of them opens.
    let two = wrap(&k_of_n(2, &members[..2]).build().unwrap(), &own).await;
    let one = wrap(&any_of(&members[..2]).asherah_compatible(false).build().unwrap(), &own).await;
    for forged in [&two, &one] {
        let error = unwrap(&kms, forged).await.unwrap_err();
        assert_eq!(error.class(), FailureClass::Permanent);
        assert!(said(&error).contains("3 are required"), "{}", said(&error));
    }
    assert!(members[2..].iter().all(|member| member.faults().calls() == 0));
    // Told that three are needed, two are too few, also under further names.
    let mut forged = Envelope::read(&two);
    forged.k = 3;
    assert!(unwrap(&kms, &forged.bytes()).await.is_err());
    forged.copies.push(Copy { member: "c".to_owned(), x: 3, ..forged.copies[0].clone() });
    assert!(unwrap(&kms, &forged.bytes()).await.is_err());
    forged.copies[2].member = "stranger".to_owned();
    assert!(unwrap(&kms, &forged.bytes()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn envelopes_from_before_a_change_of_k_are_read_as_configured() {
    let members = members::<N>();
    let key = fresh_key();
    let of_two = wrap(&k_of_n(2, &members).build().unwrap(), &key).await;
    let of_four = wrap(&k_of_n(4, &members).build().unwrap(), &key).await;
    let kms = k_of_n(3, &members).build().unwrap();
    assert_eq!(unwrap(&kms, &of_two).await.unwrap_err().class(), FailureClass::Permanent);
    assert_same(unwrap(&kms, &of_four).await, &key);
    let kms = k_of_n(3, &members).previous_k(2).build().unwrap();
    assert_same(unwrap(&kms, &of_two).await, &key);
    assert_eq!(Envelope::read(&wrap(&kms, &key).await).k, 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_member_wrapped_alone_is_read_when_it_is_a_legacy_member() {
    let members = members::<3>();
    let key = fresh_key();
    let [by_first, by_second] = [members[0].wrap(&key).await, members[1].wrap(&key).await];
    let kms = k_of_n(2, &members).legacy_member("b").build().unwrap();
    assert_same(unwrap(&kms, &by_second).await, &key);
    assert_eq!(unwrap(&kms, &by_first).await.unwrap_err().class(), FailureClass::Damaged);
    assert_eq!([members[0].faults().calls(), members[2].faults().calls()], [0, 0]);
    let health = kms.inspect(&by_second).unwrap();
    assert_eq!(health, WrapHealth::new(vec!["b".into()], vec!["a".into(), "c".into()]));
}

#[tokio::test(start_paused = true)]
async fn members_that_fail_a_wrap_are_missing_and_too_few_shares_are_an_error() {
    let members = members::<N>();
    let key = fresh_key();
    for (shares_min, down) in [3, 4, 5].into_iter().flat_map(|min| subsets().map(move |down| (min, down))) {
        let kms = k_of_n(K, &members).min_shares(shares_min).build().unwrap();
        for (member, _) in members.iter().zip(down).filter(|(_, is_down)| *is_down) {
            member.faults().always_for(Operation::WrapKey, Fault::Fail(FailureClass::Transient));
        }
        let names = |wanted| NAMES.into_iter().zip(down).filter(move |(_, down)| *down == wanted);
        let missing: Vec<&str> = names(true).map(|(name, _)| name).collect();
        match kms.wrap_key(&key, &meta(), &call()).await {
            Ok(wrapped) => {
                assert!(N - missing.len() >= shares_min);
                assert_eq!(wrapped.missing_copies(), missing);
                let health = kms.inspect(wrapped.bytes()).unwrap();
                assert_eq!(health.missing, missing);
                assert_eq!(health.present, names(false).map(|(name, _)| name).collect::<Vec<_>>());
                assert_same(unwrap(&kms, wrapped.bytes()).await, &key);
            }
            Err(error) => {
                assert!(N - missing.len() < shares_min, "{missing:?}");
                assert!(error.is_transient());
                assert_eq!(causes(&error).len(), missing.len());
            }
        }
        members.iter().for_each(Member::heal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrap_waits_for_slow_members_until_their_deadline() {
    let members = members::<N>();
    let kms = k_of_n(K, &members).build().unwrap();
    members[1].faults().always(Fault::Delay(DEADLINE / 2));
    members[3].faults().always(Fault::Hang);
    let begun = Instant::now();
    let wrapped = kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap();
    assert_eq!(begun.elapsed(), DEADLINE);
    assert_eq!(wrapped.missing_copies(), ["d"]);
    assert_eq!(Envelope::read(wrapped.bytes()).members(), ["a", "b", "c", "e"]);
    // A share's place is its member's, whoever is missing.
    assert_eq!(
        Envelope::read(wrapped.bytes()).copies.iter().map(|copy| copy.x).collect::<Vec<_>>(),
        [1, 2, 3, 5]
    );
}

#[tokio::test(start_paused = true)]
async fn randomness_that_fails_at_any_draw_is_a_transient_error_and_nobody_is_asked() {
    const DRAWS: u64 = 3;
    let members = members::<N>();
    for n in 1..=DRAWS {
        let kms = k_of_n(K, &members).random(FailingRandom::new(SystemRandom::new(), n)).build().unwrap();
        let error = kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err();
        assert!(error.is_transient(), "draw {n}");
        assert!(members.iter().all(|member| member.faults().calls() == 0), "draw {n}");
        // The next wrap is none the worse.
        let key = fresh_key();
        assert_same(unwrap(&kms, &wrap(&kms, &key).await).await, &key);
        members.iter().for_each(Member::heal);
    }
    let kms = k_of_n(K, &members).random(FailingRandom::new(SystemRandom::new(), DRAWS + 1)).build().unwrap();
    assert!(kms.wrap_key(&fresh_key(), &meta(), &call()).await.is_ok(), "there are {DRAWS} draws");
}

/// What a member wraps is neither the system key nor the key that seals it.
#[tokio::test(start_paused = true)]
async fn no_member_sees_more_than_its_share() {
    let members = members::<N>();
    let kms = k_of_n(2, &members).build().unwrap();
    let key = fresh_key();
    let envelope = Envelope::read(&wrap(&kms, &key).await);
    let mut shares: Vec<SecretKey> = Vec::new();
    for (member, copy) in members.iter().zip(&envelope.copies) {
        let share = member.kms.unwrap_key(&copy.bytes(), &meta(), &call()).await.unwrap();
        assert!(share.expose_secret() != key.expose_secret());
        assert!(shares.iter().all(|other| other.expose_secret() != share.expose_secret()));
        let as_key = claviger::StaticKms::danger_any_key(&share).unwrap();
        let sealed = Copy { member: String::new(), x: 0, copy: envelope.sealed.clone() }.bytes();
        assert!(as_key.unwrap_key(&sealed, &meta(), &call()).await.is_err());
        shares.push(share);
    }
}

#[tokio::test(start_paused = true)]
async fn it_writes_only_when_told_that_no_asherah_will_read_it() {
    let members = members::<3>();
    let key = fresh_key();
    let wrapped = wrap(&k_of_n(2, &members).build().unwrap(), &key).await;
    let kms = k_of_n(2, &members).asherah_compatible(true).build().unwrap();
    let error = kms.wrap_key(&key, &meta(), &call()).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(said(&error).contains("asherah_compatible(false)"), "{}", said(&error));
    assert_same(unwrap(&kms, &wrapped).await, &key);
}

#[test]
fn what_cannot_work_is_refused_when_built() {
    let members: Vec<Member> = (0..5).map(|_| Member::new()).collect();
    let refused = |builder: KofNKmsBuilder| match builder.build() {
        Err(error) if error.kind() == Some(FailureKind::Settings) => {
            std::error::Error::source(&error).unwrap().to_string()
        }
        other => panic!("{other:?}"),
    };
    assert!(refused(KofNKms::builder(2)).contains("0 members"));
    assert!(refused(k_of_n(1, &members)).contains("1 of 5"));
    assert!(refused(k_of_n(0, &members)).contains("0 of 5"));
    assert!(refused(k_of_n(6, &members)).contains("6 of 5"));
    assert!(refused(k_of_n(3, &members).min_shares(2)).contains("min_shares is 2"));
    assert!(refused(k_of_n(3, &members).min_shares(6)).contains("min_shares is 6"));
    assert!(refused(k_of_n(3, &members).previous_k(1)).contains("previous_k is 1"));
    assert!(refused(k_of_n(3, &members).previous_k(3)).contains("previous_k is 3"));
    assert!(refused(k_of_n(3, &members).legacy_member("f")).contains("\"f\""));
    assert!(refused(k_of_n(3, &members).member("a", members[0].kms.clone())).contains("two members"));
    for name in ["", "a/b", "a b", "\u{e4}", "a\"", &"a".repeat(65)] {
        assert!(refused(k_of_n(3, &members).member(name, members[0].kms.clone())).contains("is called"));
    }
    let eleven = (0..6).fold(k_of_n(3, &members), |builder, place| {
        builder.member(format!("m{place}"), members[0].kms.clone())
    });
    assert!(refused(eleven).contains("11 members"));
}

#[tokio::test(start_paused = true)]
async fn check_tries_each_member_within_its_deadline() {
    let members = members::<3>();
    let kms = k_of_n(2, &members).build().unwrap();
    members[0].faults().always(Fault::Hang);
    members[1].faults().always_for(Operation::UnwrapKey, Fault::Fail(FailureClass::Permanent));
    // More often than a breaker has patience: a check says what is wrong now.
    for _ in 0..5 {
        let begun = Instant::now();
        let checks = kms.check(&call()).await;
        assert_eq!(begun.elapsed(), DEADLINE);
        assert_eq!(checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(checks[0].wrap.as_ref().is_err_and(|error| said(error).contains("no answer")));
        assert!(checks[1].wrap.is_ok() && checks[1].unwrap.as_ref().is_some_and(Result::is_err));
        assert!(checks[2].is_good());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lie_is_an_error_of_check_too() {
    let members = members::<2>();
    members[1].lie();
    let checks = k_of_n(2, &members).build().unwrap().check(&call()).await;
    let unwrapped: Vec<bool> = checks.iter().map(|check| matches!(check.unwrap, Some(Ok(_)))).collect();
    assert_eq!(unwrapped, [true, false]);
}
