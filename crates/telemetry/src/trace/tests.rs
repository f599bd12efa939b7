//! Tests that traces are carried from requests to records.

use super::*;
use foretell_events::record::Record;
use foretell_events::{Position, Topic};
use http::HeaderMap;

fn headers(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
}

#[tokio::test]
async fn a_callers_trace_is_carried_into_record_headers() {
    let headers = headers("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let (id, carried) = scope(caller(&headers), &Span::none(), &Span::none(), async {
        let mut headers = vec![("traceparent".to_owned(), Bytes::from_static(b"stale"))];
        inject(&mut headers);
        (current_id(), headers)
    })
    .await;
    assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    let context = extract(&carried);
    let span = context.span().span_context().clone();
    assert_eq!(span.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(span.span_id().to_string(), "b7ad6b7169203331", "the record's parent is this process");
    assert!(span.is_sampled());
    assert_eq!(carried.iter().filter(|(name, _)| name == "traceparent").count(), 1);
}

#[tokio::test]
async fn without_a_valid_caller_a_trace_begins() {
    for bad in ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "garbage"] {
        let id = scope(caller(&headers(bad)), &Span::none(), &Span::none(), async { current_id() }).await.unwrap();
        assert!(id.len() == 32 && id.bytes().any(|digit| digit != b'0'), "{bad:?} gave {id}");
    }
    assert_eq!(current_id(), None);
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn record(headers: Vec<Header>) -> Record {
    let position = Position { topic: Topic::Logins, partition: 1, offset: 7 };
    Record { position, timestamp_ms: 0, key: None, value: Bytes::new(), headers }
}

#[test]
fn lines_of_a_fold_name_the_trace_of_its_record_without_an_exporter() {
    assert!(!is_exporting());
    let traced = record(vec![(TRACEPARENT.into(), TRACE.into())]);
    let ids = folding("foretell", "foretell.logins", &traced, current).expect("a trace");
    assert_eq!(ids.0.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(ids.1.to_string(), "b7ad6b7169203331", "there is no span of this process");
    assert_eq!(folding("foretell", "foretell.logins", &record(Vec::new()), current), None);
    assert_eq!(current(), None);
}

#[test]
fn a_reminder_by_hand_is_in_the_trace_of_its_request_and_one_on_schedule_in_its_own() {
    let announced = |cause: &[Header], is_requested, event_id| {
        let mut headers = Vec::new();
        let span = announcing("foretell", "foretell.reminders", &extract(cause), is_requested, event_id, &mut headers);
        assert!(span.is_disabled() && headers.len() == 1, "{headers:?}");
        extract(&headers).span().span_context().clone()
    };
    let booked = [(TRACEPARENT.to_owned(), Bytes::from(TRACE))];
    let by_hand = announced(&booked, true, "a");
    assert_eq!(by_hand.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(by_hand.is_sampled() && by_hand.span_id().to_string() != "b7ad6b7169203331");
    let on_schedule = announced(&booked, false, "a");
    assert!(on_schedule.is_valid() && !on_schedule.is_sampled() && on_schedule.trace_id() != by_hand.trace_id());
    assert_eq!(announced(&[], false, "a"), on_schedule, "announced twice, it has one trace");
    assert_ne!(announced(&[], false, "b").trace_id(), on_schedule.trace_id());
    assert!(announced(&[], true, "a").is_valid(), "the trace of the request is no longer known");
}

#[test]
fn a_log_that_is_folded_again_has_spans_for_its_last_hour_alone() {
    const HOUR_MS: i64 = 3_600_000;
    let old = record(Vec::new());
    assert!(spans::is_recent(&old, HOUR_MS) && !spans::is_recent(&old, HOUR_MS + 1));
    assert!(spans::is_recent(&old, -HOUR_MS), "the clock of the log is ahead");
}

#[test]
fn spans_are_not_created_without_an_exporter() {
    let sent = http::Request::get("/v1/users/ada").body(()).unwrap();
    assert!(request(&sent, "GET", "/v1/users/{user_id}").is_disabled());
    let destination = || -> String { panic!("the name is not needed") };
    assert!(sending("foretell", destination, 1).is_disabled());
    assert!(reading("foretell", "user", 1).span().is_disabled());
}
