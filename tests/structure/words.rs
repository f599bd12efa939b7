//! Comments and documentation use plain, modern English: words that documentation of the field does not use are
//! counted, per 10,000 words, and limited.
//!
//! Counted are the comments of Rust files, Markdown outside of code, and the comments of scripts, manifests and the
//! chart. Names of tests, identifiers and everything else in backticks are not.

use super::root;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Words that are archaic, or that say of a program what only a person does. Plain equivalents: "notified" or
/// "returned" for *told*; "requested" or "queried" for *asked*; "no one", "any caller", or the actual subject for
/// *nobody* and *whoever*; "again" for *anew*; "next to" or "in addition" for *beside*; "is" for *stands*.
const WORDS: [&str; 57] = [
    "anew",
    "ask",
    "asked",
    "asking",
    "asks",
    "aught",
    "beside",
    "besides",
    "deed",
    "deeds",
    "desk",
    "door",
    "doors",
    "dwell",
    "dwells",
    "ear",
    "ears",
    "fate",
    "hear",
    "heard",
    "hears",
    "heed",
    "heeds",
    "hence",
    "herein",
    "herewith",
    "lessons",
    "lest",
    "mend",
    "mended",
    "mending",
    "mends",
    "nobody",
    "owes",
    "said",
    "says",
    "somebody",
    "speaks",
    "stand",
    "standing",
    "stands",
    "stood",
    "tell",
    "telling",
    "tells",
    "therein",
    "thereof",
    "told",
    "uttered",
    "weather",
    "whence",
    "whither",
    "whoever",
    "whom",
    "whomever",
    "witness",
    "witnesses",
];
/// Phrases of the same kind.
const PHRASES: [&str; 21] = [
    "as yet",
    "are absent",
    "became of",
    "but for",
    "came of",
    "for want of",
    "gave back",
    "give back",
    "given back",
    "gives back",
    "held against",
    "hold against",
    "holds against",
    "in the midst",
    "is absent",
    "let go",
    "lets go",
    "of late",
    "put off",
    "so many",
    "taken over",
];
/// Hits per 10,000 words that are allowed: what is left are quotations and the rare word that fits.
const LIMIT_PER_10_000: usize = 10;
/// Folders whose files are measured, and files of the root by their extensions.
const FOLDERS: [&str; 11] =
    ["benches", "catalog", "crates", "docs", "examples", "fuzz", "helm", "migrations", "scripts", "src", "tests"];
/// Folders of builds and downloads.
const SKIPPED: [&str; 3] = ["target", "node_modules", "__pycache__"];
/// Files with the most hits that a failure lists.
const FILES_SHOWN: usize = 20;

/// How the prose of a file is marked.
#[derive(Clone, Copy)]
enum Format {
    Rust,
    Markdown,
    Hash,
    Sql,
}

impl Format {
    /// The format of a file, by its extension or, in `scripts`, by its first line; none if it contains no prose.
    fn of(path: &Path, text: &str) -> Option<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => Some(Self::Rust),
            Some("md") => Some(Self::Markdown),
            Some("toml" | "yaml" | "yml" | "tpl" | "py" | "sh") => Some(Self::Hash),
            Some("cql") => Some(Self::Sql),
            None if text.starts_with("#!") || path.ends_with("Containerfile") => Some(Self::Hash),
            _ => None,
        }
    }

    /// The prose of a file, line by line.
    fn prose(self, text: &str) -> Vec<&str> {
        let comments = |mark| text.lines().filter_map(move |line| line.trim_start().strip_prefix(mark));
        match self {
            Self::Rust => comments("//").collect(),
            Self::Hash => comments("#").filter(|line| !line.starts_with('!')).collect(),
            Self::Sql => comments("--").collect(),
            Self::Markdown => {
                let mut is_code = false;
                let mut is_prose = |line: &&str| {
                    let is_fence = line.trim_start().starts_with("```");
                    is_code ^= is_fence;
                    !is_code && !is_fence
                };
                text.lines().filter(|line| is_prose(line)).collect()
            }
        }
    }
}

