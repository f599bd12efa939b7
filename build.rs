//! Gives the program the commit that it is built from, for `src/version.rs`.
#![allow(clippy::print_stdout, reason = "the way to talk to cargo")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FORETELL_COMMIT");
    let named = std::env::var("FORETELL_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = named.or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=FORETELL_BUILD_COMMIT={commit}");
}

/// The commit of the checkout that this is; none in an archive or an image's build, which have no repository.
fn checked_out() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    // An unpacked archive may be inside of another repository.
    if Path::new(&top).canonicalize().ok()? != Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()? {
        return None;
    }
    // Every commit, checkout and rebase adds a line to the log of HEAD. A path that does not exist would always be new.
    let logged = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&logged).exists() {
        println!("cargo::rerun-if-changed={logged}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
