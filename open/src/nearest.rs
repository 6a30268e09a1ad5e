//! The name that somebody meant, who wrote another.

/// Returns the known name that is nearest to `unknown`, if one is near.
pub(crate) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let unknown = plain(unknown);
    let rated = known.iter().map(|name| (strsim::jaro_winkler(&unknown, &plain(name)), *name));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(similarity, _)| *similarity > 0.85).map(|(_, name)| name)
}

/// The name without what tells `expire_after`, `expire-after` and `ExpireAfter` apart.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_near_is_found_however_it_is_spelt_and_one_that_is_far_is_not() {
        let known = ["expire-after", "check-interval", "service", "region"];
        for (unknown, meant) in [
            ("expire-aftr", Some("expire-after")),
            ("ExpireAfter", Some("expire-after")),
            ("chek_interval", Some("check-interval")),
            ("servcie", Some("service")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(unknown, &known), meant, "{unknown}");
        }
    }
}
