//! A JSON Patch (RFC 6902), applied to an event within bounds.
//!
//! The parser bounds how deep a patch nests, but not what its operations build: `copy` can put a value into itself,
//! twice as deep and twice as large each time, so that ten operations make an event too deep for the stack of any code
//! that clones, writes or drops it. So operations are applied one at a time, and the value that each would add to the
//! event is measured first.

use foretell_events::record::RECORD_BYTES_MAX;
use json_patch::{Patch, PatchError, PatchOperation};
use serde_json::Value;

/// Most operations of a patch.
pub(crate) const OPERATIONS_MAX: usize = 256;
/// Deepest nesting of an event that an operation has changed, in levels: the limit of the JSON parser.
pub const LEVELS_MAX: usize = 127;
/// Most bytes that all operations together add to the event, including moved and copied values.
pub(crate) const PUT_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// The patch, or the event that would result, exceeds a limit.
pub(crate) const PATCH_TOO_LARGE: &str = "PATCH_TOO_LARGE";

/// Why a patch is not applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has more than [`OPERATIONS_MAX`] operations.
    #[error("{PATCH_TOO_LARGE}: it has {0} operations; at most {OPERATIONS_MAX} are allowed: split it")]
    Operations(usize),
    /// The event would nest deeper than [`LEVELS_MAX`].
    #[error("{PATCH_TOO_LARGE}: operation /{0} would nest the event deeper than {LEVELS_MAX} levels")]
    Deep(usize),
    /// The operations put more than [`PUT_BYTES_MAX`] into the event.
    #[error("{PATCH_TOO_LARGE}: the operations up to /{0} would add more than {PUT_BYTES_MAX} bytes to the event")]
    Large(usize),
    /// It does not fit the event.
    #[error(transparent)]
    Unfit(PatchError),
}

/// Applies a patch. After an error the event is partly changed.
///
/// # Errors
/// The first operation that does not fit the event or would go beyond a bound.
pub fn apply(event: &mut Value, patch: &Patch) -> Result<(), Error> {
    if patch.0.len() > OPERATIONS_MAX {
        return Err(Error::Operations(patch.0.len()));
    }
    let mut left_bytes = PUT_BYTES_MAX;
    for (index, operation) in patch.0.iter().enumerate() {
        if let Some(value) = put(event, operation) {
            let levels = measure(value, &mut left_bytes).ok_or(Error::Large(index))?;
            if operation.path().tokens().count() + levels > LEVELS_MAX {
                return Err(Error::Deep(index));
            }
        }
        json_patch::patch(event, std::slice::from_ref(operation))
            .map_err(|error| Error::Unfit(numbered(error, index)))?;
    }
    Ok(())
}

/// The error of an operation that was applied separately, with its position in the patch.
const fn numbered(mut error: PatchError, operation: usize) -> PatchError {
    error.operation = operation;
    error
}

/// The value that an operation puts at its path, if it puts one there.
fn put<'v>(event: &'v Value, operation: &'v PatchOperation) -> Option<&'v Value> {
    match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Copy(copy) => event.pointer(copy.from.as_str()),
        PatchOperation::Move(moved) => event.pointer(moved.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    }
}

