//! No parameter of a function is a tuple pattern: `(from_ms, to_ms): (i64, i64)` has names that its callers do not see,
//! and counts as one for the lint of too many parameters. A struct has both.

use super::{all_sources, code, is_test, read};

/// The parameters of the functions in a text that are tuple patterns, with the names of the functions.
fn tuple_parameters(text: &str) -> Vec<String> {
    let text = code(text).join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("fn ") {
        let is_word = text[..at].chars().next_back().is_none_or(|before| before.is_whitespace() || before == '(');
        let rest = &text[at + "fn ".len()..];
        let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
        if !is_word || name.is_empty() {
            continue;
        }
        let generics = if rest[name.len()..].starts_with('<') { bracketed(&rest[name.len()..]) } else { "" };
        let parameters = &rest[name.len() + generics.len()..];
        if !parameters.starts_with('(') {
            continue;
        }
        for parameter in split(&bracketed(parameters)[1..]) {
            let pattern = parameter.trim().trim_start_matches('&');
            if pattern.starts_with('(') && pattern[bracketed(pattern).len()..].trim_start().starts_with(':') {
                found.push(format!("{name}: {}", pattern.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
    }
    found
}

/// How a character changes the depth of brackets; `before` distinguishes the arrow `->` from a bracket.
fn step(before: char, c: char) -> i32 {
    match c {
        '(' | '[' | '{' | '<' => 1,
        '>' if before == '-' || before == '=' => 0,
        ')' | ']' | '}' | '>' => -1,
        _ => 0,
    }
}

/// The beginning of a text that starts with a bracket, up to the one that closes it.
fn bracketed(text: &str) -> &str {
    let (mut depth, mut before) = (0, ' ');
    for (at, c) in text.char_indices() {
        depth += step(before, c);
        before = c;
        if depth == 0 {
            return &text[..at + c.len_utf8()];
        }
    }
    text
}

/// The parts of a text between commas that are in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut before, mut from, mut parts) = (0, ' ', 0, Vec::new());
    for (at, c) in text.char_indices() {
        depth += step(before, c);
        before = c;
        if (c == ',' && depth == 0) || depth < 0 {
            parts.push(&text[from..at]);
            from = at + c.len_utf8();
        }
    }
    parts
}

#[test]
fn no_parameter_is_a_tuple_pattern() {
    let files: Vec<_> = all_sources().into_iter().filter(|path| !is_test(path)).collect();
    let found = files
        .iter()
        .flat_map(|path| tuple_parameters(&read(path)).into_iter().map(|found| format!("{}: {found}", path.display())));
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
    for path in files {
        let planted = format!("{}fn planted(one: u8, (two, three): (u8, u8)) {{}}\n", read(&path));
        assert_eq!(tuple_parameters(&planted).len(), 1, "the rule does not see a fault in {}", path.display());
    }
}

#[test]
fn the_rule_sees_tuple_patterns_and_nothing_else() {
    let text = "\
fn one((a, b): (u8, u8)) {}
pub(crate) async fn two<'a, F: Fn(u8) -> (u8, u8)>(
    &self,
    f: F,
    (a, (b, _)): (u8, (u8, u8)),
) -> (u8, u8) {}
fn three(&(a, b): &(u8, u8)) {}
fn fine(pair: (u8, u8), unit: &(), f: impl FnMut((u8, u8)) -> u8, Span { from, to }: Span, p: fn((u8, u8))) {}
";
    let found = tuple_parameters(text);
    assert_eq!(found, ["one: (a, b): (u8, u8)", "two: (a, (b, _)): (u8, (u8, u8))", "three: (a, b): &(u8, u8)"]);
}
