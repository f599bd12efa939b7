//! Schemas and examples of the catalog, and records that carry such events.

use foretell_events::catalog::Type;
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Position, key};
use jsonschema::Validator;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../catalog"))
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

pub(crate) fn examples(known: &Type) -> Vec<(String, Value)> {
    let folder = root().join("examples").join(known.name);
    let read = |path: PathBuf| (path.display().to_string(), serde_json::from_slice(&std::fs::read(&path).unwrap()));
    files(&folder).into_iter().map(read).map(|(path, value)| (path, value.unwrap())).collect()
}

pub(crate) fn schema(known: &Type) -> Value {
    serde_json::from_str(known.schema).unwrap_or_else(|error| panic!("{}: {error}", known.name))
}

pub(crate) fn validator(known: &Type) -> Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(known)).unwrap()
}

pub(crate) fn stored(new: NewRecord, timestamp_ms: i64) -> Record {
    let partition = key::partition(new.key.as_deref().unwrap_or_default(), 8);
    let position = Position { topic: new.topic, partition, offset: 0 };
    Record { position, timestamp_ms, key: new.key, value: new.value, headers: new.headers }
}

/// The example without the value at this JSON pointer.
pub(crate) fn without(example: &Value, place: &str) -> Value {
    let mut damaged = example.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    match damaged.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.remove(name)),
        Value::Array(list) => drop(list.remove(name.parse::<usize>().unwrap())),
        other => panic!("{other}"),
    }
    damaged
}