/// Levels of lists and objects in a value, whose bytes are subtracted from `left_bytes`; none if they exceed it.
///
/// A value counts its texts and names, and two bytes more: JSON has no fewer. This function does not recurse.
fn measure(value: &Value, left_bytes: &mut usize) -> Option<usize> {
    let mut deepest = 0;
    let mut waiting = vec![(value, 1)];
    while let Some((value, level)) = waiting.pop() {
        let mut bytes = 2;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => bytes += text.len(),
            Value::Array(list) => {
                deepest = deepest.max(level);
                waiting.extend(list.iter().map(|value| (value, level + 1)));
            }
            Value::Object(object) => {
                deepest = deepest.max(level);
                bytes += object.keys().map(String::len).sum::<usize>();
                waiting.extend(object.values().map(|value| (value, level + 1)));
            }
        }
        *left_bytes = left_bytes.checked_sub(bytes)?;
    }
    Some(deepest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(operations: Value) -> Result<Value, Error> {
        let mut event = json!({"id": "e", "data": {"user_id": "u", "list": [1, {"a": null}]}});
        apply(&mut event, &serde_json::from_value(operations).unwrap()).map(|()| event)
    }

    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }

    #[test]
    fn operations_are_applied_in_their_order() {
        let done = patched(json!([
            {"op": "test", "path": "/id", "value": "e"},
            {"op": "copy", "from": "/data/user_id", "path": "/data/before"},
            {"op": "replace", "path": "/data/user_id", "value": "ada"},
            {"op": "move", "from": "/data/list/1", "path": "/data/list/0"},
            {"op": "remove", "path": "/data/list/1"},
        ]));
        assert_eq!(done.unwrap(), json!({"id": "e", "data": {"user_id": "ada", "before": "u", "list": [{"a": null}]}}));
        let error = patched(json!([
            {"op": "test", "path": "/id", "value": "e"},
            {"op": "move", "from": "/nowhere", "path": "/data/x"},
        ]));
        assert!(matches!(&error, Err(Error::Unfit(error)) if error.operation == 1), "{error:?}");
    }

    /// Each copy doubles the depth: eight of them would make 16,000 levels.
    #[test]
    fn copies_of_a_value_into_itself_do_not_nest_beyond_the_parser() {
        let deep = nested(120);
        let place = |levels: usize| format!("/data/deep{}", "/0".repeat(levels - 1) + "/-");
        let mut operations = vec![json!({"op": "add", "path": "/data/deep", "value": deep})];
        let mut levels = 120;
        for _ in 0..8 {
            operations.push(json!({"op": "copy", "from": "/data/deep", "path": place(levels)}));
            levels *= 2;
        }
        let error = patched(Value::Array(operations)).unwrap_err();
        assert!(matches!(error, Error::Deep(1)), "{error}");
        assert!(error.to_string().starts_with(PATCH_TOO_LARGE), "{error}");
    }

    #[test]
    fn an_event_is_as_deep_as_a_parser_reads_and_no_deeper() {
        for (levels, path, fits) in
            [(126, "/deep", true), (127, "/deep", false), (125, "/data/deep", true), (126, "/data/deep", false)]
        {
            for op in ["add", "replace", "copy", "move"] {
                // Added to a list of no depth, in place of what is replaced; copies and moves come from the root.
                let mut event = json!({"deep": [], "data": {"deep": []}});
                event["from"] = nested(levels);
                let operation = match op {
                    "copy" | "move" => json!({"op": op, "from": "/from", "path": path}),
                    _ => json!({"op": op, "path": path, "value": nested(levels)}),
                };
                let patch: Patch = serde_json::from_value(json!([operation])).unwrap();
                let done = apply(&mut event, &patch);
                assert_eq!(done.is_ok(), fits, "{op} of {levels} levels at {path}: {done:?}");
                if fits {
                    serde_json::from_slice::<Value>(&serde_json::to_vec(&event).unwrap()).unwrap();
                }
            }
        }
    }

    #[test]
    fn copies_do_not_grow_an_event_without_end() {
        let mut operations = vec![json!({"op": "add", "path": "/data/list/-", "value": "x".repeat(1_000)})];
        operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/data/list", "path": "/data/list/0"})));
        let error = patched(Value::Array(operations)).unwrap_err();
        assert!(matches!(error, Error::Large(9..=11)), "{error}");
        let many = vec![json!({"op": "test", "path": "/id", "value": "e"}); OPERATIONS_MAX + 1];
        assert!(patched(Value::Array(many[1..].to_vec())).is_ok());
        assert!(matches!(patched(Value::Array(many)), Err(Error::Operations(257))));
    }

    proptest! {
        /// For any operations, the result can be written and read again.
        #[test]
        fn what_a_patch_makes_is_read_again(
            operations in prop::collection::vec((0..4_usize, 0..6_usize, 0..6_usize, 0..125_usize), 0..40),
        ) {
            const PLACES: [&str; 6] = ["/a", "/a/0", "/a/0/0", "/a/-", "/b", "/b/0"];
            let mut event = json!({"a": [[]], "b": []});
            for (kind, from, to, levels) in operations {
                let operation = match kind {
                    0 => json!({"op": "add", "path": PLACES[to], "value": nested(levels)}),
                    1 => json!({"op": "move", "from": PLACES[from], "path": PLACES[to]}),
                    _ => json!({"op": "copy", "from": PLACES[from], "path": PLACES[to]}),
                };
                let _ = apply(&mut event, &serde_json::from_value(json!([operation])).unwrap());
                if event.to_string().len() > 100_000 {
                    break;
                }
            }
            prop_assert_eq!(serde_json::from_slice::<Value>(&serde_json::to_vec(&event).unwrap()).unwrap(), event);
        }
    }
}
