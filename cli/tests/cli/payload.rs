//! Whole payloads.

use crate::kit::Kit;

#[test]
fn payloads_come_back_whatever_is_in_them() {
    let kit = Kit::new();
    let all_bytes: Vec<u8> = (0..=255).collect();
    for payload in [b"".as_slice(), b"4111 1111 1111 1111", b"\n", &all_bytes.repeat(5000)] {
        kit.write("payload", payload);
        kit.ok(&["encrypt", "payload", "--partition", "customer-17", "-o", "record"]);
        kit.ok(&["decrypt", "record", "--partition", "customer-17", "-o", "back"]);
        assert_eq!(kit.read("back"), payload);
        assert_eq!(kit.read("record").last(), Some(&b'\n'));
    }
}

#[test]
fn standard_input_and_output_are_the_default_and_the_dash() {
    let kit = Kit::new();
    let sealed = kit.pipe(&["encrypt", "-p", "a"], b"hello");
    assert_eq!(sealed.code, Some(0));
    assert!(sealed.text().starts_with("{\"Key\":{\"Created\":"));
    let opened = kit.pipe(&["decrypt", "-", "-o", "-", "-p", "a"], &sealed.stdout);
    assert_eq!((opened.code, opened.stdout.as_slice()), (Some(0), b"hello".as_slice()));
}

#[test]
fn white_space_around_a_record_is_ignored() {
    let kit = Kit::new();
    let sealed = kit.pipe(&["encrypt", "-p", "a"], b"hello").stdout;
    let padded = [b"\r\n \t", sealed.as_slice(), b" \r\n\r\n"].concat();
    assert_eq!(kit.pipe(&["decrypt", "-p", "a"], &padded).stdout, b"hello");
}

#[test]
fn a_record_is_read_behind_a_byte_order_mark_and_utf_16_is_named() {
    let kit = Kit::new();
    let sealed = kit.pipe(&["encrypt", "-p", "a"], b"hello");
    let marked = format!("\u{feff}{}", sealed.text());
    assert_eq!(kit.pipe(&["decrypt", "-p", "a"], marked.as_bytes()).text(), "hello");
    for text in [sealed.text(), &marked] {
        let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let run = kit.pipe(&["decrypt", "-p", "a"], &utf_16);
        run.assert_failed(65);
        assert!(run.stderr.contains("standard input is UTF-16; convert it to UTF-8"), "{}", run.stderr);
    }
    // As a payload it is as good as any.
    let payload: Vec<u8> = "text".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let sealed = kit.pipe(&["encrypt", "-p", "a"], &payload).stdout;
    assert_eq!(kit.pipe(&["decrypt", "-p", "a"], &sealed).stdout, payload);
}

#[test]
fn a_payload_that_is_a_record_already_is_not_sealed_again_unasked() {
    let kit = Kit::new();
    let sealed = kit.pipe(&["encrypt", "-p", "a"], b"hello").stdout;
    let marked = [b"\xef\xbb\xbf\n", sealed.as_slice()].concat();
    for record in [sealed.as_slice(), &marked, b"clv2.AAAA", b"\xc7\x02\x00"] {
        let run = kit.pipe(&["encrypt", "-p", "b"], record);
        run.assert_failed(65);
        assert!(
            run.stderr.contains("standard input is a record already; decrypt it first"),
            "{}",
            run.stderr
        );
        assert!(run.stdout.is_empty());
        let twice = kit.pipe(&["encrypt", "-p", "b", "--allow-sealed"], record);
        assert_eq!(kit.pipe(&["decrypt", "-p", "b"], &twice.stdout).stdout, record);
    }
}

#[test]
fn another_partition_service_or_product_cannot_decrypt() {
    let kit = Kit::new();
    kit.write("record", kit.pipe(&["encrypt", "-p", "alice"], b"hello").stdout);
    for options in [
        ["-p", "bob", "--service", "claviger"],
        ["-p", "alice", "--service", "other"],
        ["-p", "alice", "--product", "other"],
    ] {
        let run = kit.run(&[["decrypt", "record", "-o", "back"], options].concat());
        run.assert_failed(66);
        assert!(
            run.stderr.contains("another partition, service or product; check the partition, --service"),
            "{}",
            run.stderr
        );
        assert_eq!(kit.files(), ["record"]);
    }
}

#[test]
fn a_payload_over_the_limit_is_refused() {
    let kit = Kit::new();
    std::fs::File::create(kit.path("large")).unwrap().set_len((64 << 20) + 1).unwrap();
    let run = kit.fails(65, &["encrypt", "large", "-p", "a", "-o", "record"]);
    assert!(run.stderr.contains("over the limit of 67108864 bytes"), "{}", run.stderr);
    assert_eq!(kit.files(), ["large"]);
}

#[test]
fn empty_and_unusable_partitions_are_refused() {
    let kit = Kit::new();
    let long = "x".repeat(300);
    for partition in ["", " a", &long] {
        let run = kit.pipe(&["encrypt", "-p", partition], b"hello");
        run.assert_failed(65);
        assert!(run.stderr.contains("the partition "), "{}", run.stderr);
        assert!(run.stdout.is_empty());
    }
}
