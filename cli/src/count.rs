//! Counts in words.

/// Returns "1 row", "12 rows".
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0, 1, 2, 11].map(|number| count(number, "row")),
            ["0 rows", "1 row", "2 rows", "11 rows"]
        );
    }
}
