//! How a subscriber handles an event: this one prints a line where a real one would send a message.

use jiff::Timestamp;
use serde_json::Value;

/// The line for an event of this type; `None` for an unknown type, which a later version may add.
///
/// `data` is the same on the topic and in the stream.
pub(crate) fn line(kind: &str, data: &Value) -> Option<String> {
    let text = |field: &str| data[field].as_str().unwrap_or("-");
    let (id, appointment) = (text("reminder_id"), text("appointment_id"));
    match kind {
        "foretell.reminder.due" => {
            // A subscriber that was offline must not remind people of visits that are over.
            let is_late = text("expires_at").parse::<Timestamp>().is_ok_and(|expires| Timestamp::now() > expires);
            let what = if is_late { "expired" } else { "due" };
            let (starts, zone, step) = (text("local_start"), text("time_zone"), text("step"));
            // In the client's order of preference: if the first fails, use the next.
            let channels = data["channels"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let channels = channels.collect::<Vec<_>>().join(",");
            Some(format!("{what} {id} {appointment} {step} {starts} {zone} by {channels}"))
        }
        // Do not send it; if it was sent, send a cancellation.
        "foretell.reminder.withdrawn" => Some(format!("withdrawn {id} {appointment} {}", text("reason"))),
        _ => None,
    }
}
