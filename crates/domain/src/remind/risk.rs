//! The no-show risks of a client's visits, as a reminder carries them.

use crate::score::no_show::context::ScoringContext;
use crate::view::client::Client;
use crate::view::client::snapshot::Subject;
use foretell_events::reminder::Risk;
use std::collections::BTreeMap;

/// The risks of those open visits of a client that start after `now_ms`, by appointment.
pub fn risks(client: &Client, basis: &ScoringContext, now_ms: i64) -> BTreeMap<String, Risk> {
    let risk = |visit| {
        let score = basis.score(Some(client), visit, now_ms);
        Risk { score: score.score, level: score.level.name().to_owned() }
    };
    upcoming(client, now_ms).map(|(id, visit)| (id.to_owned(), risk(visit))).collect()
}

/// The open visits that start after `now_ms`.
pub fn upcoming(client: &Client, now_ms: i64) -> impl Iterator<Item = (&str, Subject<'_>)> {
    let open = client.appointments.iter().filter(|(_, visit)| visit.status.is_open());
    let visits = open.filter_map(|(id, visit)| Some((id.as_str(), visit.subject(id)?)));
    visits.filter(move |(_, visit)| visit.start.at_ms > now_ms)
}
