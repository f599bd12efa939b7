//! What a subscriber does with an event: here it prints a line, where another one would send a message.

use jiff::Timestamp;
use serde_json::Value;

/// The line for an event of this type; none for a type that is not known, which may come with a later version.
///
/// `data` is the same on the topic and in the stream.
pub(crate) fn line(kind: &str, data: &Value) -> Option<String> {
    let text = |field: &str| data[field].as_str().unwrap_or("-");
    let (id, appointment) = (text("reminder_id"), text("appointment_id"));
    match kind {
        "foretell.reminder.due" => {
            // Whoever was away for long must not tell people of visits that are over.
            let is_late = text("expires_at").parse::<Timestamp>().is_ok_and(|expires| Timestamp::now() > expires);
            let what = if is_late { "expired" } else { "due" };
            let (starts, zone, step) = (text("local_start"), text("time_zone"), text("step"));
            // In the order in which the client prefers them: the next one, where the first fails.
            let channels = data["channels"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let channels = channels.collect::<Vec<_>>().join(",");
            Some(format!("{what} {id} {appointment} {step} {starts} {zone} by {channels}"))
        }
        // Not to be sent any more; or, if it was, to be taken back by another message.
        "foretell.reminder.withdrawn" => Some(format!("withdrawn {id} {appointment} {}", text("reason"))),
        _ => None,
    }
}
