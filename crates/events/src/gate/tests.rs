//! Which events each way in rejects, as a table; unknown fields are limited and known ones kept.

use super::*;
use crate::codec::{
    DUPLICATE_MEMBER, Defaults, INVALID_NAME, MALFORMED_JSON, TIME_IN_FUTURE, UNSUPPORTED_CONTENT_TYPE, WRONG_TYPE,
    decode, decode_structured, rfc3339,
};
use crate::{AHEAD_MS_MAX, Position};
use proptest::prelude::*;
use serde_json::json;

const NOW_MS: i64 = 1_772_359_200_000;

fn parsed(change: impl FnOnce(&mut Value)) -> Parsed {
    let mut event = json!({
        "specversion": "1.0", "id": "e", "source": "urn:t", "type": "foretell.login.succeeded", "tenant": "acme",
        "time": rfc3339(NOW_MS), "data": {"user_id": "u", "ip": "192.0.2.1", "country": "IE"},
    });
    change(&mut event);
    decode_structured(&event, Defaults { tenant: "default", time_ms: NOW_MS }).unwrap()
}

fn codes(refused: Result<(), Faults>) -> Vec<&'static str> {
    refused.err().map(Faults::into_vec).unwrap_or_default().iter().map(|fault| fault.code).collect()
}

#[test]
fn each_way_in_refuses_what_it_must_and_nothing_else() {
    let caller = GateContext { now_ms: NOW_MS, tenant: Some("acme"), sender: Sender::Caller };
    let stranger = GateContext { tenant: Some("other"), ..caller };
    let operator = GateContext::of_operator(NOW_MS);
    let of_file = |topic| GateContext { sender: Sender::Operator { topic: Some(topic) }, ..operator };
    let foretell = GateContext { sender: Sender::Foretell, ..operator };
    let reminder = json!({"reminder_id": "r", "appointment_id": "a", "client_id": "c", "reason": "cancelled"});
    let set = |pointer: &str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        parsed(|event| event.pointer_mut(parent).unwrap()[name] = value)
    };
    let withdrawn = parsed(|event| {
        event["type"] = json!("foretell.reminder.withdrawn");
        event["data"] = reminder;
    });
    for (name, parsed, [of_caller, of_stranger, of_operator, of_producer]) in [
        ("plain", parsed(|_| {}), [&[][..], &[TENANT_MISMATCH], &[], &[]]),
        (
            "ahead",
            set("/time", json!(rfc3339(NOW_MS + AHEAD_MS_MAX + 1))),
            [&[TIME_IN_FUTURE], &[TENANT_MISMATCH, TIME_IN_FUTURE], &[TIME_IN_FUTURE], &[]],
        ),
        (
            "no country",
            set("/data/country", json!("QQ")),
            [&[INVALID_VALUE], &[TENANT_MISMATCH, INVALID_VALUE], &[INVALID_VALUE], &[INVALID_VALUE]],
        ),
        (
            "the API's source",
            set("/source", json!(API_SOURCE)),
            [&[RESERVED_SOURCE], &[TENANT_MISMATCH, RESERVED_SOURCE], &[], &[]],
        ),
        (
            "in other letters",
            set("/source", json!("URN:Foretell:Reminders")),
            [&[RESERVED_SOURCE], &[TENANT_MISMATCH, RESERVED_SOURCE], &[], &[]],
        ),
        ("a longer one", set("/source", json!("urn:foretell:api/2")), [&[], &[TENANT_MISMATCH], &[], &[]]),
        ("the planner's", withdrawn, [&[NOT_ACCEPTED], &[TENANT_MISMATCH, NOT_ACCEPTED], &[NOT_ACCEPTED], &[]]),
    ] {
        assert_eq!(codes(caller.check(&parsed.event)), of_caller, "{name}, of its caller");
        assert_eq!(codes(stranger.check(&parsed.event)), of_stranger, "{name}, of another tenant");
        assert_eq!(codes(operator.check(&parsed.event)), of_operator, "{name}, of an operator");
        assert_eq!(codes(of_file(Topic::Logins).check(&parsed.event)), of_operator, "{name}, in a file of logins");
        let elsewhere = codes(of_file(Topic::Appointments).check(&parsed.event));
        assert_eq!(elsewhere.first(), Some(&NOT_ACCEPTED), "{name}, in a file of appointments");
        let others: Vec<_> = of_operator.iter().copied().filter(|code| *code != NOT_ACCEPTED).collect();
        assert_eq!(codes(foretell.check(&parsed.event)), others, "{name}, of Foretell itself");
        assert_eq!(
            codes(record(&written(codec::encode_parsed(&parsed))).map(drop)),
            of_producer,
            "{name}, of a producer"
        );
    }
}

