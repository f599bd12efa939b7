//! "Did you mean": the known name that is most similar to an unknown one.

/// Minimum similarity of two names, by Jaro-Winkler from 0 to 1, unless specified otherwise.
const ALIKE_MIN: f64 = 0.75;

/// The known name that is most similar to an unknown one, if the similarity is at least `alike_min`.
pub fn nearest<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>, alike_min: f64) -> Option<&'k str> {
    let alike = known.into_iter().map(|name| (strsim::jaro_winkler(unknown, name), name));
    alike.filter(|(alike, _)| *alike >= alike_min).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// A message of serde in plain words; for an `unknown field` or variant it adds the expected one that was probably
/// meant.
pub fn explained(message: &str) -> String {
    if !message.starts_with("unknown ") {
        let types = [
            ("expected usize", "expected a whole number of 0 or more"),
            ("expected u64", "expected a whole number of 0 or more"),
            ("expected u32", "expected a whole number of 0 or more"),
            ("expected f64", "expected a number"),
        ];
        let message = types.iter().fold(message.to_owned(), |message, (ours, plain)| message.replace(ours, plain));
        return match message.split_once("expected struct ") {
            Some((before, _)) => format!("{before}expected a table"),
            None => message,
        };
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next() else { return message.to_owned() };
    match nearest(unknown, names, ALIKE_MIN) {
        Some(name) => format!("{message}. Did you mean `{name}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_if_any_is_near() {
        for (unknown, suggested) in [("lisen", Some("listen")), ("liste", Some("listen")), ("zzz", None), ("", None)] {
            assert_eq!(nearest(unknown, ["list", "listen", "log"], 0.9), suggested, "{unknown}");
        }
    }

    #[test]
    fn messages_of_serde_are_explained() {
        for (message, said) in [
            (
                "unknown field `lisen`, expected `listen`",
                "unknown field `lisen`, expected `listen`. Did you mean `listen`?",
            ),
            ("unknown field `zzz`, expected `listen`", "unknown field `zzz`, expected `listen`"),
            (
                "invalid type: string \"x\", expected usize",
                "invalid type: string \"x\", expected a whole number of 0 or more",
            ),
            ("invalid type: string \"3d\", expected struct Step", "invalid type: string \"3d\", expected a table"),
            ("missing field `a`", "missing field `a`"),
        ] {
            assert_eq!(explained(message), said);
        }
    }
}
