use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tracing::{Event, Metadata, Subscriber, span};

use super::*;

fn naming(service: &str, product: &str, suffix: Option<&str>, readable: ReadableSuffixes) -> Naming {
    Naming::new(service, product, suffix.map(str::to_owned), readable, false).unwrap()
}

fn without_suffix() -> Naming {
    naming("s", "p", None, ReadableSuffixes::Any)
}

fn in_us_west_2() -> Naming {
    naming("s", "p", Some("us-west-2"), ReadableSuffixes::Any)
}

fn only(suffixes: &[&str]) -> ReadableSuffixes {
    ReadableSuffixes::Only(suffixes.iter().map(|&suffix| suffix.to_owned()).collect())
}

/// Asks as the session of the partition `a` does.
fn owner(naming: &Naming, candidate: &str) -> Owner {
    let own = KeyId::new(naming.intermediate_key_id("a").unwrap());
    naming.owner(&own, &KeyId::new(candidate))
}

#[test]
fn ids_are_asherahs() {
    let naming = naming("my service", "my_product", None, ReadableSuffixes::Any);
    assert_eq!(naming.system_key_id().as_str(), "_SK_my service_my_product");
    let id = naming.intermediate_key_id("päöple \"7\" 1").unwrap();
    assert_eq!(id, "_IK_päöple \"7\" 1_my service_my_product");
    assert_eq!(id.capacity(), id.len());
    let id = in_us_west_2().intermediate_key_id("a").unwrap();
    assert_eq!(id, "_IK_a_s_p_us-west-2");
    assert_eq!(id.capacity(), id.len());
    assert_eq!(in_us_west_2().system_key_id().as_str(), "_SK_s_p_us-west-2");
}

const HOSTILE: [&str; 18] = [
    "",
    "_",
    "_IK_",
    "_IK__s_p",
    "_IK_a_s_p2",
    "_IK_a_s_p_",
    "_IK_a_s_p__us-west-2",
    "_IK_a_s_pus-west-2",
    "_IK_a_s_p\0",
    "_IK_a_s_p ",
    " _IK_a_s_p",
    "_ik_a_s_p",
    "_IK_A_s_p",
    "_SK_s_p",
    "_SK_a_s_p",
    "_IK_b_s_p",
    "_IK_aa_s_p",
    "IK_a_s_p",
];

#[test]
fn without_a_suffix_only_the_own_id_is_read() {
    assert_eq!(owner(&without_suffix(), "_IK_a_s_p"), Owner::Own);
    for foreign in HOSTILE.into_iter().chain(["_IK_a_s_p_us-west-2"]) {
        assert_eq!(owner(&without_suffix(), foreign), Owner::Foreign, "{foreign:?}");
    }
    let listed = naming("s", "p", None, only(&["us-west-2"]));
    assert_eq!(owner(&listed, "_IK_a_s_p_us-west-2"), Owner::Foreign);
}

#[test]
fn with_a_suffix_the_core_id_and_those_of_other_regions_are_read() {
    assert_eq!(owner(&in_us_west_2(), "_IK_a_s_p_us-west-2"), Owner::Own);
    for other in ["_IK_a_s_p", "_IK_a_s_p_eu-central-1", "_IK_a_s_p_us-gov-west-1", "_IK_a_s_p_us-west-20"] {
        assert_eq!(owner(&in_us_west_2(), other), Owner::OtherRegion, "{other}");
    }
    let near_misses = ["_IK_a_s_p2_us-west-2", "_IK_a_s_p_us-west-2_eu-west-1", "_IK_b_s_p_us-west-2"];
    for foreign in HOSTILE.into_iter().chain(near_misses) {
        assert_eq!(owner(&in_us_west_2(), foreign), Owner::Foreign, "{foreign:?}");
    }
}

/// Asherah's check is a string prefix, which lets the product `p` read the product `p2`.
#[test]
fn a_longer_product_with_the_same_beginning_is_foreign() {
    let p2 = naming("s", "p2", Some("us-west-2"), ReadableSuffixes::Any);
    let bare_p2 = naming("s", "p2", None, ReadableSuffixes::Any);
    for foreign in [&p2, &bare_p2].map(|naming| naming.intermediate_key_id("a").unwrap()) {
        assert_eq!(owner(&in_us_west_2(), &foreign), Owner::Foreign, "{foreign}");
        assert_eq!(owner(&without_suffix(), &foreign), Owner::Foreign, "{foreign}");
    }
}

