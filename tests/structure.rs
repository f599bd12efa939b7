//! Rules of the layout that the compiler does not check: which files do no I/O, who names a backend, and that each
//! guarantee names its test. Each rule is also held to seeing a planted fault in every file that it covers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

/// The pure core, as modules: `src/event` means `src/event.rs` and all of `src/event/`.
const PURE: [&str; 21] = [
    "src/catalog",
    "src/dead",
    "src/decisions/id",
    "src/decisions/made",
    "src/decisions/report",
    "src/document",
    "src/event",
    "src/remind/announce",
    "src/remind/plan",
    "src/remind/policy",
    "src/remind/schedule",
    "src/report/no_show",
    "src/score",
    "src/store/pointer",
    "src/suggest",
    "src/train/design",
    "src/train/fit",
    "src/train/history",
    "src/train/moments",
    "src/train/table",
    "src/view",
];
/// Parts of those modules that do I/O.
const NOT_PURE: [&str; 1] = ["src/dead/desk"];
/// What the pure core must not name outside of its tests: a runtime, a clock, randomness, files, the environment,
/// logs, and the modules that do I/O.
const IMPURE: [&str; 25] = [
    "async fn",
    "crate::app",
    "crate::clock",
    "crate::http",
    "crate::ops",
    "crate::pipeline",
    "crate::policies",
    "crate::progress",
    "crate::rows",
    "crate::telemetry",
    "getrandom",
    "metrics::counter",
    "metrics::gauge",
    "metrics::histogram",
    "new_v4",
    "now_v7",
    "Instant::now",
    "rand::",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "SystemTime",
    "tokio",
    "tracing::",
];
/// Files that need one of these: the parser of rules recurses, so it gets a thread with a stack that is large enough.
const EXCEPTIONS: [(&str, &str); 1] = [("src/score/login/rule.rs", "std::thread")];
/// Backends, and the only modules that may name them besides their own.
const BACKENDS: [&str; 4] = ["kafka::", "cassandra::", "log::disk", "store::disk"];
const MAY_NAME_BACKENDS: [&str; 6] =
    ["src/log", "src/store", "src/app/ports", "src/app/backup", "src/config", "src/telemetry"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a folder, sorted.
fn sources(at: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}

/// The files of a module: its own file and all files in its folder.
fn module(name: &str) -> Vec<PathBuf> {
    let (file, folder) = (root().join(format!("{name}.rs")), root().join(name));
    let mut files: Vec<_> = Some(file).filter(|file| file.is_file()).into_iter().collect();
    if folder.is_dir() {
        files.extend(sources(&folder));
    }
    assert!(!files.is_empty(), "there is no module {name}");
    files
}

/// Whether a file belongs to one of the modules.
fn is_in(path: &Path, modules: &[&str]) -> bool {
    modules.iter().any(|name| module(name).contains(&path.to_owned()))
}

/// Whether a file is a test module of its own, as `src/event/codec/tests.rs`.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
}

/// The code of a file without comments and without what is compiled for tests alone.
///
/// Leaves out the item after each `#[cfg(test)]`: up to its semicolon, or to the line that closes its block, which
/// rustfmt indents as the line that opens it.
fn code(text: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == "#[cfg(test)]" {
            let closing = |line: &&str| line.get(indent..).is_some_and(|rest| rest == "}" || rest.ends_with(';'));
            let _ = lines.find(|line| closing(line) && !line.trim_start().starts_with("//"));
        } else if !line.trim_start().starts_with("//") {
            kept.push(line);
        }
    }
    kept
}

/// Lines of a text that name one of the words.
fn offences(path: &Path, text: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for line in code(text) {
        let word = words.iter().find(|word| line.contains(**word));
        let is_excepted = |word: &str| EXCEPTIONS.iter().any(|(file, may)| path.ends_with(file) && *may == word);
        if let Some(word) = word.filter(|word| !is_excepted(word)) {
            found.push(format!("{}: {word}: {}", path.display(), line.trim()));
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn pure_files() -> Vec<PathBuf> {
    let files = PURE.iter().flat_map(|name| module(name));
    files.filter(|path| !is_test(path) && !is_in(path, &NOT_PURE)).collect()
}

fn files_without_backends() -> Vec<PathBuf> {
    sources(&root().join("src")).into_iter().filter(|path| !is_in(path, &MAY_NAME_BACKENDS)).collect()
}

/// Holds `files` to the rule that none of them names any of `words`; and holds the rule to seeing each of the words in
/// each of the files, wherever it comes.
fn no_file_names(files: &[PathBuf], words: &[&str]) {
    let found: Vec<_> = files.iter().flat_map(|path| offences(path, &read(path), words)).collect();
    assert_eq!(found, Vec::<String>::new());
    for path in files {
        let text = read(path);
        for word in words {
            let fault = format!("fn planted() {{ let _ = {word}; }}\n");
            let last = format!("{text}{fault}");
            // Before the first item that follows another one.
            let first = text.replacen("\n\n", &format!("\n\n{fault}\n"), 1);
            for planted in [last, first] {
                let seen = offences(path, &planted, words).len();
                let excepted = EXCEPTIONS.iter().any(|(file, may)| path.ends_with(file) && may == word);
                assert!(seen > 0 || excepted, "the rule does not see {word} in {}", path.display());
            }
        }
    }
}

#[test]
fn the_pure_core_has_no_clock_and_no_io() {
    let files = pure_files();
    for file in ["src/event.rs", "src/view.rs", "src/score.rs", "src/score/login.rs", "src/remind/plan/step.rs"] {
        assert!(files.contains(&root().join(file)), "{file}");
    }
    no_file_names(&files, &IMPURE);
}

#[test]
fn only_the_composition_root_names_a_backend() {
    no_file_names(&files_without_backends(), &BACKENDS);
}

#[test]
fn a_rule_reads_past_tests_and_not_into_them() {
    let text = "\
use a;
#[cfg(test)]
use kafka::only_in_tests;
fn first() {}
#[cfg(test)]
mod tests {
    fn inside() {
        kafka::client();
    }
}
// kafka::in_a_comment
fn last() {
    kafka::seen();
}
";
    assert_eq!(offences(Path::new("x.rs"), text, &["kafka::"]), ["x.rs: kafka::: kafka::seen();"]);
}

#[test]
fn every_module_says_why_it_exists() {
    let is_silent = |path: &PathBuf| !read(path).starts_with("//!");
    let silent: Vec<_> = sources(&root().join("src")).into_iter().filter(is_silent).collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
}

/// The names of tests in a page: `module::name`, or `name` where it is long enough to be nothing else.
fn named_tests(page: &str) -> Vec<&str> {
    let spans = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b':');
    spans
        .filter(|name| plain(name))
        .filter_map(|name| name.rsplit(':').next())
        .filter(|name| name.matches('_').count() >= 4)
        .collect()
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/RELIABILITY.md")).unwrap();
    let files = ["tests", "src"].iter().flat_map(|folder| sources(&root().join(folder)));
    let tests: String = files.map(|path| read(&path)).collect();
    let named = named_tests(&page);
    assert!(named.len() > 40, "the rule looks at {} names", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
