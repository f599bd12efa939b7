//! The data of every event type: from fields to a struct, and back.
//!
//! One file per module of structs, one [`Data`](crate::fact::Data) per struct. The permitted values of a field are
//! documented on the method that reads it. The requirements of a type are defined here and, for people and other
//! programs, in the schema of the same name under `catalog/`. The struct of each event type is in the rows of
//! [`event_types!`](crate::fact).

mod appointment;
mod login;
mod policy;
mod reminder;

pub use login::attempt;
pub(super) use login::place_data;

use serde_json::{Map, Value};

/// The members of an object that have a value: unknown values are not written.
fn present(data: Value) -> Map<String, Value> {
    let Value::Object(mut data) = data else { return Map::new() };
    data.retain(|_, value| !value.is_null());
    data
}
