/// The known word that `word` was probably meant to be: few letters wrong, missing, too many or swapped.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    let (distance, best) = known.iter().map(|k| (distance(&word, k), *k)).min()?;
    (distance <= (word.chars().count().max(best.len()) * 2 / 5).max(1)).then_some(best)
}

/// How many single-letter changes and swaps of neighbors lead from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
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