/// A record in the log is read as it was accepted; one that a producer writes now must be strictly valid.
#[test]
fn a_producers_record_is_held_to_what_any_event_is_that_comes_in() {
    let plain = || written(codec::encode_parsed(&parsed(|_| {})));
    let with = |change: &dyn Fn(&mut Record)| {
        let mut record = plain();
        change(&mut record);
        record
    };
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec().into());
    let data = |text: &str| with(&|record| record.value = text.to_owned().into());
    let structured = |text: &str| {
        with(&|record| {
            record.headers = vec![header("content-type", b"application/cloudevents+json")];
            record.value = text.to_owned().into();
        })
    };
    let typed = |content_type: &[u8]| {
        with(&|record| {
            record.headers.retain(|(name, _)| name != "content-type");
            record.headers.push(header("content-type", content_type));
        })
    };
    let event = codec::structured_event(&parsed(|_| {})).to_string();
    for (name, record, kept, incoming) in [
        ("plain", plain(), &[][..], &[][..]),
        ("a member twice", data(r#"{"user_id":"u","ip":"192.0.2.1","user_id":"u"}"#), &[], &[DUPLICATE_MEMBER]),
        ("no country", data(r#"{"user_id":"u","ip":"192.0.2.1","country":"QQ"}"#), &[], &[INVALID_VALUE]),
        ("a placeholder", data(r#"{"user_id":"u","ip":"192.0.2.1","country":"ZZ"}"#), &[], &[]),
        ("no JSON", data("{"), &[MALFORMED_JSON], &[MALFORMED_JSON]),
        ("a byte order mark", data("\u{feff}{\"user_id\":\"u\",\"ip\":\"192.0.2.1\"}"), &[MALFORMED_JSON], &[]),
        ("two ids", with(&|record| record.headers.insert(0, header("ce_id", b"other"))), &[], &[DUPLICATE_MEMBER]),
        ("a name", with(&|record| record.headers.push(header("ce_trace-id", b"1"))), &[], &[INVALID_NAME]),
        ("no UTF-8", with(&|record| record.headers.push(header("ce_note", b"\xff"))), &[], &[INVALID_VALUE]),
        (
            "no UTF-8 in an id",
            with(&|record| record.headers.push(header("ce_id", b"\xff"))),
            &[INVALID_VALUE],
            &[INVALID_VALUE],
        ),
        (
            "a subject with a tab",
            with(&|record| record.headers.push(header("ce_subject", b"a\tb"))),
            &[],
            &[DUPLICATE_MEMBER],
        ),
        ("structured", structured(&event), &[], &[]),
        ("structured, twice", structured(&event.replacen('{', r#"{"id":"other","#, 1)), &[], &[DUPLICATE_MEMBER]),
        ("a charset", typed(b"application/json; charset=utf-16"), &[], &[UNSUPPORTED_CONTENT_TYPE]),
        ("another charset", typed(b"application/json;charset=\"iso-8859-1\""), &[], &[UNSUPPORTED_CONTENT_TYPE]),
        ("UTF-8", typed(b"Application/JSON; charset=\"UTF-8\""), &[], &[]),
        ("two types in one", typed(b"application/json, application/json"), &[], &[UNSUPPORTED_CONTENT_TYPE]),
        (
            "two types",
            with(&|record| record.headers.push(header("content-type", b"application/json"))),
            &[],
            &[DUPLICATE_MEMBER],
        ),
        (
            "two types, in capitals",
            with(&|record| record.headers.insert(0, header("Content-Type", b"text/json"))),
            &[],
            &[DUPLICATE_MEMBER],
        ),
        ("a type that is no text", typed(b"application/json; x=\xff"), &[INVALID_VALUE], &[INVALID_VALUE]),
        (
            "a type as attribute",
            with(&|record| record.headers.push(header("ce_datacontenttype", b"application/json"))),
            &[],
            &[INVALID_VALUE],
        ),
        (
            "structured, a charset",
            with(&|record| {
                record.headers = vec![header("content-type", b"application/cloudevents+json; charset=latin1")];
                record.value = event.clone().into();
            }),
            &[],
            &[UNSUPPORTED_CONTENT_TYPE],
        ),
        (
            "structured, two types",
            with(&|record| {
                record.headers = vec![header("content-type", b"application/cloudevents+json"); 2];
                record.value = event.clone().into();
            }),
            &[],
            &[DUPLICATE_MEMBER],
        ),
        ("structured, a list", structured(&event.replacen('{', r#"{"note":[1],"#, 1)), &[], &[WRONG_TYPE]),
    ] {
        assert_eq!(codes(decode(&record).map(drop)), kept, "{name}, in the log");
        assert_eq!(codes(super::record(&record).map(drop)), incoming, "{name}, of a producer");
    }
}

/// Files in formats other than CloudEvents contain ids as well.
#[test]
fn an_id_that_no_cloudevent_may_have_is_refused_of_every_file() {
    let mut event = parsed(|_| {}).event;
    event.envelope.id = "a\tb".to_owned();
    assert_eq!(codes(GateContext::of_operator(NOW_MS).check(&event)), [INVALID_VALUE]);
}

#[test]
fn what_the_service_writes_itself_passes_the_same_gate() {
    let own = |country: &str| {
        let mut event = parsed(|event| event["data"]["country"] = json!(country)).event;
        event.envelope.source = API_SOURCE.to_owned();
        Admitted::own(event)
    };
    assert!(own("IE").is_ok());
    assert_eq!(own("QQ").unwrap_err().first().code, INVALID_VALUE);
}

fn written(record: NewRecord) -> Record {
    let NewRecord { topic, key, value, headers } = record;
    let position = Position { topic, partition: 0, offset: 0 };
    Record { position, timestamp_ms: NOW_MS, key, value, headers }
}

fn admitted(change: impl FnOnce(&mut Value)) -> (Event, Value, NewRecord, usize) {
    let admitted = GateContext::of_operator(NOW_MS).admit(parsed(change)).unwrap();
    let event = codec::completed(admitted.event().clone());
    let (record, dropped) = admitted.into_record();
    (event, serde_json::from_slice(&record.value).unwrap(), record, dropped)
}

#[test]
fn unknown_fields_beyond_the_bound_are_dropped_and_known_ones_stay() {
    let large = "x".repeat(UNKNOWN_BYTES_MAX);
    let agent = "a".repeat(60_000);
    let (_, data, record, dropped) = admitted(|event| {
        event["data"]["user_agent"] = json!(agent);
        event["data"]["large"] = json!(large);
        event["data"]["small"] = json!([1, 2]);
    });
    assert_eq!((dropped, data.get("large"), &data["small"]), (1, None, &json!([1, 2])));
    assert_eq!(data["user_agent"], agent[..USER_AGENT_KEPT_BYTES], "known, and cut");
    assert!(record.value.len() < USER_AGENT_KEPT_BYTES + 200);

    let (_, data, _, dropped) = admitted(|event| event["data"]["fits"] = json!(large[..UNKNOWN_BYTES_MAX - 6]));
    assert_eq!((dropped, data["fits"].is_string()), (0, true), "a name of 4, two quotes and the rest");
    let (_, _, _, dropped) = admitted(|event| event["data"]["fits"] = json!(large[..UNKNOWN_BYTES_MAX - 5]));
    assert_eq!(dropped, 1);
}

#[test]
fn extension_attributes_and_fields_within_fields_share_the_bound() {
    let (_, _, record, dropped) = admitted(|event| {
        for name in ["first", "second", "third", "fourth", "fifth"] {
            event[name] = json!("x".repeat(1_000));
        }
        event["data"]["note"] = json!("x".repeat(200));
    });
    let record = written(record);
    assert_eq!(
        (dropped, record.header("ce_fourth"), record.header("ce_fifth")),
        (2, Some(&b"x".repeat(1_000)[..]), None)
    );

    let (_, data, _, dropped) = admitted(|event| {
        event["type"] = json!("foretell.client.updated");
        event["data"] = json!({
            "client_id": "c", "attributes": {"known": "y".repeat(1_000)}, "time_zone": null,
            "quiet_hours": {"from": "22:00", "to": "07:00", "why": "x".repeat(5_000)},
            "channels": [
                {"channel": "sms", "consent": true},
                {"channel": "email", "consent": false, "why": "x".repeat(5_000), "who": "staff"},
            ],
        });
    });
    assert_eq!(dropped, 2);
    assert_eq!(data["quiet_hours"], json!({"from": "22:00", "to": "07:00"}));
    assert_eq!(data["channels"][1], json!({"channel": "email", "consent": false, "who": "staff"}));
    assert_eq!((&data["attributes"]["known"], &data["time_zone"]), (&json!("y".repeat(1_000)), &Value::Null));
}

/// Also for a record that is small as a whole, and when a file is read.
#[test]
fn the_log_keeps_no_more_of_a_user_agent_than_the_event_does() {
    for (sent, kept) in [
        ("a".repeat(1_025), "a".repeat(1_024)),
        ("a".repeat(1_024), "a".repeat(1_024)),
        ("\u{e9}".repeat(20_000), "\u{e9}".repeat(512)),
        (String::new(), String::new()),
    ] {
        let (event, data, record, dropped) = admitted(|event| event["data"]["user_agent"] = json!(sent));
        assert_eq!((&data["user_agent"], dropped), (&json!(kept), 0), "{} bytes", sent.len());
        assert_eq!(decode(&written(record)).unwrap(), event, "the event is the same");
        let mut read = parsed(|event| event["data"]["user_agent"] = json!(sent));
        assert_eq!((trim(&mut read), &read.data["user_agent"]), (0, &json!(kept)));
    }
}

#[test]
fn attributes_that_are_too_long_or_too_many_are_counted() {
    let (_, _, record, dropped) = admitted(|event| event["note"] = json!("x".repeat(1_025)));
    assert_eq!((dropped, written(record).header("ce_note")), (1, None));
    let attributes =
        |count: usize| move |event: &mut Value| (0..count).for_each(|index| event[format!("a{index}")] = json!(true));
    assert_eq!(admitted(attributes(64)).3, 0);
    assert_eq!(admitted(attributes(70)).3, 6);
    let mut read = parsed(attributes(70));
    assert_eq!((trim(&mut read), trim(&mut read)), (6, 0), "counted once");
}

#[test]
fn an_event_with_a_hundred_thousand_faults_names_a_few() {
    let mut event = codec::structured_event(&parsed(|_| {}));
    (0..100_000).for_each(|index| event[format!("bad-{index}")] = json!(1));
    let faults = decode_structured(&event, Defaults { tenant: "default", time_ms: NOW_MS }).unwrap_err();
    assert_eq!(faults.iter().count(), 16);
}

proptest! {
    #[test]
    fn a_trimmed_event_folds_as_it_did_and_is_bounded(
        fields in prop::collection::btree_map("z[a-z]{0,12}", "[a-z\"\u{e9}]{0,900}", 0..12),
        attributes in prop::collection::btree_map("x[a-z0-9]{1,12}", "[a-z]{0,900}", 0..8),
    ) {
        let (event, data, record, _) = admitted(|event| {
            for (name, text) in &attributes {
                event[name] = json!(text);
            }
            for (name, text) in &fields {
                event["data"].as_object_mut().unwrap().entry(name).or_insert_with(|| json!(text));
            }
        });
        let known = serde_json::to_vec(&event.fact.data()).unwrap().len();
        prop_assert!(data.to_string().len() <= known + UNKNOWN_BYTES_MAX + 16 * (fields.len() + 1));
        prop_assert!(record.bytes() <= known + UNKNOWN_BYTES_MAX + 1_000);
        prop_assert_eq!(decode(&written(record)).unwrap(), event);
    }
}