#[test]
fn a_list_of_readable_suffixes_is_the_whole_of_what_is_read() {
    let listed = naming("s", "p", Some("blue"), only(&["green", "us-west-2"]));
    let cases = [
        ("_IK_a_s_p_blue", Owner::Own),
        ("_IK_a_s_p", Owner::OtherRegion),
        ("_IK_a_s_p_green", Owner::OtherRegion),
        ("_IK_a_s_p_us-west-2", Owner::OtherRegion),
        ("_IK_a_s_p_eu-west-1", Owner::Foreign),
        ("_IK_a_s_p_greene", Owner::Foreign),
        ("_IK_a_s_p_gree", Owner::Foreign),
        ("_IK_a_s_p_blue_green", Owner::Foreign),
        ("_IK_a_s_pgreen", Owner::Foreign),
    ];
    for (candidate, expected) in cases {
        assert_eq!(owner(&listed, candidate), expected, "{candidate}");
    }
    let none = naming("s", "p", Some("blue"), only(&[]));
    assert_eq!(owner(&none, "_IK_a_s_p"), Owner::OtherRegion);
    assert_eq!(owner(&none, "_IK_a_s_p_green"), Owner::Foreign);
    let any = naming("s", "p", Some("blue"), ReadableSuffixes::Any);
    assert_eq!(owner(&any, "_IK_a_s_p_green"), Owner::Foreign, "no region's name");
}

#[test]
fn the_shape_of_a_region_is_matched_whole() {
    for region in
        ["us-west-2", "eu-central-1", "ap-southeast-12", "us-gov-east-1", "mxab-a-0", "us-iso-b-west-1"]
    {
        assert!(is_region_name(region), "{region}");
    }
    let others = [
        "",
        "-",
        "--",
        "us",
        "us-2",
        "us-west",
        "us-west-",
        "us-west-two",
        "us-west-123",
        "us--2",
        "us-west--2",
        "-west-2",
        "u-west-2",
        "abcde-west-2",
        "US-west-2",
        "us-West-2",
        "us-west2",
        "us-west-2 ",
        " us-west-2",
        "us-west-2\n",
        "us_west_2",
        "us-west-2-",
        "us-west-2a",
        "us-w3st-2",
        "us-wést-2",
        "us-west-٢",
        "us-west-2\0",
    ];
    for other in others {
        assert!(!is_region_name(other), "{other:?}");
    }
}

#[test]
fn a_parent_is_the_system_key_with_the_suffix_of_the_child() {
    let own = [("_IK_a_s_p_us-west-2", "_SK_s_p_us-west-2")];
    let foreign_regions = [("_IK_a_s_p_eu-west-1", "_SK_s_p_eu-west-1"), ("_IK_a_s_p", "_SK_s_p")];
    for (child, parent) in own.into_iter().chain(foreign_regions) {
        assert!(is_parent_of(&in_us_west_2(), child, parent), "{child} {parent}");
    }
    assert!(is_parent_of(&without_suffix(), "_IK_a_s_p", "_SK_s_p"));
    assert!(is_parent_of(&without_suffix(), "_IK_a_b_s_p", "_SK_s_p"));
    for (child, parent) in own.into_iter().chain([foreign_regions[0]]) {
        assert!(!is_parent_of(&without_suffix(), child, parent), "{child} {parent}");
    }
}

