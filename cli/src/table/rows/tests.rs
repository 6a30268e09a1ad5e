use claviger::{BoxedKms, InMemoryMetastore, SecretKey, StaticKms};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use tokio::runtime::Runtime;

use super::*;
use crate::table::chunks::{Chunks, Sizes};
use crate::table::csv::CsvLayout;
use crate::table::jsonl::JsonLayout;

pub(in crate::table) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(in crate::table) fn kms() -> Watched {
    let master_key = SecretKey::try_init(|key| {
        key.iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
        Ok::<_, ()>(())
    });
    Watched::new(BoxedKms::new(StaticKms::new(&master_key.unwrap()).unwrap()))
}

pub(in crate::table) fn factory() -> SessionFactory {
    SessionFactory::builder(InMemoryMetastore::new(), kms()).service("test").product("test").build().unwrap()
}

/// Sends all rows one way; `Err` with the line of the row that ends it.
fn send<L: Layout>(
    runtime: &Runtime,
    factory: &SessionFactory,
    direction: Direction,
    layout: L,
    bytes: &[u8],
) -> Result<Vec<u8>, u64> {
    let work = Work {
        layout,
        direction,
        factory: factory.clone(),
        kms: kms(),
        keep_going: false,
        allow_sealed: false,
        row_bytes_max: usize::MAX,
    };
    let mut chunks = Chunks::begin(bytes, Sizes::STANDARD).map_err(|_utf_16| 1_u64)?;
    let mut out = chunks.1.to_vec();
    while let Some(chunk) = chunks.0.next_rows::<L>().unwrap() {
        let done = runtime.block_on(work.run(&chunk));
        if let Some(bad) = done.fatal {
            return Err(bad.line);
        }
        out.extend(done.bytes);
    }
    Ok(out)
}

pub(in crate::table) fn csv_layout() -> CsvLayout {
    CsvLayout::from_header(b"a,id,b", "id", &["a".to_owned(), "b".to_owned()]).unwrap()
}

fn json_layout(direction: Direction) -> JsonLayout {
    JsonLayout::new("id", &["a".to_owned(), "b".to_owned()], direction)
}

/// Rows that mostly have three cells and a partition, as programs and people write them.
fn csv_rows() -> impl Strategy<Value = Vec<u8>> {
    let quoted = "[a \",é\n\r{}]{0,6}".prop_map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
    let plain = "[a é{}:][a \"é{}:]{0,6}";
    let cell = || prop_oneof![quoted.clone(), plain, Just(String::new())];
    let row = (cell(), "\"?[pq][\",]{0,1}\"?|p|q", cell(), "\n|\r\n|\r|\n\n");
    let row = row.prop_map(|(a, id, b, end)| format!("{a},{id},{b}{end}"));
    prop::collection::vec(row, 0..6).prop_map(|rows| rows.concat().into_bytes())
}

proptest! {
    #[test]
    fn csv_that_encrypts_comes_back_byte_for_byte(file in csv_rows()) {
        let (runtime, factory) = (runtime(), factory());
        if let Ok(sealed) = send(&runtime, &factory, Direction::Encrypt, csv_layout(), &file) {
            let back = send(&runtime, &factory, Direction::Decrypt, csv_layout(), &sealed);
            prop_assert_eq!(back.as_deref(), Ok(file.as_slice()));
        }
    }

    #[test]
    fn any_bytes_are_encrypted_and_come_back_or_are_refused(file in prop::collection::vec(any::<u8>(), 0..60)) {
        let (runtime, factory) = (runtime(), factory());
        if let Ok(sealed) = send(&runtime, &factory, Direction::Encrypt, csv_layout(), &file) {
            let back = send(&runtime, &factory, Direction::Decrypt, csv_layout(), &sealed);
            prop_assert_eq!(back.as_deref(), Ok(file.as_slice()));
        }
    }

    #[test]
    fn json_lines_come_back_byte_for_byte(
        values in prop::collection::vec(("[ \t]?(null|-?[1-9][0-9]{0,30}(\\.[0-9]+)?(e[0-9]{1,3})?|\"[a-z é]*\"|\\[ *\\{\\} *\\])[ \t]?", "\n|\r\n"), 1..5)
    ) {
        let (runtime, factory) = (runtime(), factory());
        let line = |(value, end): &(String, String)| format!("{{\"b\":{value},\"x\":{value},\"id\":7, \"a\":{value}}}{end}");
        let file: String = values.iter().map(line).collect();
        let sealed = send(&runtime, &factory, Direction::Encrypt, json_layout(Direction::Encrypt), file.as_bytes()).unwrap();
        let back = send(&runtime, &factory, Direction::Decrypt, json_layout(Direction::Decrypt), &sealed);
        prop_assert_eq!(back.as_deref(), Ok(file.as_bytes()));
    }
}

#[test]
fn most_generated_csv_encrypts() {
    // Else the property above would say little.
    let (runtime, factory) = (runtime(), factory());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut encrypts = || {
        let file = csv_rows().new_tree(&mut runner).unwrap().current();
        send(&runtime, &factory, Direction::Encrypt, csv_layout(), &file)
            .is_ok_and(|sealed| !sealed.is_empty())
    };
    let good = (0..200).filter(|_| encrypts()).count();
    assert!(good > 60, "{good} of 200");
}

#[test]
fn a_plaintext_that_is_no_text_is_refused_in_a_csv_file() {
    let (runtime, factory) = (runtime(), factory());
    let record = runtime.block_on(factory.session("p").unwrap().encrypt_json(b"caf\xe9")).unwrap();
    let row = format!("\"{}\",p,", record.replace('"', "\"\""));
    assert_eq!(send(&runtime, &factory, Direction::Decrypt, csv_layout(), row.as_bytes()), Err(1));
}
