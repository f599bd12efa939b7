//! Which user agents belong to programs that people do not log in with: libraries, tools, automated browsers.
//!
//! Two lists decide, both compiled in (`programs/README.md` documents their sources): patterns of a list that others
//! maintain, and names that it lacks. Apps of people are programs as well, and many send the name of the library that
//! they are built with. Those libraries are in neither list, even if they are the only name, as in `okhttp/4.9`:
//! treating a bank's own app as a script would cost each of its users a challenge, and a script can send any name. For
//! the same reason a name of the second list does not count before tokens that only apps on phones send ([`APP`]).

use regex::RegexSet;
use serde::Deserialize;
use std::sync::LazyLock;

/// Patterns of crawler-user-agents, as JSON.
pub(super) const PATTERNS: &str = include_str!("programs/crawler-user-agents.json");
/// Names, one per line.
pub(super) const NAMES: &str = include_str!("programs/names.txt");

/// Tokens that apps on phones send after their own names, in lower case.
const APP: [&str; 7] = ["cfnetwork/", "alamofire/", "(iphone;", "(ipad;", "; ios ", "okhttp", "android"];

/// An entry of [`PATTERNS`].
#[derive(Deserialize)]
struct Entry {
    pattern: String,
    #[cfg(test)]
    examples: Vec<String>,
}

/// Both lists, compiled.
struct Programs {
    patterns: RegexSet,
    names: Vec<Name>,
}

/// A name of [`NAMES`], in lower case.
struct Name {
    text: String,
    is_anywhere: bool,
}

impl Name {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim();
        let text = line.strip_prefix('*').unwrap_or(line).to_ascii_lowercase();
        let is_name = !text.is_empty() && !line.starts_with('#');
        is_name.then(|| Self { is_anywhere: line.starts_with('*'), text })
    }

    /// Whether a user agent in lower case contains it, as a whole word if it ends with a letter or a digit.
    fn is_in(&self, agent: &str) -> bool {
        let ends_here = |rest: &str| {
            let is_open = self.text.ends_with(|last: char| last.is_ascii_alphanumeric());
            !(is_open && rest.starts_with(|next: char| next.is_ascii_alphabetic()))
        };
        if self.is_anywhere {
            return agent.match_indices(&self.text).any(|(at, found)| ends_here(&agent[at + found.len()..]));
        }
        let is_app = |rest: &str| APP.iter().any(|part| rest.contains(part));
        agent.strip_prefix(self.text.as_str()).is_some_and(|rest| ends_here(rest) && !is_app(rest))
    }
}

/// None only if the lists cannot be compiled, which a test would have found: then no program is recognised.
static PROGRAMS: LazyLock<Option<Programs>> = LazyLock::new(|| {
    let entries: Vec<Entry> = serde_json::from_str(PATTERNS).ok()?;
    let patterns = RegexSet::new(entries.iter().map(|entry| &entry.pattern)).ok()?;
    Some(Programs { patterns, names: NAMES.lines().filter_map(Name::of).collect() })
});

/// Whether a user agent belongs to a program.
pub(super) fn has(user_agent: &str) -> bool {
    let Some(programs) = PROGRAMS.as_ref() else { return false };
    let text = user_agent.trim_start();
    let lower = text.to_ascii_lowercase();
    programs.patterns.is_match(text) || programs.names.iter().any(|name| name.is_in(&lower))
}

/// Compiles the lists.
pub(super) fn warm() {
    LazyLock::force(&PROGRAMS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_own_examples() {
        assert!(PROGRAMS.is_some(), "both lists can be read");
        let entries: Vec<Entry> = serde_json::from_str(PATTERNS).unwrap();
        let examples: Vec<_> = entries.iter().flat_map(|entry| &entry.examples).collect();
        assert!(entries.len() > 50 && examples.len() > 50, "{} entries, {} examples", entries.len(), examples.len());
        for example in examples {
            assert!(has(example), "{example}");
        }
        for name in NAMES.lines().filter_map(Name::of) {
            let rest = if name.text.ends_with('/') { "1.2.3" } else { "/1.2.3" };
            assert!(has(&format!("{}{rest}", name.text)), "{}", name.text);
            assert!(!name.is_anywhere || has(&format!("Mozilla/5.0 (X11) {}/1", name.text)), "{}", name.text);
        }
    }

    #[test]
    fn a_name_is_a_whole_word() {
        for text in ["Javascriptly/1.0", "nodepad 2", "Gotham/3", "Rubyist 1.0", "Reqs/1", "phpBB", "lamina"] {
            assert!(!has(text), "{text}");
        }
    }
}