#[test]
fn no_other_id_is_a_parent() {
    let cases = [
        // Suffixes that differ.
        ("_IK_a_s_p_us-west-2", "_SK_s_p"),
        ("_IK_a_s_p_us-west-2", "_SK_s_p_eu-west-1"),
        ("_IK_a_s_p", "_SK_s_p_us-west-2"),
        // One that may not be read.
        ("_IK_a_s_p_green", "_SK_s_p_green"),
        ("_IK_a_s_p_", "_SK_s_p_"),
        ("_IK_a_s_p2", "_SK_s_p2"),
        // Another service or product.
        ("_IK_a_s_p", "_SK_s_p2"),
        ("_IK_a_s_p", "_SK_s_q"),
        ("_IK_a_s_p", "_SK_xs_p"),
        ("_IK_a_xs_p", "_SK_s_p"),
        ("_IK_a_s_p2", "_SK_s_p"),
        // No system key, or no intermediate key.
        ("_IK_a_s_p", ""),
        ("_IK_a_s_p", "_SK_"),
        ("_IK_a_s_p", "_IK_a_s_p"),
        ("_IK_a_s_p", "_sk_s_p"),
        ("_IK_a_s_p", "SK_s_p"),
        ("_IK_a_s_p", "_SK_s_p "),
        ("_IK_a_s_p", "_SK_s_p\0"),
        ("_IK_a_s_p", "_SK_a_s_p"),
        ("_SK_s_p", "_SK_s_p"),
        ("_IK_s_p", "_SK_s_p"),
        ("_IK__s_p", "_SK_s_p"),
        ("", "_SK_s_p"),
    ];
    for (child, parent) in cases {
        assert!(!is_parent_of(&in_us_west_2(), child, parent), "{child} {parent}");
        assert!(!is_parent_of(&without_suffix(), child, parent), "{child} {parent}");
    }
}

fn is_parent_of(naming: &Naming, child: &str, parent: &str) -> bool {
    naming.is_parent_of(&KeyId::new(child), &KeyId::new(parent))
}

const BAD_PARTS: [(&str, &str); 12] = [
    ("", "is empty"),
    ("\0", "contains a control character"),
    ("a\0b", "contains a control character"),
    (" ", "begins or ends with white space"),
    (" a", "begins or ends with white space"),
    ("a\n", "begins or ends with white space"),
    ("a\u{a0}", "begins or ends with white space"),
    ("\u{2003}a", "begins or ends with white space"),
    ("a\u{1b}[2Jb", "contains a control character"),
    ("a\nb", "contains a control character"),
    ("a\u{9b}b", "contains a control character"),
    (FAR_TOO_LONG, "has over 255 characters"),
];

