//! No file of rows that is accepted comes back changed, or keeps in the clear what is to be sealed.
//!
//! The first byte chooses the format, the second how much is read at once, the third the longest row.

#![no_main]

use std::sync::LazyLock;

use claviger_cli::testing::{Bench, Form};
use libfuzzer_sys::fuzz_target;

#[path = "../../cli/tests/tables/property.rs"]
mod property;

static BENCH: LazyLock<Bench> = LazyLock::new(|| Bench::new().expect("keys can be made"));

fuzz_target!(|bytes: &[u8]| {
    let [form, chunk, row, file @ ..] = bytes else { return };
    let form = if form % 2 == 0 { Form::JsonLines } else { Form::Csv };
    property::hold(&BENCH, form, file, 1 + usize::from(*chunk), 256 * (1 + usize::from(*row)));
});
