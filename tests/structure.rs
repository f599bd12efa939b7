//! Rules of the layout that the compiler does not check: which files do no I/O, who names a backend, and that each
//! guarantee names its test. Each rule is itself tested: it must detect a planted fault in every file that it covers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "structure/names.rs"]
mod names;
#[path = "structure/pages.rs"]
mod pages;
#[path = "structure/publics.rs"]
mod publics;
#[path = "structure/signatures.rs"]
mod signatures;
#[path = "structure/words.rs"]
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates, and the only crates of this workspace that each may depend on. The binary may depend on all of them.
const WALLS: [(&str, &[&str]); 11] = [
    ("events", &[]),
    ("domain", &["events"]),
    ("ports", &["domain", "events"]),
    ("telemetry", &["events", "ports"]),
    ("disk", &["domain", "events", "ports", "telemetry"]),
    ("kafka", &["domain", "events", "ports", "telemetry"]),
    ("cassandra", &["domain", "events", "ports", "telemetry"]),
    ("enrich", &["events", "ports", "telemetry"]),
    ("engine", &["domain", "enrich", "events", "ports", "telemetry"]),
    ("service", &["domain", "engine", "enrich", "events", "ports", "telemetry"]),
    ("lab", &["domain", "enrich", "events", "ports"]),
];
/// Crates that compute and do nothing else.
const PURE: [&str; 2] = ["events", "domain"];
/// What they must not name outside of their tests: clocks, randomness, files, the network, the environment, threads.
/// Runtimes, loggers and recorders of metrics are kept out by their manifests.
const IMPURE: [&str; 10] = [
    "async fn",
    "Instant::now",
    "new_v4",
    "now_v7",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "std::process",
    "std::thread",
    "SystemTime",
];
/// Packages that no pure crate may need, in addition to those that compile or link C: runtimes.
const HEAVY: [&str; 4] = ["tokio", "async-trait", "tracing", "metrics"];
/// Packages that compile C, or find it on the machine.
const COMPILES_C: [&str; 4] = ["cc", "cmake", "pkg-config", "bindgen"];
/// The only crates of this workspace that need C, with their tests.
const IN_C: [&str; 2] = ["kafka", "cassandra"];
/// Backends, and the only files of the binary that may name them.
const BACKENDS: [&str; 3] = ["foretell_disk::", "foretell_kafka::", "foretell_cassandra::"];
const MAY_NAME_BACKENDS: [&str; 6] = [
    "src/app/ports.rs",
    "src/app/ports/cassandra.rs",
    "src/app/ports/kafka.rs",
    "src/app/backup.rs",
    "src/config/clusters.rs",
    "src/fuzz.rs",
];

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

/// The folders of the crates, sorted by name.
fn crates() -> Vec<PathBuf> {
    let mut crates: Vec<_> =
        std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.sort();
    crates
}

/// All sources: those of the binary and of every crate.
fn all_sources() -> Vec<PathBuf> {
    [root().to_owned()].iter().chain(&crates()).flat_map(|folder| sources(&folder.join("src"))).collect()
}

/// The files of all test programs: those of the binary and of every crate.
fn test_programs() -> Vec<PathBuf> {
    let folders = [root().to_owned()].into_iter().chain(crates()).map(|folder| folder.join("tests"));
    folders.filter(|folder| folder.exists()).flat_map(|folder| sources(&folder)).collect()
}

/// Whether a file is a test module of its own, such as `codec/tests.rs`.
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
            let is_last = |rest: &str| rest == "}" || (!rest.starts_with(' ') && rest.ends_with(';'));
            let closing = |line: &&str| line.get(indent..).is_some_and(is_last);
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
        if let Some(word) = word {
            found.push(format!("{}: {word}: {}", path.display(), line.trim()));
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn pure_files() -> Vec<PathBuf> {
    let folders = PURE.map(|name| root().join("crates").join(name).join("src"));
    // What the fuzzer drives is a test.
    folders.iter().flat_map(|folder| sources(folder)).filter(|path| !is_test(path)).collect()
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
                assert!(seen > 0, "the rule does not see {word} in {}", path.display());
            }
        }
    }
}

/// The crates of this workspace that a manifest lists before its `[dev-dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let names = manifest.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    names.filter_map(|name| name.strip_prefix("foretell-")).map(str::to_owned).collect()
}

#[test]
fn crates_depend_on_those_below_them_alone() {
    let crates = crates();
    let names: Vec<_> = crates.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let mut walls = WALLS.to_vec();
    walls.sort_unstable();
    assert_eq!(names, walls.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, allowed) in walls {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        let used = dependencies(&manifest);
        let used: Vec<_> = used.iter().map(String::as_str).collect();
        assert_eq!(
            used.iter().filter(|used| !allowed.contains(used)).collect::<Vec<_>>(),
            Vec::<&&str>::new(),
            "{name}"
        );
        let planted = manifest.replace("[dependencies]\n", "[dependencies]\nforetell-planted.workspace = true\n");
        assert!(dependencies(&planted).contains(&"planted".to_owned()), "the rule reads the manifest of {name}");
    }
}

/// The names of all packages that a crate needs, through these kinds of dependencies.
fn packages(name: &str, edges: &str) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--edges", edges, "--prefix", "none", "--format", "{p}"]);
    let output = cargo.args(["--package", &format!("foretell-{name}")]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_heavy(package: &str) -> bool {
    HEAVY.contains(&package) || COMPILES_C.contains(&package) || package.ends_with("-sys")
}

#[test]
fn the_pure_crates_need_no_runtime_and_no_c_compiler() {
    for name in PURE {
        let packages = packages(name, "normal,build");
        assert!(packages.len() > 50, "{name} needs {} packages", packages.len());
        assert_eq!(packages.iter().filter(|package| is_heavy(package)).collect::<Vec<_>>(), Vec::<&String>::new());
    }
    // The rule sees both where they are needed.
    let packages = packages("kafka", "normal,build");
    assert!(packages.iter().any(|package| package == "tokio") && packages.iter().any(|name| name == "rdkafka-sys"));
}

#[test]
fn the_tests_of_crates_without_a_backend_in_c_need_no_c_compiler() {
    for (name, _) in WALLS {
        let packages = packages(name, "normal,build,dev");
        let compilers: Vec<_> = packages.iter().filter(|package| COMPILES_C.contains(&package.as_str())).collect();
        assert_eq!(!compilers.is_empty(), IN_C.contains(&name), "{name}: {compilers:?}");
    }
}

#[test]
fn the_pure_crates_have_no_clock_and_no_io() {
    let files = pure_files();
    for file in
        ["events/src/lib.rs", "domain/src/view.rs", "domain/src/score/login.rs", "domain/src/remind/plan/step.rs"]
    {
        assert!(files.contains(&root().join("crates").join(file)), "{file}");
    }
    no_file_names(&files, &IMPURE);
}

#[test]
fn only_the_composition_names_a_backend() {
    let own = |path: &PathBuf| {
        ["disk", "kafka", "cassandra"].iter().any(|own| path.starts_with(root().join("crates").join(own)))
    };
    let may = |path: &PathBuf| MAY_NAME_BACKENDS.iter().any(|file| *path == root().join(file));
    let files: Vec<_> = all_sources().into_iter().filter(|path| !own(path) && !may(path)).collect();
    no_file_names(&files, &BACKENDS);
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
    use super::*;
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
    let silent: Vec<_> = all_sources().into_iter().filter(is_silent).collect();
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
    let tests: String = all_sources().iter().chain(&test_programs()).map(|path| read(path)).collect();
    let named = named_tests(&page);
    assert!(named.len() > 40, "the rule reads {} names", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
