//! A public type has a name of its own in the workspace, so that a name means one thing and a search finds it.

use super::{all_sources, is_test, read, root};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names that several modules use on purpose: the module in front of the name makes the difference.
const GENERIC: [(&str, &str); 9] = [
    ("Cassandra", "the backend, and what takes its place in a build without it"),
    ("Config", "the settings of each component: module::Config"),
    ("Delta", "what each fold adds to an aggregate row"),
    ("Error", "the error of each module: module::Error"),
    ("Id", "the identifier of what the module is about: module::Id"),
    ("Kafka", "the backend, and what takes its place in a build without it"),
    ("Kind", "the variants of what the module is about: module::Kind"),
    ("Log", "the port and its backends: a log on disk is disk::log::Log"),
    ("Store", "the port and its backends: a store on disk is disk::store::Store"),
];

/// The names of the public types of a file.
fn types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let item = line.trim_start().strip_prefix("pub ")?;
        let keywords = ["struct ", "enum ", "trait ", "type ", "union "];
        let rest = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
        // A macro that declares types has a variable in the place of the name.
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    })
}

/// Names of public types that occur more than once, with their files.
fn duplicates<'a>(files: impl Iterator<Item = (&'a Path, String)>) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found = BTreeMap::<String, Vec<PathBuf>>::new();
    for (path, text) in files {
        for name in types(&text) {
            let path = path.strip_prefix(root()).unwrap_or(path);
            found.entry(name.to_owned()).or_default().push(path.to_owned());
        }
    }
    found.retain(|_, files| files.len() > 1);
    found
}

/// Duplicates that the list does not allow.
fn offences(found: &BTreeMap<String, Vec<PathBuf>>) -> Vec<(&String, &Vec<PathBuf>)> {
    let is_allowed = |name: &str| GENERIC.iter().any(|(generic, _)| *generic == name);
    found.iter().filter(|(name, _)| !is_allowed(name)).collect()
}

fn sources() -> Vec<PathBuf> {
    all_sources().into_iter().filter(|path| !is_test(path)).collect()
}

#[test]
fn a_public_type_name_occurs_once() {
    let sources = sources();
    let found = duplicates(sources.iter().map(|path| (path.as_path(), read(path))));
    assert_eq!(offences(&found), [], "give one of them a name that says what it is");
    let listed = GENERIC.iter().map(|(name, _)| *name);
    let unique: Vec<_> = listed.filter(|name| !found.contains_key(*name)).collect();
    assert_eq!(unique, Vec::<&str>::new(), "remove these names from the list: they are unique now");
}

#[test]
fn the_rule_on_names_sees_a_planted_type_in_every_file() {
    for path in sources() {
        let planted = format!("{}\n    pub enum Planted<T> {{}}\n", read(&path));
        assert!(types(&planted).any(|name| name == "Planted"), "{}", path.display());
    }
    let files = ["pub struct Planted(u8);", "mod inner {\n    pub trait Planted: Send {}\n}", "pub struct Error;"];
    let found = duplicates(files.iter().map(|text| (Path::new("planted.rs"), (*text).to_owned())));
    assert_eq!(offences(&found).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Planted"]);
    let private = ["struct Planted;", "pub(crate) struct Planted;", "// pub struct Planted;", "pub fn planted() {}"];
    assert!(private.iter().all(|text| types(text).next().is_none()));
}
