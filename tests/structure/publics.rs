//! `pub` means that another crate uses it: functions and constants that only their own crate names are `pub(crate)`, so
//! that the compiler reports the ones that nothing uses.

use super::{all_sources, read, root, sources, test_programs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where uses are looked for in addition to crates, the binary and their test programs.
const USERS: [&str; 2] = ["benches", "fuzz"];

/// The name of the crate that a file is a source of. Other files, such as those of test programs, use crates as another
/// crate does.
fn crate_of(path: &Path) -> Option<String> {
    let parts: Vec<_> = path.strip_prefix(root().join("crates")).ok()?.iter().map(|part| part.to_str()).collect();
    match parts[..] {
        [Some(name), Some("src"), ..] => Some(name.to_owned()),
        _ => None,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names of the public functions and constants of a file.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.trim_start().strip_prefix("pub ")?.split_whitespace().peekable();
        while words.next_if(|word| matches!(*word, "async" | "unsafe")).is_some() {}
        let name = match words.next()? {
            "fn" | "static" => words.next()?,
            "const" => match words.next()? {
                "fn" => words.next()?,
                name => name,
            },
            _ => return None,
        };
        name.split(|c| !is_word(c)).next().filter(|name| !name.is_empty() && *name != "$constant")
    })
}

/// Public items whose name occurs in no other crate.
fn unused(files: &[(PathBuf, String)]) -> Vec<String> {
    let mut users = BTreeMap::<&str, BTreeSet<Option<String>>>::new();
    for (path, text) in files {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for word in code.flat_map(|line| line.split(|c| !is_word(c))).filter(|word| !word.is_empty()) {
            let owners = users.entry(word).or_default();
            owners.insert(crate_of(path));
        }
    }
    let crates = files.iter().filter(|(path, _)| crate_of(path).is_some());
    let found = crates.flat_map(|(path, text)| items(text).map(move |name| (path, name)));
    found
        .filter(|(path, name)| users[name].iter().all(|user| *user == crate_of(path)))
        .map(|(path, name)| format!("{}: {name}", path.display()))
        .collect()
}

fn files() -> Vec<(PathBuf, String)> {
    let others = USERS.iter().flat_map(|folder| sources(&root().join(folder)));
    all_sources().into_iter().chain(test_programs()).chain(others).map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn a_public_function_or_constant_is_used_outside_of_its_crate() {
    assert_eq!(unused(&files()), Vec::<String>::new());
}

#[test]
fn the_rule_sees_an_item_that_only_its_crate_uses() {
    let mut files = files();
    let path = root().join("crates/domain/src/view.rs");
    // Put together, so that this file does not use it.
    let name = ["only", "here"].concat();
    for item in ["pub fn", "    pub async fn", "pub const fn", "pub const"] {
        files.push((path.clone(), format!("{item} {name}() {{}}\nfn user() {{ {name}() }}\n")));
        assert_eq!(unused(&files), [format!("{}: {name}", path.display())], "{item}");
        files.push((root().join("crates/lab/src/train.rs"), format!("fn user() {{ {name}() }}")));
        assert_eq!(unused(&files), Vec::<String>::new(), "another crate uses it");
        files.truncate(files.len() - 2);
    }
}
