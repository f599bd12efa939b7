//! The row of a client has a limit, whatever happens to its visits.

use crate::build::{DAY, HOUR, appointments, booking, event};
use foretell_domain::view::Limits;
use foretell_domain::view::cell::encode_state;
use foretell_events::appointment::{AppointmentFact, Channel, Scalar, StartsAt};
use foretell_events::reminder::Feedback;

/// The size of one visit without its receipts, with four attributes.
const VISIT_BYTES_MAX: usize = 300;

/// A client with more visits than are kept, each with long ids, moved and reminded again and again.
#[test]
fn the_row_of_a_client_with_many_visits_stays_within_its_bounds() {
    const CLIENT_BYTES_MAX: usize = 256 * 1024;
    let mut views = appointments([]);
    for visit in 0..270_i64 {
        let id = format!("00000000-0000-4000-8000-{visit:012}");
        let start_ms = (1 + visit) * DAY;
        let mut booking = booking(&id, start_ms, Some("Europe/Dublin"));
        booking.service = Some("check-up".into());
        booking.attributes = (0..4).map(|n| (format!("name {n}"), Scalar::Number(1.5 * f64::from(n)))).collect();
        views.fold(&event(visit, AppointmentFact::Booked(Box::new(booking.clone())).into()));
        for time in 1..20 {
            booking.starts_at = StartsAt::Instant { at_ms: start_ms + time * HOUR, zone: None };
            views.fold(&event(visit + time, AppointmentFact::Rescheduled(Box::new(booking.clone())).into()));
            let feedback = Feedback {
                reminder_id: format!("{time:032}"),
                appointment_id: id.clone(),
                client_id: "c".into(),
                channel: Some(Channel::Sms),
                reason: None,
            };
            views.fold(&event(visit + time, AppointmentFact::ReminderDelivered(Box::new(feedback)).into()));
        }
    }
    let client = views.client("c");
    assert_eq!(client.appointments.len(), Limits::default().client_appointments_max);
    let (key, _, largest) = views.rows.states().max_by_key(|(.., state)| state.len()).unwrap();
    assert!(largest.len() <= CLIENT_BYTES_MAX, "{key:?} has {} bytes", largest.len());
    let visit = client.appointments.first_key_value().unwrap().1;
    let mut plain = visit.clone();
    plain.receipts.clear();
    plain.placements = Default::default();
    let bytes = encode_state(&plain).len();
    assert!(bytes <= VISIT_BYTES_MAX, "{bytes} bytes");
}
