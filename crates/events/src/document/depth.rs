//! How deep a TOML text nests, determined without parsing it.
//!
//! The tokens are those of the parser's own lexer, so strings and comments are recognised exactly as by the parser.
//! Every open bracket is a level, and so is every dot since the last separator within it. That also counts a dot in a
//! number as a level, and each part of a header as two, because it may name a list of tables: the result is never less
//! than the depth that a parser would build. A closing bracket without a matching opening one closes nothing here,
//! because a parser that recovers from errors may stay inside.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Deepest nesting of a document, in levels. The settings use half of it, policies, models and keys less.
pub const LEVELS_MAX: usize = 32;

/// It nests deeper than [`LEVELS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is nested deeper than {LEVELS_MAX} levels, counting brackets and dots of keys")]
pub struct TooDeep;

/// Rejects a text that nests deeper than [`LEVELS_MAX`].
pub fn check(text: &str) -> Result<(), TooDeep> {
    if levels(text) > LEVELS_MAX { Err(TooDeep) } else { Ok(()) }
}

/// A part of the text that is open: the whole, a table's header, or a bracket.
struct Open {
    closes_with: TokenKind,
    /// Since the last separator.
    dots: usize,
}

/// The greatest number of levels that are open at any point.
pub fn levels(text: &str) -> usize {
    let mut open: Vec<Open> = Vec::new();
    let mut line = Open { closes_with: TokenKind::Newline, dots: 0 };
    // The levels of the header of the current table.
    let mut header = 0;
    let (mut below, mut deepest) = (0, 0);
    let mut is_header = false;
    let mut is_begin = true;
    for token in Source::new(text).lex() {
        let kind = token.kind();
        let innermost = open.last_mut().unwrap_or(&mut line);
        match kind {
            TokenKind::LeftSquareBracket if is_begin => (is_header, header) = (true, 2),
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket if !is_header => {
                below += innermost.dots;
                let closes_with = match kind {
                    TokenKind::LeftCurlyBracket => TokenKind::RightCurlyBracket,
                    _ => TokenKind::RightSquareBracket,
                };
                open.push(Open { closes_with, dots: 0 });
            }
            TokenKind::Dot if is_header => header += 2,
            TokenKind::Dot => innermost.dots += 1,
            TokenKind::Comma => innermost.dots = 0,
            TokenKind::Newline if open.is_empty() => {
                (line.dots, is_header) = (0, false);
            }
            closing if open.last().is_some_and(|last| last.closes_with == closing) => {
                open.pop();
                below -= open.last().map_or(line.dots, |outer| outer.dots);
            }
            _ => {}
        }
        let is_line_begun = matches!(kind, TokenKind::Whitespace | TokenKind::Newline);
        is_begin = open.is_empty() && (kind == TokenKind::Newline || is_begin && is_line_begun);
        let here = open.last().map_or(line.dots, |innermost| innermost.dots);
        deepest = deepest.max(header + below + open.len() + here);
    }
    // The document itself is a table.
    deepest + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::Value;

    /// Levels of a value; 1 for a value that contains no others.
    fn built(value: &Value) -> usize {
        let within = match value {
            Value::Array(items) => items.iter().map(built).max(),
            Value::Table(table) => table.values().map(built).max(),
            _ => None,
        };
        1 + within.unwrap_or(0)
    }

    fn nested(levels: usize, keys: usize) -> String {
        let key = vec!["a"; keys].join(".");
        (0..levels).fold("1".to_owned(), |inner, _| format!("{{{key} = {inner}}}"))
    }

    #[test]
    fn levels_are_brackets_and_dots() {
        for (text, expected) in [
            ("", 1),
            ("a = 1", 1),
            ("a.b.c = 1", 3),
            ("\"a.b\".'c.d' = \"e.f[{\" # [[[[", 2),
            ("a = \"\"\"\n[[[[\n.....\n\"\"\"\nb = '''{{{.'''", 1),
            ("a = [1, 2, [3, [4]]]", 4),
            ("a = [[1], [2], [3]]", 3),
            ("a = {b = 1, c.d = {e = 2}}", 4),
            ("[a]\nb = 1", 3),
            ("[a.b]\nc.d = 1\n[e]\nf = 1", 6),
            ("[[a]]\n[[a.b]]\nc = 1", 5),
            ("a = [\n  1,\n  [2], # ]\n]\n[b]\n", 3),
            ("a = [1.5, 2.5, 3.5]", 3),
            ("a = 2026-01-01T00:00:00.5Z", 2),
            ("a = {]{]{]", 4),
        ] {
            assert_eq!(levels(text), expected, "{text}");
        }
    }

    #[test]
    fn brackets_times_dots_never_reach_a_parser_that_they_would_overflow() {
        for depth in 1..80 {
            for keys in 1..80 {
                let text = format!("a = {}", nested(depth, keys));
                let levels = levels(&text);
                assert_eq!(levels, 1 + depth * keys, "{depth} by {keys}");
                if check(&text).is_ok() {
                    assert!(toml::from_str::<Value>(&text).is_ok(), "{depth} by {keys}");
                }
            }
        }
    }

    /// Texts that are probably TOML, valid or nearly so.
    fn toml() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a", "b.c", ".", "=", " = ", "1", "1.5", "\"x.[\"", "'{'", "[", "]", "[[", "]]", "{", "}", ",", "\n",
            "\r\n", "# [.\n", "\"\"\"", "'''", "a.b = ", "c = [", "{d.e = ", "true",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// Texts that are TOML.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-9.5..9.5).prop_map(|number: f64| Value::from(number)),
            "[a.\\[{\"'\n]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c.]{1,3}", inner, 0..4)
                    .prop_map(|table| Value::Table(table.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_fewer_levels_are_found_than_a_parser_builds(text in toml()) {
            if let Ok(value) = toml::from_str::<Value>(&text) {
                prop_assert!(levels(&text) + 1 >= built(&value), "{}: {text}", built(&value));
            }
        }

        #[test]
        fn what_is_written_is_found_to_be_at_most_twice_as_deep(value in value()) {
            let text = toml::to_string(&toml::Table::from_iter([("k".to_owned(), value.clone())])).unwrap();
            let (found, built) = (levels(&text), built(&value) + 1);
            prop_assert!(found + 1 >= built && found <= 2 * built, "found {found}, built {built}: {text}");
        }
    }
}