/// The words of lines of prose, in lower case, without code in backticks.
fn words(prose: &[&str]) -> Vec<String> {
    let text = prose.join("\n");
    let outside: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// The listed words and phrases in a text.
fn hits(words: &[String]) -> Vec<String> {
    let listed = words.iter().filter(|word| WORDS.contains(&word.as_str())).cloned();
    let windows = [2, 3].into_iter().flat_map(|length| words.windows(length)).map(|window| window.join(" "));
    listed.chain(windows.filter(|phrase| PHRASES.contains(&phrase.as_str()))).collect()
}

/// All files that are measured.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = FOLDERS.iter().map(|folder| root().join(folder)).collect();
    found.extend(entries(root()).into_iter().filter(|path| path.is_file()));
    while let Some(folder) = folders.pop() {
        let is_skipped = |path: &PathBuf| SKIPPED.iter().any(|name| path.ends_with(name));
        let (inner, files): (Vec<_>, Vec<_>) =
            entries(&folder).into_iter().filter(|path| !is_skipped(path)).partition(|path| path.is_dir());
        folders.extend(inner);
        found.extend(files);
    }
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The result of measuring texts.
#[derive(Default)]
struct Measured {
    words: usize,
    hits: usize,
    /// Hits by file, only of files with any.
    files: BTreeMap<PathBuf, Vec<String>>,
}

impl Measured {
    fn add(&mut self, path: &Path, text: &str) {
        let Some(format) = Format::of(path, text) else { return };
        let words = words(&format.prose(text));
        let hits = hits(&words);
        self.words += words.len();
        self.hits += hits.len();
        if !hits.is_empty() {
            self.files.insert(path.to_owned(), hits);
        }
    }

    fn of_repository() -> Self {
        let mut measured = Self::default();
        for path in files() {
            // Data files that are not text contain no prose.
            if let Ok(text) = std::fs::read_to_string(&path) {
                measured.add(&path, &text);
            }
        }
        measured
    }

    fn per_10_000(&self) -> usize {
        (self.hits * 10_000).div_ceil(self.words.max(1))
    }

    /// The files with the most hits, with each word and how often it occurs.
    fn worst(&self) -> String {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(_, hits)| std::cmp::Reverse(hits.len()));
        let line = |(path, hits): (&PathBuf, &Vec<String>)| {
            let mut counts = BTreeMap::<&str, usize>::new();
            hits.iter().for_each(|hit| *counts.entry(hit).or_default() += 1);
            let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
            let path = path.strip_prefix(root()).unwrap_or(path).display();
            format!("{:4} {path}: {}\n", hits.len(), counts.join(", "))
        };
        files.into_iter().take(FILES_SHOWN).map(line).collect()
    }
}

#[test]
fn comments_and_docs_use_plain_words() {
    let measured = Measured::of_repository();
    let found = measured.per_10_000();
    let summary = format!("{} of {} words, {found} per 10,000", measured.hits, measured.words);
    println!("{summary}\n{}", measured.worst());
    assert!(measured.words > 100_000, "the rule reads {} words", measured.words);
    assert!(found <= LIMIT_PER_10_000, "{summary}; at most {LIMIT_PER_10_000} are allowed:\n{}", measured.worst());
}

#[test]
fn the_rule_on_words_sees_a_planted_word_in_every_file() {
    for path in files() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Some(format) = Format::of(&path, &text) else { continue };
        let (before, after) = match format {
            Format::Rust => ("//! ", "/// "),
            Format::Markdown => ("", ""),
            Format::Hash => ("#", "# "),
            Format::Sql => ("-- ", "-- "),
        };
        let fault = "The caller is told, as nobody\n";
        let rest = "let go of it.\n";
        let planted = format!("{text}\n\n{before}{fault}{after}{rest}");
        let seen = hits(&words(&format.prose(&planted))).len();
        let known = hits(&words(&format.prose(&text))).len();
        assert_eq!(seen, known + 3, "{}", path.display());
    }
}

#[test]
fn the_rule_on_words_reads_prose_and_no_code() {
    let rust = "let told = ask(); // asked\n    /// It is `told` so,\n    // and let\n    // go.\nlet s = \"asks\";\n";
    assert_eq!(hits(&words(&Format::Rust.prose(rust))), ["let go"]);
    let page = "He asks.\n```text\nit tells\n```\nA `door`.\n";
    assert_eq!(hits(&words(&Format::Markdown.prose(page))), ["asks"]);
    assert_eq!(hits(&words(&Format::Hash.prose("#!/bin/sh told\n# told\nask\n"))), ["told"]);
}
