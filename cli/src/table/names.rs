//! Names of columns, as a header that lacks one is told of.

use std::fmt::Write as _;

use strsim::osa_distance;

/// Says that `wanted` is none of the names. Of these only near ones are repeated: a file without a
/// header has somebody's data there.
pub(super) fn unknown_column(wanted: &str, names: &[impl AsRef<str>]) -> String {
    let mut near: Vec<(usize, &str)> =
        names.iter().map(AsRef::as_ref).filter_map(|name| Some((distance(wanted, name)?, name))).collect();
    near.sort();
    near.dedup();
    let mut message = format!("the header row has no column {wanted}");
    for (place, (_, name)) in near.iter().take(NEAR_NAMES_MAX).enumerate() {
        let joint = if place == 0 { "; did you mean" } else { " or" };
        // Writing to a `String` cannot fail.
        let _ = write!(message, "{joint} \"{}\"", name.escape_debug());
    }
    if near.is_empty() {
        let columns = if names.len() == 1 { "column" } else { "columns" };
        let _ = write!(
            message,
            ", nor one with a name near it, among its {} {columns}; correct the option, or add a header row",
            names.len()
        );
    } else {
        message.push('?');
    }
    message
}

/// How many letters differ, if that is few for so short a name.
fn distance(wanted: &str, name: &str) -> Option<usize> {
    let distance_max = wanted.chars().count().min(NAME_CHARS_MAX) / 3;
    // Of names much longer nobody need know how they differ.
    if name.chars().count() > NAME_CHARS_MAX + distance_max {
        return None;
    }
    let distance = osa_distance(&wanted.trim().to_lowercase(), &name.trim().to_lowercase());
    (distance <= distance_max).then_some(distance)
}

const NEAR_NAMES_MAX: usize = 3;

const NAME_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_header_only_near_names_are_told_and_they_are_escaped() {
        let told = |wanted: &str, names: &[&str]| unknown_column(wanted, names);
        assert_eq!(
            told("email", &["id", "E-Mail", "emial", " email", "mail"]),
            "the header row has no column email; did you mean \" email\" or \"E-Mail\" or \"emial\"?"
        );
        assert_eq!(
            told("customer_id", &["customer\u{1b}id"]),
            "the header row has no column customer_id; did you mean \"customer\\u{1b}id\"?"
        );
        assert_eq!(
            told("email", &["7", "alice@secret.example"]),
            "the header row has no column email, nor one with a name near it, among its 2 columns; correct the \
             option, or add a header row"
        );
        // Nothing is near a name of two letters but itself.
        assert!(told("id", &["it", "Id", "ix"]).ends_with("did you mean \"Id\"?"));
        assert!(!told(&"a".repeat(1000), &[&"a".repeat(900)]).contains("did you mean"));
    }
}
