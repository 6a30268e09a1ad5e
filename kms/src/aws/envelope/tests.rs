use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn written(envelope: &Envelope<'_>) -> String {
    String::from_utf8(envelope.write().unwrap()).unwrap()
}

#[test]
fn fields_stand_in_asherahs_order_with_no_white_space() {
    let copies = vec![
        RegionCopy::new("us-east-1", "arn:aws:kms:us-east-1:111122223333:key/a", b"one"),
        RegionCopy::new("eu-west-1", "arn:aws:kms:eu-west-1:111122223333:key/b", &[0xfb, 0xff]),
    ];
    assert_eq!(
        written(&Envelope::new(&[0; 4], copies)),
        concat!(
            r#"{"encryptedKey":"AAAAAA==","kmsKeks":["#,
            r#"{"region":"us-east-1","arn":"arn:aws:kms:us-east-1:111122223333:key/a","encryptedKek":"b25l"},"#,
            r#"{"region":"eu-west-1","arn":"arn:aws:kms:eu-west-1:111122223333:key/b","encryptedKek":"+/8="}]}"#
        )
    );
}

#[test]
fn fields_come_in_any_order_with_others_between_and_any_escapes() {
    let stored = r#" { "version": [1, {"a": null}], "kmsKeks" : [ {"encryptedKek":"\u002b\/8=","made":true,
        "arn":"a\"rn","region":"us-\u0065ast-1"} ], "encryptedKey":"AA\u003D=" } "#;
    let envelope = Envelope::read(stored.as_bytes()).unwrap();
    assert_eq!(envelope.encrypted_key().unwrap(), [0]);
    let [copy] = envelope.copies() else { panic!("there is one copy") };
    assert_eq!((&*copy.region, &*copy.arn), ("us-east-1", "a\"rn"));
    assert_eq!(copy.encrypted_kek().unwrap(), [0xfb, 0xff]);
}

/// The text with something in the place of what a good envelope has there.
fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut envelope = json!({
        "encryptedKey": "AAAA",
        "kmsKeks": [{ "region": "r", "arn": "a", "encryptedKek": "AAAA" }],
    });
    change(&mut envelope);
    envelope.to_string().into_bytes()
}

