/// The known key that `key` is probably a misspelling of: few letters are wrong, missing,
/// superfluous or swapped (optimal string alignment).
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let key = key.to_ascii_lowercase().replace('_', "-");
    let (distance, best) = known.iter().map(|k| (strsim::osa_distance(&key, k), *k)).min()?;
    (distance <= (key.chars().count().max(best.len()) * 2 / 5).max(1)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        let known = ["hold-time", "remote-as", "as", "address", "families"];
        let cases = [
            ("hold_time", Some("hold-time")),
            ("holdtime", Some("hold-time")),
            ("remote-sa", Some("remote-as")),
            ("adress", Some("address")),
            ("family", Some("families")),
            ("AS", Some("as")),
            ("zzz", None),
            ("colour", None),
        ];
        for (key, meant) in cases {
            assert_eq!(nearest(key, &known), meant, "{key}");
        }
    }
}
