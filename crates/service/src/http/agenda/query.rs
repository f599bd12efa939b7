//! The query of an agenda: a window and an order, or a cursor that contains both and where the previous page ended.
//!
//! A cursor contains the window and the time of the first page, so neither a default that depends on the clock nor the
//! time between two requests changes what the next pages contain. It is not signed: it contains nothing that the caller
//! could not have requested directly, and it is validated like any other query.

use crate::http::problem::{Problem, ProblemCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foretell_events::codec::{Fault, INVALID_VALUE, TOO_LONG, parse_rfc3339};
use foretell_events::time::DAY_MS;
use foretell_events::{AHEAD_MS_MAX, ID_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Longest window.
pub(super) const WINDOW_MS_MAX: i64 = 31 * DAY_MS;
/// Maximum visits of a page, and the default.
pub(super) const LIMIT_MAX: usize = 1_000;
const LIMIT_DEFAULT: usize = 100;
/// Windows end before this time, in the year 2248, far after any start that an event can contain.
const WINDOW_MS_END: i64 = 1 << 43;

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgendaOrder {
    /// The highest risk first; of equal risks, the earliest start.
    #[default]
    Risk,
    /// The earliest start first.
    Start,
}

/// The query, as it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(in crate::http) struct Query {
    from: Option<String>,
    to: Option<String>,
    location_id: Option<String>,
    order: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Which visits, in which order; the same for all pages of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct List {
    /// Range of starts, in milliseconds since the epoch; its end is exclusive.
    pub(super) window: Range<i64>,
    /// Only visits at this location.
    pub(super) location_id: Option<String>,
    pub(super) order: AgendaOrder,
    /// The time of the first page, at which the visits of all pages are scored.
    pub(super) now_ms: i64,
}

/// The sort key of a visit; lists are in ascending order of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct SortKey {
    /// By risk: decreases as the score increases. By start: 0.
    rank: u64,
    starts_at_ms: i64,
    appointment_id: String,
    client_id: String,
}

impl SortKey {
    pub(super) fn new(
        order: AgendaOrder,
        score: f64,
        starts_at_ms: i64,
        appointment_id: &str,
        client_id: &str,
    ) -> Self {
        let rank = match order {
            // The bits of non-negative numbers increase with them.
            AgendaOrder::Risk => u64::MAX - score.max(0.0).to_bits(),
            AgendaOrder::Start => 0,
        };
        Self { rank, starts_at_ms, appointment_id: appointment_id.to_owned(), client_id: client_id.to_owned() }
    }

    /// A hash of the place; collisions are very unlikely.
    pub(super) fn digest(&self) -> u64 {
        let Self { rank, starts_at_ms, appointment_id, client_id } = self;
        let text = format!("{rank} {starts_at_ms} {} {appointment_id} {client_id}", appointment_id.len());
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

/// Where the previous page ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::http) struct Cursor {
    pub(super) list: List,
    /// The last visit that was returned.
    pub(super) last: SortKey,
    /// The places of all visits of the first page's list, as one number.
    pub(super) digest: u64,
}

impl Cursor {
    pub(in crate::http) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(foretell_domain::view::cell::encode_state(self))
    }

    pub(in crate::http) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        foretell_domain::view::cell::decode_state(&bytes).ok()
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgendaQuery {
    pub(super) list: List,
    /// Maximum number of visits.
    pub(super) limit: usize,
    /// The cursor that the page follows, if it is not the first one.
    pub(super) after: Option<Cursor>,
}

impl AgendaQuery {
    /// Parses a query at `now_ms`: 400 if a part of it cannot be parsed, 422 if it is out of bounds.
    pub(super) fn read(query: &Query, now_ms: i64) -> Result<Self, Problem> {
        let limit = limit(query.limit.as_deref())?;
        let after = query.cursor.as_deref().map(cursor).transpose()?;
        let list = match &after {
            Some(cursor) if cursor.list.now_ms > now_ms + AHEAD_MS_MAX => {
                return Err(malformed("cursor", "is not the `next` of a page"));
            }
            Some(cursor) => cursor.list.clone(),
            None => List::read(query, now_ms)?,
        };
        list.check()?;
        if let Some(cursor) = &after {
            // Parameters that are repeated must equal those of the cursor; otherwise the caller expects another list.
            let named = List::read(query, cursor.list.now_ms)?;
            let differs = [
                ("from", query.from.is_some() && named.window.start != list.window.start),
                ("to", query.to.is_some() && named.window.end != list.window.end),
                ("location_id", query.location_id.is_some() && named.location_id != list.location_id),
                ("order", query.order.is_some() && named.order != list.order),
            ];
            if let Some((name, _)) = differs.into_iter().find(|(_, differs)| *differs) {
                return Err(invalid(name, "differs from that of the cursor: omit it, or begin without a cursor"));
            }
        }
        Ok(Self { list, limit, after })
    }
}

impl List {
    fn read(query: &Query, now_ms: i64) -> Result<Self, Problem> {
        let from_ms = query.from.as_deref().map(|text| time("from", text)).transpose()?.unwrap_or(now_ms);
        let to_ms = query.to.as_deref().map(|text| time("to", text)).transpose()?.unwrap_or(from_ms + DAY_MS);
        let order = match query.order.as_deref() {
            None | Some("risk") => AgendaOrder::Risk,
            Some("start") => AgendaOrder::Start,
            Some(_) => return Err(malformed("order", "is risk or start")),
        };
        Ok(Self { window: from_ms..to_ms, location_id: query.location_id.clone(), order, now_ms })
    }

    fn check(&self) -> Result<(), Problem> {
        let Range { start, end } = self.window;
        if [start, end, self.now_ms].iter().any(|at_ms| !(0..WINDOW_MS_END).contains(at_ms)) {
            return Err(malformed("cursor", "is not the `next` of a page"));
        }
        if end <= start {
            return Err(invalid("to", "is not after from"));
        }
        if end.saturating_sub(start) > WINDOW_MS_MAX {
            return Err(invalid("to", "is more than 31 days after from"));
        }
        if self.location_id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            let detail = format!("location_id is longer than {ID_BYTES_MAX} bytes");
            return Err(Problem::invalid(vec![Fault::new("/location_id", TOO_LONG, detail)]));
        }
        Ok(())
    }
}

fn time(name: &str, text: &str) -> Result<i64, Problem> {
    // A plus sign that was not encoded arrives as a space.
    parse_rfc3339(&text.replace(' ', "+")).map_err(|fault| malformed(name, &fault.detail))
}

fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(LIMIT_DEFAULT) };
    let limit = text.parse().map_err(|_| malformed("limit", "is not a number"))?;
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(invalid("limit", "is not within 1 to 1,000")) }
}

