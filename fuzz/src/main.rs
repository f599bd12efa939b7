//! One program for all targets: linking is what takes long, and they share all of it.

#![no_main]

use foretell::fuzz::{FuzzTarget, TARGETS};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Names the target.
const VARIABLE: &str = "FORETELL_FUZZ_TARGET";

static CHOSEN: LazyLock<FuzzTarget> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("set {VARIABLE} to one of {names:?}"))
});

fuzz_target!(|bytes: &[u8]| (CHOSEN.run)(bytes));