#[test]
fn what_is_no_envelope_is_refused() {
    assert!(Envelope::read(&with(|_| ())).is_ok());
    for refused in [
        with(|envelope| *envelope = json!([])),
        // serde takes an array for an object.
        with(|envelope| *envelope = json!(["AAAA", [{ "region": "r", "arn": "a", "encryptedKek": "AAAA" }]])),
        with(|envelope| envelope["kmsKeks"][0] = json!(["r", "a", "AAAA"])),
        with(|envelope| envelope["kmsKeks"] = json!([])),
        with(|envelope| envelope["kmsKeks"] = json!(null)),
        with(|envelope| envelope["kmsKeks"] = json!({})),
        with(|envelope| envelope["encryptedKey"] = json!(5)),
        with(|envelope| envelope["encryptedKey"] = json!([0, 0, 0])),
        with(|envelope| envelope["kmsKeks"][0]["region"] = json!(null)),
        with(|envelope| drop(envelope.as_object_mut().unwrap().remove("encryptedKey"))),
        with(|envelope| drop(envelope["kmsKeks"][0].as_object_mut().unwrap().remove("arn"))),
        [with(|_| ()), b"}".to_vec()].concat(),
        [with(|_| ()), vec![0]].concat(),
        [with(|_| ()), with(|_| ())].concat(),
        br#"{"encryptedKey":"","encryptedKey":"","kmsKeks":[]}"#.to_vec(),
        b"\xff".to_vec(),
    ] {
        assert!(Envelope::read(&refused).is_err(), "{}", String::from_utf8_lossy(&refused));
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_looked_at() {
    let mut stored = with(|_| ());
    stored.resize(ENVELOPE_BYTES_MAX, b' ');
    assert!(Envelope::read(&stored).is_ok());
    stored.push(b' ');
    let refused = Envelope::read(&stored);
    assert!(
        matches!(refused, Err(AwsKmsFault::EnvelopeTooLong { bytes }) if bytes == ENVELOPE_BYTES_MAX + 1)
    );
}

#[test]
fn sixteen_regions_with_the_longest_ciphertexts_of_their_kind_fit() {
    let arn = format!("arn:aws-us-gov:kms:us-gov-northwest-1:111122223333:alias/{}", "a".repeat(250));
    let copies = (0..16).map(|_| RegionCopy::new("us-gov-northwest-1", &arn, &[7; 1024])).collect();
    assert!(written(&Envelope::new(&[0; 60], copies)).len() < ENVELOPE_BYTES_MAX);
    // What could not be read again is not written.
    let copies = (0..16).map(|_| RegionCopy::new("us-gov-northwest-1", &arn, &[7; 6144])).collect();
    assert!(matches!(Envelope::new(&[0; 60], copies).write(), Err(AwsKmsFault::EnvelopeTooLong { .. })));
}

#[test]
fn one_copy_that_is_broken_does_not_break_the_others() {
    let too_long = STANDARD.encode_to_string(vec![0; KEK_BYTES.end() + 1]);
    let longest = STANDARD.encode_to_string(vec![0; *KEK_BYTES.end()]);
    for (kek, is_good) in
        [("*", false), ("", false), ("AAA", false), (&*too_long, false), (&*longest, true), ("AA==", true)]
    {
        let stored = with(|envelope| {
            envelope["kmsKeks"] = json!([
                { "region": "r", "arn": "", "encryptedKek": kek },
                { "region": "s", "arn": "", "encryptedKek": "AAAA" },
            ]);
        });
        let envelope = Envelope::read(&stored).unwrap();
        assert_eq!(envelope.copies()[0].encrypted_kek().is_ok(), is_good);
        assert!(envelope.copies()[1].encrypted_kek().is_ok());
    }
}

/// The same, read by a library that knows nothing of envelopes.
fn as_any_json(encrypted_key: &[u8], copies: &[(String, String, Vec<u8>)]) -> Value {
    let copies = copies.iter().map(|(region, arn, kek)| {
        json!({ "region": region, "arn": arn, "encryptedKek": STANDARD.encode_to_string(kek) })
    });
    json!({
        "encryptedKey": STANDARD.encode_to_string(encrypted_key),
        "kmsKeks": copies.collect::<Vec<_>>(),
    })
}

proptest! {
    #[test]
    fn any_envelope_is_the_same_json_to_all_and_comes_back(
        encrypted_key in vec(any::<u8>(), 0..100),
        copies in vec((any::<String>(), any::<String>(), vec(any::<u8>(), 1..200)), 1..5),
    ) {
        let ours: Vec<_> = copies.iter().map(|(region, arn, kek)| RegionCopy::new(region, arn, kek)).collect();
        let envelope = Envelope::new(&encrypted_key, ours);
        let stored = envelope.write().unwrap();
        let seen: Value = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(&seen, &as_any_json(&encrypted_key, &copies));
        let read = Envelope::read(&stored).unwrap();
        prop_assert_eq!(&read, &envelope);
        prop_assert_eq!(read.encrypted_key().unwrap(), encrypted_key);
        for (copy, (_, _, kek)) in read.copies().iter().zip(&copies) {
            prop_assert_eq!(&copy.encrypted_kek().unwrap(), kek);
        }
        // Another writer's order of fields, and white space.
        let pretty = serde_json::to_vec_pretty(&seen).unwrap();
        prop_assert_eq!(Envelope::read(&pretty).unwrap(), read);
    }

    #[test]
    fn garbage_is_refused_or_read_and_never_panics(garbage in vec(any::<u8>(), 0..300)) {
        if let Ok(envelope) = Envelope::read(&garbage) {
            drop(envelope.encrypted_key());
        }
    }

    #[test]
    fn what_looks_like_an_envelope_never_panics(text in r#"[{}\[\]":,\\a-z0-9 ]{0,200}"#, at in 0_usize..60) {
        let mut stored = with(|_| ());
        let at = at.min(stored.len());
        stored.splice(at..at, text.bytes());
        if let Ok(envelope) = Envelope::read(&stored) {
            drop(envelope.encrypted_key());
            for region in envelope.regions_shown() {
                prop_assert!(region.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
            for copy in envelope.copies() {
                drop(copy.encrypted_kek());
            }
        }
    }

    #[test]
    fn regions_are_shown_as_plain_text(region: String) {
        let copies = std::iter::repeat_with(|| RegionCopy::new(&region, "", b"kek")).take(40).collect();
        let shown = Envelope::new(b"key", copies).regions_shown();
        prop_assert_eq!(shown.len(), REGIONS_SHOWN);
        for name in shown {
            prop_assert!(name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && name.len() <= 400);
        }
    }
}
