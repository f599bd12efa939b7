//! Records which fields a reader looks up, so that a test can compare a reader with its documentation. Not part of a
//! release build.

use super::cursor::Fields;
use super::fault::MISSING_FIELD;
use serde_json::Map;
use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    /// The names of the fields so far, while [`lookups`] runs.
    static NAMES: RefCell<Option<BTreeSet<String>>> = const { RefCell::new(None) };
}

/// Records that a field is looked up.
pub(super) fn note(name: &str) {
    NAMES.with_borrow_mut(|names| names.as_mut().map(|names| names.insert(name.to_owned())));
}

/// The names of the fields that a reader looks up in an empty object, and the names of those that it requires.
pub fn lookups<T>(read: impl FnOnce(&mut Fields<'_, '_>) -> T) -> (BTreeSet<String>, BTreeSet<String>) {
    NAMES.set(Some(BTreeSet::new()));
    let mut faults = Vec::new();
    read(&mut Fields::new(&Map::new(), "", &mut faults));
    let missing = faults.into_iter().filter(|fault| fault.code == MISSING_FIELD);
    let required = missing.map(|fault| fault.pointer.trim_start_matches('/').to_owned()).collect();
    (NAMES.take().unwrap_or_default(), required)
}
