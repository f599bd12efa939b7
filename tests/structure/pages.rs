//! CONTRIBUTING.md names the files that an addition touches. The files, test programs and crates that it names must
//! exist, so a commit that moves one of them also changes the page.

use super::{read, root};
use std::path::{Path, PathBuf};

/// Files and folders that an addition creates: paths with one of these are examples.
const EXAMPLES: [&str; 3] = ["NAME", "NEW", "foretell.appointment.noted"];
/// How names of files end.
const ENDINGS: [&str; 8] = [".rs", ".toml", ".json", ".jsonl", ".md", ".txt", ".cql", "/"];
/// Folders that contain files which the page may name by the end of their path.
const FOLDERS: [&str; 10] =
    ["benches", "catalog", "crates", "docs", "fuzz", "helm", "migrations", "scripts", "src", "tests"];

/// The spans of code in a page, and the lines of its blocks of shell commands.
fn spans(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        match part.strip_prefix("sh\n") {
            Some(commands) if number % 2 == 1 => found.extend(commands.lines()),
            _ if number % 2 == 1 => {}
            _ => found.extend(part.split('`').skip(1).step_by(2)),
        }
    }
    found
}

/// Whether a path begins at the root. Other paths are the ends of such paths.
fn is_rooted(span: &str) -> bool {
    FOLDERS.iter().any(|folder| span.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether a span is the path of a file or folder, and not of an example.
fn is_path(span: &str) -> bool {
    let is_plain = span.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    let is_example = EXAMPLES.iter().any(|example| span.contains(example));
    is_plain && !is_example && (is_rooted(span) || ENDINGS.iter().any(|ending| span.ends_with(ending)))
}

/// All files and folders, with their paths from the root.
fn paths() -> Vec<PathBuf> {
    fn collect(at: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            }
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    let mut found = Vec::new();
    FOLDERS.iter().for_each(|folder| collect(&root().join(folder), &mut found));
    found
}

/// The words of a command that follow an option.
fn values<'a>(command: &'a str, option: &'a str) -> impl Iterator<Item = &'a str> {
    let words = command.split('#').next().unwrap_or_default().split_whitespace();
    words.clone().zip(words.skip(1)).filter(move |(word, _)| *word == option).map(|(_, value)| value)
}

/// What a page names and what does not exist.
fn missing(page: &str) -> Vec<String> {
    let paths = paths();
    let is_end = |span: &str| !is_rooted(span) && paths.iter().any(|path| path.ends_with(span));
    let exists = |span: &str| root().join(span).exists() || is_end(span);
    let mut missing = Vec::new();
    for span in spans(page) {
        if is_path(span) && !exists(span) {
            missing.push(span.to_owned());
        }
        if !span.starts_with("cargo test") {
            continue;
        }
        let is_program = |name: &str| {
            let ends = [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")];
            paths.iter().any(|path| ends.iter().any(|end| path.ends_with(end)))
        };
        missing.extend(values(span, "--test").filter(|name| !is_program(name)).map(|name| format!("--test {name}")));
        let is_crate =
            |name: &str| name.strip_prefix("foretell-").is_some_and(|name| exists(&format!("crates/{name}")));
        missing.extend(values(span, "-p").filter(|name| !is_crate(name)).map(|name| format!("-p {name}")));
    }
    missing
}

fn page() -> String {
    read(&root().join("CONTRIBUTING.md"))
}

#[test]
fn the_changelog_states_the_version_of_the_fold() {
    let (changelog, version) = (read(&root().join("CHANGELOG.md")), foretell_domain::view::FOLD_VERSION);
    let is_stated = |version| changelog.contains(&format!("Version {version} of the fold: "));
    assert!(
        is_stated(version),
        "version {version} of the fold is not in CHANGELOG.md: people must rebuild their views"
    );
    assert!(!is_stated(version + 1), "CHANGELOG.md announces a version of the fold that does not exist");
}

#[test]
fn contributing_names_files_programs_and_crates_that_exist() {
    let page = page();
    let named = spans(&page).into_iter().filter(|span| is_path(span)).count();
    assert!(named > 40, "the rule reads {named} paths");
    assert_eq!(missing(&page), Vec::<String>::new());
}

#[test]
fn the_rule_on_pages_sees_a_planted_path_in_every_section() {
    let page = page();
    for (fault, seen) in [
        ("`crates/domain/src/planted.rs`", "crates/domain/src/planted.rs"),
        ("`view/planted.rs`", "view/planted.rs"),
        ("`planted.toml`", "planted.toml"),
        ("`tests/view.rs`", "tests/view.rs"),
        ("`scripts/planted`", "scripts/planted"),
        ("`cargo test --test planted x`", "--test planted"),
        ("`cargo test -p foretell-planted`", "-p foretell-planted"),
        ("\n\n```sh\ncargo test --test planted # x\n```\n\n", "--test planted"),
    ] {
        for (at, _) in page.match_indices("\n\n## ") {
            let planted = format!("{}\n\n{fault}{}", &page[..at], &page[at..]);
            assert_eq!(missing(&planted), [seen], "{fault} before {}", &page[at..].lines().nth(2).unwrap());
        }
    }
    for harmless in ["`view/NEW.rs`", "`rows(view) = fold(log)`", "`POST /admin/jobs/NAME`", "`cargo test --lib fuzz`"]
    {
        assert_eq!(missing(harmless), Vec::<String>::new(), "{harmless}");
    }
}