const FAR_TOO_LONG: &str = match str::from_utf8(&[b'x'; 256]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn names_of_255_characters_are_taken_as_long_as_a_store_could_hold_the_id() {
    let naming = Naming::new("s", "p", None, ReadableSuffixes::Any, false).unwrap();
    for longest in ["x".repeat(255), "\u{1f600}".repeat(255)] {
        assert!(naming.intermediate_key_id(&longest).is_ok());
        assert!(naming.intermediate_key_id(&format!("{longest}x")).is_err());
    }
    // 4 * 255 bytes each.
    let wide = "\u{1f600}".repeat(255);
    let naming = Naming::new(&wide, "prod", None, ReadableSuffixes::Any, false).unwrap();
    assert!(naming.intermediate_key_id("x").is_ok());
    let error = naming.intermediate_key_id(&wide).unwrap_err();
    assert!(matches!(error, Error::InvalidPartition { .. }), "{error}");
    let error = Naming::new(&wide, &wide, Some("x".repeat(9)), ReadableSuffixes::Any, false).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
}

#[test]
fn names_that_are_no_part_of_an_id_are_refused() {
    for (bad, why) in BAD_PARTS {
        let new = |service: &str, product: &str, suffix: &str, readable: &str| {
            Naming::new(service, product, Some(suffix.to_owned()), only(&[readable]), false)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(new(bad, "p", "x", "x"), format!("invalid configuration: service {why}"));
        assert_eq!(new("s", bad, "x", "x"), format!("invalid configuration: product {why}"));
        assert_eq!(new("s", "p", bad, "x"), format!("invalid configuration: region suffix {why}"));
        assert_eq!(new("s", "p", "x", bad), format!("invalid configuration: readable suffix {why}"));
        let error = without_suffix().intermediate_key_id(bad).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid partition: it {why}"));
    }
}

#[test]
fn strict_ids_refuse_every_underscore() {
    let strict = |service: &str, product: &str, suffix: &str, readable: &str| {
        Naming::new(service, product, Some(suffix.to_owned()), only(&[readable]), true)
    };
    for (what, naming) in [
        ("service", strict("a_b", "p", "x", "x")),
        ("product", strict("s", "_", "x", "x")),
        ("region suffix", strict("s", "p", "x_", "x")),
        ("readable suffix", strict("s", "p", "x", "_x")),
    ] {
        let expected = format!("invalid configuration: {what} contains `_`, which strict_ids refuses");
        assert_eq!(naming.unwrap_err().to_string(), expected);
    }
    let naming = strict("s", "p", "x", "x").unwrap();
    let error = naming.intermediate_key_id("a_b").unwrap_err();
    assert_eq!(error.to_string(), "invalid partition: it contains `_`, which strict_ids refuses");
    assert_eq!(naming.intermediate_key_id("a-b").unwrap(), "_IK_a-b_s_p_x");
}

#[test]
fn an_ambiguous_factory_says_so_once() {
    let all = [
        ("a_b", "c_d", Some("e_f"), 1),
        ("a_b", "c", None, 1),
        ("a", "b", Some("c_d"), 1),
        ("a", "b", None, 0),
    ];
    for (service, product, suffix, expected) in all {
        let events = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(CountingSubscriber(Arc::clone(&events)), || {
            let naming = naming(service, product, suffix, ReadableSuffixes::Any);
            naming.intermediate_key_id("a_b").unwrap();
        });
        assert_eq!(events.load(Ordering::Relaxed), expected, "{service} {product} {suffix:?}");
    }
}

struct CountingSubscriber(Arc<AtomicUsize>);

impl Subscriber for CountingSubscriber {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(event.metadata().level(), &tracing::Level::WARN);
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The names a session's ids are made of.
#[derive(Clone, Debug, PartialEq)]
struct Names {
    partition: String,
    service: String,
    product: String,
    suffix: Option<String>,
}

impl Names {
    fn naming(&self) -> Naming {
        naming(&self.service, &self.product, self.suffix.as_deref(), ReadableSuffixes::Any)
    }

    fn id(&self) -> KeyId {
        KeyId::new(self.naming().intermediate_key_id(&self.partition).unwrap())
    }

    fn core(&self) -> String {
        format!("_IK_{}_{}_{}", self.partition, self.service, self.product)
    }

    fn is_same_partition(&self, other: &Self) -> bool {
        (&self.partition, &self.service, &self.product) == (&other.partition, &other.service, &other.product)
    }
}

/// Names that differ by little, drawn from few characters, so that they meet often.
fn names(part: &'static str) -> impl Strategy<Value = Names> {
    let suffix =
        proptest::option::of(prop_oneof![Just("us-west-2".to_owned()), Just("eu-west-1".to_owned()), part]);
    (part, part, part, suffix).prop_map(|(partition, service, product, suffix)| Names {
        partition,
        service,
        product,
        suffix,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Without `_` in any name there is no ambiguity at all.
    #[test]
    fn a_foreign_id_is_never_ours(ours in names("[ap2-]{1,2}"), theirs in names("[ap2-]{1,2}")) {
        let owner = ours.naming().owner(&ours.id(), &theirs.id());
        if !ours.is_same_partition(&theirs) {
            prop_assert_eq!(owner, Owner::Foreign);
        } else if ours.suffix == theirs.suffix {
            prop_assert_eq!(owner, Owner::Own);
        }
    }

    /// With it, an id of theirs is taken for ours only where the texts coincide.
    #[test]
    fn an_id_is_ours_only_if_its_text_is(ours in names("[ap2_]{1,3}"), theirs in names("[ap2_]{1,3}")) {
        let theirs = theirs.id();
        let suffix = theirs.as_str().strip_prefix(&ours.core());
        let is_region = |rest: &str| rest.strip_prefix('_').is_some_and(is_region_name);
        let expected = match suffix {
            _ if theirs == ours.id() => Owner::Own,
            Some(rest) if ours.suffix.is_some() && (rest.is_empty() || is_region(rest)) => Owner::OtherRegion,
            _ => Owner::Foreign,
        };
        prop_assert_eq!(ours.naming().owner(&ours.id(), &theirs), expected);
    }

    /// Every system key is the parent of the intermediate keys of its own factory.
    #[test]
    fn the_own_system_key_is_the_parent(ours in names("[ap2_-]{1,3}")) {
        prop_assert!(ours.naming().is_parent_of(&ours.id(), &ours.naming().system_key_id()));
    }
}
