use proptest::prelude::*;

use super::*;

fn copy(member: &str, x: u8, bytes: &[u8]) -> MemberCopy {
    MemberCopy { member: member.to_owned(), x, copy: bytes.to_vec() }
}

fn quorum() -> Envelope {
    Envelope {
        kind: Kind::KOfN,
        k: 2,
        sealed: vec![0xfb, 0xff],
        copies: vec![copy("aws", 1, b"one"), copy("hsm", 2, b""), copy("vault", 3, b"three")],
    }
}

const QUORUM: &str = concat!(
    r#"CLV1{"kind":"k-of-n","k":2,"sealed":"+/8=","copies":["#,
    r#"{"member":"aws","x":1,"copy":"b25l"},"#,
    r#"{"member":"hsm","x":2,"copy":""},"#,
    r#"{"member":"vault","x":3,"copy":"dGhyZWU="}]}"#,
);

fn parse(text: &str) -> Result<Option<Envelope>, Malformed> {
    Envelope::parse(text.as_bytes())
}

#[test]
fn clv1_is_written_as_documented_and_read_back() {
    assert_eq!(String::from_utf8(quorum().to_bytes().unwrap()).unwrap(), QUORUM);
    assert_eq!(parse(QUORUM).unwrap(), Some(quorum()));
    let any = Envelope { kind: Kind::AnyOf, k: 1, ..quorum() };
    let text = String::from_utf8(any.to_bytes().unwrap()).unwrap();
    assert!(text.starts_with(r#"CLV1{"kind":"any-of","k":1,"#), "{text}");
    assert_eq!(parse(&text).unwrap(), Some(any));
}

#[test]
fn clv1_is_read_in_the_one_form_it_is_written_in() {
    for (what, written) in [
        ("white space", r#"{ "kind""#),
        ("another order", r#"{"k":2,"kind":"k-of-n","sealed""#),
        ("an unknown field", r#"{"v":1,"kind":"k-of-n""#),
        ("a field twice", r#"{"kind":"k-of-n","kind":"k-of-n""#),
        ("an unknown kind", r#"{"kind":"all-of""#),
        ("an escape", r#"{"kind":"k\u002dof-n""#),
    ] {
        let end = if written.contains("sealed") { r#""sealed""# } else { r#""kind":"k-of-n""# };
        let (_, rest) = QUORUM.split_once(end).unwrap();
        let rest = if written.ends_with(r#""kind""#) { &format!(":\"k-of-n\"{rest}") } else { rest };
        let strange = format!("CLV1{written}{rest}");
        assert!(matches!(parse(&strange), Err(Malformed::Form)), "{what}: {strange}");
    }
    for (plain, strange) in [
        (r#""k":2"#, r#""k":2.0"#),
        (r#""k":2"#, r#""k":"2""#),
        (r#""k":2"#, r#""k":258"#),
        ("+/8=", "+/8"),
        ("+/8=", "-_8="),
        ("+/8=", "+/9="),
        ("+/8=", "+/8=\\n"),
        ("b25l", "b25\\u006c"),
        (r#"{"member":"aws","x":1,"copy":"b25l"}"#, r#"["aws",1,"b25l"]"#),
        ("]}", "]}}"),
        ("]}", "]} "),
        ("]}", "]"),
    ] {
        let strange = QUORUM.replacen(plain, strange, 1);
        assert_ne!(strange, QUORUM);
        assert!(matches!(parse(&strange), Err(Malformed::Form)), "{strange}");
    }
}

#[test]
fn clv1_that_contradicts_itself_is_refused() {
    for (plain, strange) in [
        (r#""k":2"#, r#""k":1"#),
        (r#""k":2"#, r#""k":0"#),
        (r#""k":2"#, r#""k":4"#),
        ("k-of-n", "any-of"),
        (r#""x":2"#, r#""x":1"#),
        (r#""x":2"#, r#""x":0"#),
        ("hsm", "aws"),
        ("hsm", ""),
        ("hsm", "a b"),
        ("hsm", "a/b"),
        ("hsm", "h\u{e4}"),
        ("hsm", &"h".repeat(NAME_BYTES_MAX + 1)),
    ] {
        let strange = QUORUM.replacen(plain, strange, 1);
        assert!(matches!(parse(&strange), Err(Malformed::Contradiction(_))), "{strange}");
    }
}

#[test]
fn clv1_has_no_more_copies_than_members_and_is_no_longer_than_a_record_holds() {
    let with = |copies: u8, bytes: usize| Envelope {
        copies: (1..=copies).map(|x| copy(&format!("m{x}"), x, &vec![0; bytes])).collect(),
        ..quorum()
    };
    let most = with(u8::try_from(MEMBERS_MAX).unwrap(), 3_000);
    assert_eq!(Envelope::parse(&most.to_bytes().unwrap()).unwrap(), Some(most));
    let more = with(u8::try_from(MEMBERS_MAX).unwrap() + 1, 3).to_bytes().unwrap();
    assert!(matches!(Envelope::parse(&more), Err(Malformed::Contradiction(_))));
    assert!(matches!(with(10, 4_000).to_bytes(), Err(Malformed::TooLong)));
    let mut long = QUORUM.as_bytes().to_vec();
    long.resize(ENVELOPE_BYTES_MAX + 1, b' ');
    assert!(matches!(Envelope::parse(&long), Err(Malformed::TooLong)));
    // The record around it fits into the smallest column there is.
    let base64 = ENVELOPE_BYTES_MAX.div_ceil(3) * 4;
    assert!(base64 + 200 <= 65_535, "{base64}");
}

#[test]
fn clv1_is_told_from_what_members_wrap_alone() {
    for bare in ["", "CLV", "CLV1", "CLV1[", "CLV2{}", "clv1{}", "vault:v1:AAAA", "{}"] {
        assert!(matches!(parse(bare), Ok(None)), "{bare}");
    }
    assert!(matches!(parse("CLV1{}"), Err(Malformed::Form)));
}

proptest! {
    #[test]
    fn clv1_reads_back_what_it_wrote(
        k in 1_u8..=10,
        sealed in prop::collection::vec(any::<u8>(), 0..100),
        names in prop::collection::btree_set("[!-~&&[^\"\\\\/]]{1,64}", 10),
        copies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 10),
    ) {
        let kind = if k == 1 { Kind::AnyOf } else { Kind::KOfN };
        let copies = (1..).zip(names.iter().zip(&copies)).map(|(x, (name, bytes))| copy(name, x, bytes));
        let envelope = Envelope { kind, k, sealed, copies: copies.collect() };
        let bytes = envelope.to_bytes().unwrap();
        prop_assert_eq!(Envelope::parse(&bytes).unwrap(), Some(envelope));
    }

    #[test]
    fn clv1_changed_anywhere_is_refused_or_read_as_it_now_says(
        place in 0..QUORUM.len(), byte in any::<u8>(), cut in 0..QUORUM.len(),
    ) {
        let mut bytes = QUORUM.as_bytes().to_vec();
        bytes[place] = byte;
        if let Ok(Some(envelope)) = Envelope::parse(&bytes) {
            prop_assert_eq!(envelope.to_bytes().unwrap(), bytes.clone());
        }
        bytes.truncate(cut);
        prop_assert!(!matches!(Envelope::parse(&bytes), Ok(Some(_))));
    }

    #[test]
    fn clv1_parsing_survives_anything(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [START, &tail].concat();
        prop_assert!(!matches!(Envelope::parse(&bytes), Ok(Some(_))));
    }
}
