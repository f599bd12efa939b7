//! The layout keeps its promises: who may use whom is a rule, and a rule unchecked is a wish.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

/// Files of the pure core, and what none of them may name outside of its tests.
const PURE: [&str; 16] = [
    "src/event",
    "src/view",
    "src/score",
    "src/remind/plan.rs",
    "src/catalog.rs",
    "src/dead.rs",
    "src/dead/asked.rs",
    "src/dead/filter.rs",
    "src/dead/mark.rs",
    "src/dead/repair.rs",
    "src/dead/show.rs",
    "src/decisions/id.rs",
    "src/decisions/made.rs",
    "src/decisions/report.rs",
    "src/report/no_show.rs",
    "src/suggest.rs",
];
const IMPURE: [&str; 8] =
    ["tokio", "async fn", "std::fs", "std::time", "crate::clock", "crate::pipeline", "crate::http", "std::env"];
/// Backends, and the only files that may name them besides their own.
const BACKENDS: [&str; 4] = ["kafka::", "cassandra::", "log::disk", "store::disk"];
const MAY_NAME_BACKENDS: [&str; 4] = ["src/app/ports.rs", "src/app/backup.rs", "src/config.rs", "src/telemetry.rs"];

fn sources(at: &Path) -> Vec<PathBuf> {
    if at.is_file() {
        return vec![at.to_owned()];
    }
    let entries = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.flat_map(|path| sources(&path)).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// The lines of a file before its tests, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| !line.contains("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn offences(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        for line in code(path) {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}: {word}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

#[test]
fn the_pure_core_knows_no_clock_and_no_io() {
    let files: Vec<_> = PURE.iter().flat_map(|at| sources(&root().join(at))).collect();
    assert!(files.len() > 20, "the rule looks at {} files", files.len());
    // Tests of the codec stand in a file of their own.
    let files: Vec<_> = files.into_iter().filter(|path| !path.ends_with("tests.rs")).collect();
    assert_eq!(offences(&files, &IMPURE), Vec::<String>::new());
}

#[test]
fn only_the_composition_root_names_a_backend() {
    let own = |path: &Path| {
        let text = path.to_string_lossy();
        ["src/log", "src/store"].iter().any(|own| text.contains(own))
            || MAY_NAME_BACKENDS.iter().any(|file| text.ends_with(file))
    };
    let files: Vec<_> = sources(&root().join("src")).into_iter().filter(|path| !own(path)).collect();
    assert_eq!(offences(&files, &BACKENDS), Vec::<String>::new());
}

#[test]
fn every_module_says_why_it_exists() {
    let silent = |path: &PathBuf| !std::fs::read_to_string(path).unwrap().starts_with("//!");
    let silent: Vec<_> = sources(&root().join("src")).into_iter().filter(silent).collect();
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
    let tests: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let named = named_tests(&page);
    assert!(named.len() > 40, "the rule looks at {} names", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
