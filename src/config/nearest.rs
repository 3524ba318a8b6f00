/// The known word that `word` was probably meant to be: few letters are wrong, missing, superfluous
/// or swapped (optimal string alignment).
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    let (distance, best) = known.iter().map(|k| (strsim::osa_distance(&word, k), *k)).min()?;
    (distance <= (word.chars().count().max(best.len()) * 2 / 5).max(1)).then_some(best)
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
        for (word, meant) in cases {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}