fn cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::decode(text).ok_or_else(|| malformed("cursor", "is not the `next` of a page"))
}

fn malformed(name: &str, what: &str) -> Problem {
    Problem::new(ProblemCode::MalformedRequest, format!("{name} {what}")).at(format!("/{name}"))
}

fn invalid(name: &str, what: &str) -> Problem {
    Problem::invalid(vec![Fault::new(format!("/{name}"), INVALID_VALUE, format!("{name} {what}"))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW_MS: i64 = 1_772_359_200_000;
    const HOUR_MS: i64 = 3_600_000;

    fn read_at(pairs: &[(&str, &str)], now_ms: i64) -> Result<AgendaQuery, Problem> {
        let object: serde_json::Map<_, _> = pairs.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        AgendaQuery::read(&serde_json::from_value(object.into()).unwrap(), now_ms)
    }

    fn read(pairs: &[(&str, &str)]) -> Result<AgendaQuery, Problem> {
        read_at(pairs, NOW_MS)
    }

    #[test]
    fn what_is_not_named_is_the_next_day_by_risk() {
        let query = read(&[]).unwrap();
        let window = NOW_MS..NOW_MS + DAY_MS;
        let list = List { window, location_id: None, order: AgendaOrder::Risk, now_ms: NOW_MS };
        assert_eq!(query, AgendaQuery { list, limit: 100, after: None });
        let later = read(&[("from", "2026-03-02T00:00:00 01:00"), ("order", "start"), ("limit", "7")]).unwrap();
        let from_ms = NOW_MS + 13 * HOUR_MS;
        assert_eq!(
            (later.list.window, later.list.order, later.limit),
            (from_ms..from_ms + DAY_MS, AgendaOrder::Start, 7)
        );
    }

    #[test]
    fn bounds_are_kept() {
        let last = [("from", "2026-03-01T00:00:00Z"), ("to", "2026-04-01T00:00:00Z"), ("limit", "1000")];
        assert!(read(&last).is_ok(), "31 days, to the millisecond");
        for (pairs, code) in [
            (&[("from", "yesterday")][..], ProblemCode::MalformedRequest),
            (&[("to", "2026-03-01")], ProblemCode::MalformedRequest),
            (&[("order", "name")], ProblemCode::MalformedRequest),
            (&[("limit", "many")], ProblemCode::MalformedRequest),
            (&[("limit", "-1")], ProblemCode::MalformedRequest),
            (&[("cursor", "!")], ProblemCode::MalformedRequest),
            (&[("cursor", "AAAA")], ProblemCode::MalformedRequest),
            (&[("limit", "0")], ProblemCode::ValidationFailed),
            (&[("limit", "1001")], ProblemCode::ValidationFailed),
            (&[("to", "2026-03-01T10:00:00Z")], ProblemCode::ValidationFailed),
            (&[("from", "2026-03-01T00:00:00Z"), ("to", "2026-04-01T00:00:00.001Z")], ProblemCode::ValidationFailed),
        ] {
            assert_eq!(read(pairs).unwrap_err().code(), code, "{pairs:?}");
        }
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(read(&[("location_id", &long)]).unwrap_err().code(), ProblemCode::ValidationFailed);
    }

    #[test]
    fn a_cursor_names_its_list_and_nobody_else_may() {
        let first = read(&[("location_id", "l"), ("to", "2026-03-02T00:00:00Z")]).unwrap();
        let last = SortKey::new(AgendaOrder::Risk, 0.25, NOW_MS, "a", "c");
        let cursor = Cursor { list: first.list.clone(), last, digest: 7 };
        let next = cursor.encode();
        // A day later.
        let query = |pairs: &[(&str, &str)]| read_at(&[&[("cursor", next.as_str())], pairs].concat(), NOW_MS + DAY_MS);
        let same = query(&[("location_id", "l"), ("to", "2026-03-02T01:00:00+01:00"), ("limit", "2")]).unwrap();
        assert_eq!(same, AgendaQuery { list: first.list, limit: 2, after: Some(cursor) });
        for other in
            [("location_id", "m"), ("to", "2026-03-02T00:00:01Z"), ("from", "2026-03-01T00:00:00Z"), ("order", "start")]
        {
            assert_eq!(query(&[other]).unwrap_err().code(), ProblemCode::ValidationFailed, "{other:?}");
        }
        let before = read_at(&[("cursor", &next)], NOW_MS - AHEAD_MS_MAX - 1);
        assert_eq!(before.unwrap_err().code(), ProblemCode::MalformedRequest, "no page was ever made then");
    }

    proptest! {
        #[test]
        fn places_by_risk_begin_with_the_highest(a in 0.0..=1.0, b in 0.0..=1.0, early in 0_i64..9, late in 0_i64..9) {
            let place = |order, score, at| SortKey::new(order, score, at, "a", "c");
            let by_risk = place(AgendaOrder::Risk, a, early).cmp(&place(AgendaOrder::Risk, b, late));
            let expected = b.total_cmp(&a).then(early.cmp(&late));
            prop_assert_eq!(by_risk, expected);
            let by_start = place(AgendaOrder::Start, a, early).cmp(&place(AgendaOrder::Start, b, late));
            prop_assert_eq!(by_start, early.cmp(&late));
        }

        #[test]
        fn no_text_breaks_a_cursor(text in "[A-Za-z0-9_-]{0,80}") {
            let _ = Cursor::decode(&text);
        }
    }
}
