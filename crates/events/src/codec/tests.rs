//! One helper per direction and many rows; properties for what rows cannot enumerate.

use super::*;
use crate::appointment::*;
use crate::country;
use crate::login::{Attempt, DeviceRef, Login, LoginFact, UserErasure, Verdict};
use crate::partitioner::Partitioner;
use crate::record::NewRecord;
use crate::reminder::{Announcement, Feedback, NamedVisit, ReminderFact, Request, Risk, Withdrawal};
use crate::{Envelope, Position, Topic};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::{collection, option, sample};
use serde_json::json;
use std::net::IpAddr;

const NOW_MS: i64 = 1_772_359_200_000; // 2026-03-01T10:00:00Z
const DEFAULTS: Defaults<'_> = Defaults { tenant: "default", time_ms: NOW_MS };

fn stored(new: NewRecord) -> Record {
    let position = Position { topic: new.topic, partition: 0, offset: 7 };
    Record { position, timestamp_ms: NOW_MS, key: new.key, value: new.value, headers: new.headers }
}

fn record(headers: &[(&str, &[u8])], body: &[u8]) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value))).collect();
    let (topic, value) = (Topic::Logins, Bytes::copy_from_slice(body));
    stored(NewRecord { topic, key: None, value, headers })
}

fn event(type_name: &str, data: impl Into<Value>) -> Value {
    let data: Value = data.into();
    json!({"specversion": "1.0", "id": "e-1", "source": "urn:test", "type": type_name, "data": data})
}

/// The faults as `pointer code`, in the order of reading.
fn faults(value: &Value) -> Vec<String> {
    match decode_structured(value, DEFAULTS) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.code)).collect(),
    }
}

fn fact(type_name: &str, data: Value) -> Fact {
    decode_structured(&event(type_name, data), DEFAULTS).unwrap().event.fact
}

fn login(data: &Value) -> Login {
    let mut fields = json!({"user_id": "u", "ip": "192.0.2.1"});
    fields.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    match fact("foretell.login.succeeded", fields) {
        Fact::Login(LoginFact::Attempted(login)) => *login,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_binary_record_is_read() {
    let headers: [(&str, &[u8]); 7] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"stale"),
        ("ce_id", b"e-1"),
        ("ce_source", b"urn:test"),
        ("ce_type", b"foretell.login.failed"),
        ("ce_time", b"2026-03-01T09:59:00.5+00:30"),
        ("content-type", b"application/json; charset=utf-8"),
    ];
    let read = decode(&record(&headers, br#"{"user_id":"u","ip":"::ffff:192.0.2.1","new":[1]}"#)).unwrap();
    let time_ms = NOW_MS - 31 * 60_000 + 500;
    let envelope = Envelope { id: "e-1".into(), source: "urn:test".into(), tenant: "default".into(), time_ms };
    assert_eq!(read.envelope, envelope);
    assert_eq!(read.key(), "default:u");
    let Fact::Login(LoginFact::Attempted(login)) = read.fact else { panic!("{:?}", read.fact) };
    assert_eq!((login.succeeded, login.attempt), (false, Attempt::from_ip("192.0.2.1".parse().unwrap())));
}

#[test]
fn a_byte_order_mark_in_data_base64_is_no_part_of_the_data() {
    let mut sent = event("foretell.user.erased", json!({}));
    sent.as_object_mut().unwrap().remove("data");
    sent["data_base64"] = json!(STANDARD.encode("\u{feff}{\"user_id\":\"u\"}"));
    let record = record(&[("content-type", b"application/cloudevents+json")], sent.to_string().as_bytes());
    for read in [decode(&record), decode_incoming(&record)] {
        assert_eq!(read.unwrap().fact, LoginFact::UserErased(UserErasure { user_id: "u".into() }).into());
    }
    assert_eq!(structured(&record).unwrap()["data"], json!({"user_id": "u"}), "a patch can name fields");
}

#[test]
fn a_structured_record_is_read_by_its_content_type() {
    let body = event("foretell.user.erased", json!({"user_id": "u"})).to_string();
    for content_type in ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8"] {
        let read = decode(&record(&[("content-type", content_type.as_bytes())], body.as_bytes())).unwrap();
        assert_eq!(read.fact, LoginFact::UserErased(UserErasure { user_id: "u".into() }).into());
        assert_eq!(read.envelope.time_ms, NOW_MS, "the record's own timestamp where the event has none");
    }
    for content_type in ["application/cloudevents+avro", "application/cloudevents-batch+json"] {
        let refused = decode(&record(&[("content-type", content_type.as_bytes())], body.as_bytes())).unwrap_err();
        assert_eq!(refused.first().code, UNSUPPORTED_CONTENT_TYPE, "{content_type}");
    }
}

#[test]
fn a_structured_record_is_read_without_a_content_type() {
    let event = event("foretell.user.erased", json!({"user_id": "u"}));
    let read = decode(&record(&[("x-hop", b"7")], event.to_string().as_bytes())).unwrap();
    assert_eq!(read.fact, LoginFact::UserErased(UserErasure { user_id: "u".into() }).into());
    assert_eq!(structured(&record(&[], event.to_string().as_bytes())).unwrap(), event);
    for (headers, body) in [
        (&[("content-type", &b"application/json"[..])][..], event.to_string()),
        (&[], json!([event]).to_string()),
        (&[], json!({"user_id": "u"}).to_string()),
        (&[], "{".to_owned()),
    ] {
        let refused = decode(&record(headers, body.as_bytes())).unwrap_err();
        assert_eq!(refused.first().code, NOT_A_CLOUDEVENT, "{headers:?} {body}");
    }
    // Attributes in its headers make it binary, as before.
    let refused = decode(&record(&[("ce_id", b"e-1")], event.to_string().as_bytes())).unwrap_err();
    assert_eq!(refused.first().pointer, "/specversion");
}

#[test]
fn a_structured_record_may_hold_its_data_as_bytes() {
    // {"user_id":"u"}
    let bytes = json!({
        "specversion": "1.0", "id": "e-1", "source": "urn:test", "type": "foretell.user.erased",
        "data_base64": "eyJ1c2VyX2lkIjoidSJ9", "data": null,
    });
    let headers: [(&str, &[u8]); 1] = [("content-type", b"application/cloudevents+json")];
    let stored = record(&headers, bytes.to_string().as_bytes());
    assert_eq!(decode(&stored).unwrap().fact, LoginFact::UserErased(UserErasure { user_id: "u".into() }).into());
    let shown = structured(&stored).unwrap();
    assert_eq!((&shown["data"], shown.get("data_base64")), (&json!({"user_id": "u"}), None), "a patch can name fields");
    let parsed = decode_structured(&bytes, DEFAULTS).unwrap();
    assert_eq!(encode_parsed(&parsed).value, r#"{"user_id":"u"}"#.as_bytes());
}

#[test]
fn a_subject_that_no_attribute_may_have_is_left_out() {
    for (user_id, subject) in
        [("u", Some("u")), ("\u{e4}\u{1f600}", Some("\u{e4}\u{1f600}")), ("a\u{0}b", None), ("\u{fffe}", None)]
    {
        let sent = event("foretell.user.erased", json!({"user_id": user_id}));
        let parsed = decode_structured(&sent, DEFAULTS).unwrap();
        let shown = structured_event(&parsed);
        assert_eq!(shown.get("subject").and_then(Value::as_str), subject, "{user_id:?}");
        assert_eq!(decode_structured(&shown, DEFAULTS).as_ref(), Ok(&parsed), "{user_id:?}");
        let written = encode_parsed(&parsed);
        let header = written.headers.iter().find(|(name, _)| name == "ce_subject");
        assert_eq!(header.map(|(_, text)| text.as_ref()), subject.map(str::as_bytes), "{user_id:?}");
        // An earlier version wrote it nevertheless; an export of its log can be imported.
        let mut kept = stored(written);
        kept.headers.retain(|(name, _)| name != "ce_subject");
        kept.headers.push(("ce_subject".to_owned(), user_id.to_owned().into()));
        let exported = structured(&kept).unwrap();
        assert_eq!(decode_structured(&exported, DEFAULTS).unwrap().event, parsed.event, "{user_id:?}");
    }
}

#[test]
fn what_is_in_the_log_is_read_as_it_was_before_senders_were_held_to_the_letter() {
    let body = r#"{
        "specversion": "1.0", "id": "first", "id": "e-1", "source": "urn:test", "type": "foretell.user.erased",
        "subject": 7, "Odd-Name": {"deep": []}, "partner": 1.5, "note": "a\u0007",
        "datacontenttype": "application/json; charset=utf-16", "data": {"user_id": "stale", "user_id": "u"}
    }"#;
    let headers: [(&str, &[u8]); 1] = [("content-type", b"application/cloudevents+json")];
    let read = decode(&record(&headers, body.as_bytes())).unwrap();
    assert_eq!(
        (read.envelope.id.as_str(), &read.fact),
        ("e-1", &LoginFact::UserErased(UserErasure { user_id: "u".into() }).into())
    );
    let headers: [(&str, &[u8]); 6] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"a\x07%zz\""),
        ("ce_source", b"urn:test"),
        ("ce_type", b"foretell.user.erased"),
        ("ce_Odd_Name", b"\xff"),
        ("content-type", b"application/json; charset=latin1"),
    ];
    let stored = record(&headers, br#"{"user_id":"stale","user_id":"u"}"#);
    let read = decode(&stored).unwrap();
    assert_eq!(
        (read.envelope.id.as_str(), &read.fact),
        ("a\u{7}%zz\"", &LoginFact::UserErased(UserErasure { user_id: "u".into() }).into())
    );
    assert_eq!(structured(&stored).unwrap().get("Odd_Name"), None, "what is no attribute is not passed on as one");
}

#[test]
fn what_is_no_event_is_refused_with_its_code() {
    let attributes: [(&str, &[u8]); 4] =
        [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"urn:test"), ("ce_type", b"foretell.user.erased")];
    let with = |name, value| [&attributes[..], &[(name, value)]].concat();
    let structured: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents+json")];
    for (headers, body, told) in [
        (structured, "{", " MALFORMED_JSON"),
        (structured, "[]", " NOT_A_CLOUDEVENT"),
        (structured, "{}", " NOT_A_CLOUDEVENT"),
        (structured, "", " MALFORMED_JSON"),
        (&[], r#"{"user_id":"u"}"#, " NOT_A_CLOUDEVENT"),
        (&attributes, "", "/data MALFORMED_JSON"),
        (&attributes, "{\"user_id\":\"\u{1}\"}", "/data MALFORMED_JSON"),
        (&attributes, "\"text\"", "/data WRONG_TYPE"),
        (&attributes, "null", "/data WRONG_TYPE"),
        (&with("content-type", b"text/plain"), r#"{"user_id":"u"}"#, "/datacontenttype UNSUPPORTED_CONTENT_TYPE"),
        (&with("ce_id", b"\xff"), r#"{"user_id":"u"}"#, "/id INVALID_VALUE"),
        (&with("ce_time", b"yesterday"), r#"{"user_id":"u"}"#, "/time INVALID_TIME"),
    ] {
        let refused = decode(&record(headers, body.as_bytes())).unwrap_err();
        let first = refused.first();
        assert_eq!(format!("{} {}", first.pointer, first.code), told, "{body}");
    }
}

#[test]
fn attributes_are_checked() {
    let set = |name: &str, value: Value| {
        let mut event = event("foretell.user.erased", json!({"user_id": "u"}));
        event[name] = value;
        event
    };
    for (name, value, told) in [
        ("specversion", json!("0.3"), "UNSUPPORTED_SPECVERSION"),
        ("specversion", json!(1.0), "WRONG_TYPE"),
        ("specversion", Value::Null, "MISSING_FIELD"),
        ("id", json!(""), "INVALID_VALUE"),
        ("id", json!("x".repeat(513)), "TOO_LONG"),
        ("id", json!("é".repeat(256)), ""),
        ("source", json!("urn:a\u{0}b"), "INVALID_VALUE"),
        ("source", json!("s".repeat(1025)), "TOO_LONG"),
        ("type", json!("foretell.user.erase"), "UNKNOWN_TYPE"),
        ("type", json!(["foretell.user.erased"]), "WRONG_TYPE"),
        ("tenant", json!("Acme"), "INVALID_VALUE"),
        ("tenant", json!(""), "INVALID_VALUE"),
        ("tenant", json!("a".repeat(64)), "INVALID_VALUE"),
        ("tenant", json!("acme-2"), ""),
        ("time", json!("2026-02-30T00:00:00Z"), "INVALID_TIME"),
        ("time", json!("2101-01-01T00:00:00Z"), "INVALID_VALUE"),
        ("time", json!(1_772_359_200), "WRONG_TYPE"),
        ("datacontenttype", json!("application/xml"), "UNSUPPORTED_CONTENT_TYPE"),
        ("datacontenttype", json!("application/json"), ""),
        ("data", json!("{}"), "WRONG_TYPE"),
        ("data", Value::Null, "MISSING_FIELD"),
        ("datacontenttype", json!("application/vnd.x+json; charset=UTF-8"), ""),
        ("datacontenttype", json!("application/json; charset=utf-16"), "UNSUPPORTED_CONTENT_TYPE"),
        ("datacontenttype", json!("json"), "UNSUPPORTED_CONTENT_TYPE"),
        ("data_base64", json!("e30="), "INVALID_VALUE"),
        ("data_base64", Value::Null, ""),
        ("Unknown-Thing", json!({"deep": [1]}), "INVALID_NAME"),
        ("unknownthing", json!({"deep": [1]}), "WRONG_TYPE"),
        ("unknownthing", json!(i64::from(i32::MIN) - 1), "INVALID_VALUE"),
        ("unknownthing", json!(i32::MIN), ""),
        ("subject", json!(7), "WRONG_TYPE"),
        ("id", json!("a\u{fdd0}"), "INVALID_VALUE"),
    ] {
        let expected = if told.is_empty() { vec![] } else { vec![format!("/{name} {told}")] };
        assert_eq!(faults(&set(name, value.clone())), expected, "{name} {value}");
    }
    let refused = decode_structured(&set("type", json!("foretell.user.erase")), DEFAULTS).unwrap_err();
    assert!(refused.to_string().contains("did you mean foretell.user.erased?"), "{refused}");
}

#[test]
fn every_fault_of_an_event_is_told() {
    let value = json!({
        "specversion": "1.0", "id": "", "type": "foretell.login.succeeded", "time": "soon", "tenant": 5,
        "data": {"ip": "300.1.1.1", "user_id": null, "asn": "AS1", "latitude": 91, "country": "IRL"},
    });
    let expected = [
        "/id INVALID_VALUE",
        "/source MISSING_FIELD",
        "/tenant WRONG_TYPE",
        "/time INVALID_TIME",
        "/data/user_id MISSING_FIELD",
        "/data/ip INVALID_ADDRESS",
        "/data/country INVALID_VALUE",
        "/data/asn WRONG_TYPE",
        "/data/latitude INVALID_VALUE",
    ];
    assert_eq!(faults(&value), expected);
    let refused = decode_structured(&value, DEFAULTS).unwrap_err().within("/3");
    assert_eq!(refused.first().pointer, "/3/id");
    assert_eq!(refused.to_string().lines().count(), 1);
}

#[test]
fn fields_are_bounded() {
    let booked = |name: &str, value: Value| {
        let mut data = json!({"appointment_id": "a", "client_id": "c", "starts_at": "2026-05-01T09:00:00Z"});
        data[name] = value;
        faults(&event("foretell.appointment.booked", data))
    };
    let many: Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!(n))).collect();
    for (name, value, told) in [
        ("client_id", json!("c".repeat(512)), ""),
        ("client_id", json!("c".repeat(513)), "/data/client_id TOO_LONG"),
        ("client_id", json!(7), "/data/client_id WRONG_TYPE"),
        ("starts_at", json!("2026-05-01T09:00:00"), "/data/time_zone MISSING_FIELD"),
        ("starts_at", json!("2026-02-29T09:00:00Z"), "/data/starts_at INVALID_TIME"),
        ("starts_at", json!("2026-05-01"), "/data/starts_at INVALID_TIME"),
        ("starts_at", json!("1969-05-01T09:00:00Z"), "/data/starts_at INVALID_VALUE"),
        ("time_zone", json!("Europe/Atlantis"), "/data/time_zone UNKNOWN_TIME_ZONE"),
        ("time_zone", json!("europe/dublin"), ""),
        ("duration_minutes", json!(0), "/data/duration_minutes INVALID_VALUE"),
        ("duration_minutes", json!(44_640.0), ""),
        ("duration_minutes", json!(44_641), "/data/duration_minutes INVALID_VALUE"),
        ("duration_minutes", json!(1.5), "/data/duration_minutes WRONG_TYPE"),
        ("duration_minutes", Value::Null, ""),
        ("service", json!("é".repeat(513)), "/data/service TOO_LONG"),
        ("booked_at", json!("2026-04-31T09:00:00Z"), "/data/booked_at INVALID_TIME"),
        ("attributes", json!([]), "/data/attributes WRONG_TYPE"),
        ("attributes", json!({"a/b~c": {}}), "/data/attributes/a~1b~0c WRONG_TYPE"),
        ("attributes", json!({"": 1}), "/data/attributes/ INVALID_VALUE"),
        ("attributes", json!({"k": "x".repeat(1025)}), "/data/attributes/k TOO_LONG"),
        ("attributes", json!({"k": null, "n": 1.5, "b": true}), ""),
        ("attributes", Value::Object(many), "/data/attributes TOO_LONG"),
    ] {
        let expected = if told.is_empty() { vec![] } else { vec![told.to_owned()] };
        assert_eq!(booked(name, value.clone()), expected, "{name} {value}");
    }
}

#[test]
fn an_unknown_zone_is_one_fault_not_two() {
    let data = json!({"appointment_id": "a", "client_id": "c", "starts_at": "2026-05-01T09:00:00", "time_zone": "X"});
    assert_eq!(faults(&event("foretell.appointment.booked", data)), ["/data/time_zone UNKNOWN_TIME_ZONE"]);
}

#[test]
fn starts_keep_what_was_sent() {
    let starts_at = |starts_at: &str, zone: Option<&str>| {
        let data = json!({"appointment_id": "a", "client_id": "c", "starts_at": starts_at, "time_zone": zone});
        match fact("foretell.appointment.rescheduled", data) {
            Fact::Appointment(AppointmentFact::Rescheduled(booking)) => booking.starts_at,
            other => panic!("{other:?}"),
        }
    };
    let zone = || "Europe/Dublin".to_owned();
    let local = jiff::civil::datetime(2026, 3, 29, 1, 30, 0, 0);
    for (text, named, read) in [
        ("2026-03-29T01:30:00", Some("Europe/Dublin"), StartsAt::Local { local, zone: zone() }),
        ("2026-03-01T11:00:00+01:00", None, StartsAt::Instant { at_ms: NOW_MS, zone: None }),
        ("2026-03-01T10:00:00Z", Some("EUROPE/dublin"), StartsAt::Instant { at_ms: NOW_MS, zone: Some(zone()) }),
    ] {
        assert_eq!(starts_at(text, named), read, "{text} {named:?}");
    }
}

#[test]
fn attempts_are_brought_to_one_form() {
    let read = login(&json!({"country": "no", "browser": "", "user_agent": "", "asn": 29695.0, "ip": "2001:DB8::1"}));
    assert_eq!(read.attempt.country.as_deref(), Some("NO"));
    assert_eq!(read.attempt.browser, None);
    assert_eq!(read.attempt.user_agent.as_deref(), Some(""));
    assert_eq!(read.attempt.asn, Some(29_695));
    assert_eq!(read.attempt.ip.to_string(), "2001:db8::1");
    for code in country::PLACEHOLDERS {
        assert_eq!(login(&json!({"country": code.to_lowercase()})).attempt.country, None, "{code}");
    }
    let place = |latitude: f64, longitude: f64| {
        let attempt = login(&json!({"latitude": latitude, "longitude": longitude})).attempt;
        (attempt.latitude, attempt.longitude)
    };
    assert_eq!((place(0.0, 0.0), place(-0.0, 0.0)), ((None, None), (None, None)));
    assert_eq!((place(0.0, 7.5), place(51.5, 0.0)), ((Some(0.0), Some(7.5)), (Some(51.5), Some(0.0))));
    let long = login(&json!({"user_agent": "é".repeat(1000)}));
    assert_eq!(long.attempt.user_agent.map(|agent| agent.len()), Some(1024));
    let odd = login(&json!({"user_agent": format!("x{}", "é".repeat(1000))}));
    assert_eq!(odd.attempt.user_agent.map(|agent| agent.len()), Some(1023), "cut between characters");
    let data = json!({"user_id": "u", "ip": "192.0.2.1", "user_agent": "x".repeat(65_537)});
    assert_eq!(faults(&event("foretell.login.failed", data)), ["/data/user_agent TOO_LONG"]);
}

#[test]
fn an_update_tells_absent_from_null() {
    let update = |data: Value| match fact("foretell.client.updated", data) {
        Fact::Appointment(AppointmentFact::ClientUpdated(update)) => *update,
        other => panic!("{other:?}"),
    };
    let kept = update(json!({"client_id": "c"}));
    assert_eq!(kept, ClientUpdate { client_id: "c".into(), ..ClientUpdate::default() });
    let cleared = update(json!({"client_id": "c", "time_zone": null, "channels": null, "quiet_hours": null}));
    assert_eq!((cleared.time_zone, cleared.channels), (FieldUpdate::Clear, FieldUpdate::Clear));
    assert_eq!((cleared.quiet_hours, cleared.language), (FieldUpdate::Clear, FieldUpdate::Keep));
    let set = update(json!({
        "client_id": "c", "channels": [{"channel": "sms", "consent": false}],
        "quiet_hours": {"from": "21:00", "to": "08:30"}, "attributes": {},
    }));
    let refused = Consent { channel: Channel::Sms, consent: false, address_ref: None };
    assert_eq!(set.channels, FieldUpdate::Set(vec![refused]));
    assert_eq!(set.quiet_hours, FieldUpdate::Set(QuietHours { from_minute: 1260, to_minute: 510 }));
    assert_eq!(set.attributes, FieldUpdate::Set(Default::default()));
}

#[test]
fn faults_inside_of_lists_name_their_place() {
    let data = json!({
        "client_id": "c", "quiet_hours": {"from": "24:00"}, "language": "en_IE",
        "channels": [{"channel": "sms", "consent": true}, {"channel": "fax", "consent": "yes"}, 5],
    });
    let expected = [
        "/data/language INVALID_VALUE",
        "/data/channels/1/channel INVALID_VALUE",
        "/data/channels/1/consent WRONG_TYPE",
        "/data/channels/2 WRONG_TYPE",
        "/data/quiet_hours/from INVALID_TIME",
        "/data/quiet_hours/to MISSING_FIELD",
    ];
    assert_eq!(faults(&event("foretell.client.updated", data)), expected);
    let channels = vec!["sms"; 17];
    let data = json!({"appointment_id": "a", "client_id": "c", "channels": channels});
    assert_eq!(faults(&event("foretell.reminder.requested", data)), ["/data/channels TOO_LONG"]);
}

#[test]
fn unknown_fields_and_attributes_are_passed_on() {
    let mut value = event("foretell.user.erased", json!({"user_id": "u", "ticket": {"n": 1}}));
    value["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    value["sampled"] = json!(true);
    let parsed = decode_structured(&value, Defaults { tenant: "acme", time_ms: 5 }).unwrap();
    let record = stored(encode_parsed(&parsed));
    assert_eq!(record.key.as_deref(), Some(&b"acme:u"[..]));
    assert_eq!(record.header("ce_time"), Some(&b"1970-01-01T00:00:00.005Z"[..]));
    assert_eq!(record.header("ce_sampled"), Some(&b"true"[..]));
    assert_eq!(record.header("content-type"), Some(&b"application/json"[..]));
    assert_eq!(decode(&record).unwrap(), parsed.event);
    let again = structured(&record).unwrap();
    assert_eq!(again["data"], value["data"]);
    assert_eq!(again["traceparent"], value["traceparent"]);
    assert_eq!(again["subject"], json!("u"));
    assert_eq!(decode_structured(&again, DEFAULTS).unwrap().event, parsed.event);
}

#[test]
fn extensions_are_bounded_and_never_take_a_place_of_their_betters() {
    let data = br#"{"user_id":"u"}"#;
    let context = [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "foretell.user.erased")];
    let names: Vec<_> = (0..100).map(|n| format!("x{n}")).collect();
    let others = names.iter().map(|name| (name.as_str(), "1"));
    let attributes = context.into_iter().chain([("subject", "other")]).chain(others);
    let attributes: Vec<_> = attributes.map(|(name, text)| (name, Ok(text.to_owned()))).collect();
    let parsed = decode_binary(&attributes, data, DEFAULTS).unwrap();
    assert_eq!(parsed.extensions.len(), bounds::EXTENSIONS_MAX);
    assert!(parsed.extensions.iter().all(|(name, _)| name.starts_with('x')), "{:?}", parsed.extensions);
    assert_eq!(structured_event(&parsed)["subject"], json!("u"));
}

#[test]
fn what_is_said_of_a_fault_is_short_whatever_was_sent() {
    let long = "é\u{7}".repeat(400);
    let data = json!({"appointment_id": "a", "client_id": "c", "starts_at": long, "time_zone": long});
    let value = json!({"specversion": long, "id": "1", "source": "s", "type": long, "tenant": long, "data": data});
    for value in [value, event("foretell.appointment.booked", data)] {
        let refused = decode_structured(&value, DEFAULTS).unwrap_err();
        assert!(refused.iter().all(|fault| fault.detail.len() < 300), "{refused}");
        assert!(!refused.to_string().contains('\u{7}'), "{refused}");
    }
}

#[test]
fn structured_passes_on_what_it_need_not_understand() {
    let headers: [(&str, &[u8]); 3] = [("ce_id", b"1"), ("ce_type", b"other.kind"), ("traceparent", b"00-")];
    let shown = structured(&record(&headers, b"[1]")).unwrap();
    assert_eq!(shown, json!({"id": "1", "type": "other.kind", "datacontenttype": "application/json", "data": [1]}));
    assert_eq!(structured(&record(&headers, b"{")).unwrap_err().first().code, MALFORMED_JSON);
    assert_eq!(structured(&record(&[], b"{}")).unwrap_err().first().code, NOT_A_CLOUDEVENT);
}

#[test]
fn an_erasure_counts_from_its_arrival_at_the_latest() {
    let erased = [
        LoginFact::UserErased(UserErasure { user_id: "u".into() }).into(),
        AppointmentFact::ClientErased(ClientErasure { client_id: "c".into() }).into(),
    ];
    let trusted =
        LoginFact::DeviceTrusted(DeviceRef { user_id: "u".into(), device_id: "d".into(), idempotency_digest: None })
            .into();
    let read = |fact: &Fact, time_ms| {
        let envelope = Envelope { id: "1".into(), source: "s".into(), tenant: "default".into(), time_ms };
        let record = stored(encode_event(&Event { envelope, fact: fact.clone() }, &[]));
        decode(&record).unwrap().envelope.time_ms
    };
    for fact in &erased {
        assert_eq!(read(fact, NOW_MS - 1), NOW_MS - 1);
        assert_eq!(read(fact, NOW_MS + 1), NOW_MS);
        assert_eq!(read(fact, NOW_MS + AHEAD_MS_MAX), NOW_MS);
        let too_far = NOW_MS + AHEAD_MS_MAX + 1;
        assert_eq!(read(fact, too_far), too_far, "which is refused as before");
    }
    assert_eq!(read(&trusted, NOW_MS + 1), NOW_MS + 1, "other events keep their time");
}

#[test]
fn a_record_must_stand_where_its_event_belongs() {
    let fact = LoginFact::UserErased(UserErasure { user_id: "21".into() }).into();
    let envelope = |time_ms| Envelope { id: "1".into(), source: "s".into(), tenant: "default".into(), time_ms };
    let event = Event { envelope: envelope(NOW_MS + AHEAD_MS_MAX), fact };
    let mut record = stored(encode_event(&event, &[]));
    record.position.partition = key::partition(b"default:21", 8);
    assert_eq!(check_record(&event, &record, 8), Ok(()));
    let codes = |event: &Event, record: &Record| match check_record(event, record, 8) {
        Ok(()) => vec![],
        Err(faults) => faults.iter().map(|fault| fault.code).collect(),
    };
    let late = Event { envelope: envelope(NOW_MS + AHEAD_MS_MAX + 1), ..event.clone() };
    assert_eq!(codes(&late, &record), [TIME_IN_FUTURE]);
    assert_eq!(check_time(&late, NOW_MS).unwrap_err().first().code, TIME_IN_FUTURE);
    assert_eq!(check_time(&late, NOW_MS + 1), Ok(()));
    let keyless = Record { key: None, ..record.clone() };
    assert_eq!(codes(&event, &keyless), [KEY_MISMATCH]);
    let mut elsewhere = record.clone();
    elsewhere.position = Position { topic: Topic::Appointments, partition: record.position.partition ^ 1, offset: 0 };
    assert_eq!(codes(&event, &elsewhere), [WRONG_TOPIC, WRONG_PARTITION]);
    assert_eq!(codes(&Event { envelope: envelope(i64::MAX), ..event.clone() }, &record), [TIME_IN_FUTURE]);
}

#[test]
fn a_record_in_a_wrong_partition_is_told_which_partitioner_put_it_there() {
    let fact = LoginFact::UserErased(UserErasure { user_id: "ada".into() }).into();
    let envelope = Envelope { id: "1".into(), source: "s".into(), tenant: "default".into(), time_ms: NOW_MS };
    let event = Event { envelope, fact };
    let mut record = stored(encode_event(&event, &[]));
    let belongs = key::partition(b"default:ada", 8);
    let crc32 = Partitioner::Crc32.partition(b"default:ada", 8);
    assert_ne!(belongs, crc32);
    record.position.partition = crc32;
    let told = |record: &Record| check_record(&event, record, 8).unwrap_err().to_string();
    assert_eq!(
        told(&record),
        format!(
            "WRONG_PARTITION: the key belongs to partition {belongs} of 8, not {crc32}; {crc32} is where librdkafka's \
             default partitioner (crc32) puts it: set partitioner=murmur2_random"
        )
    );
    assert_eq!(told(&record), told(&record.clone()), "the same whenever it is asked");
    record.key = Some(b"ada".as_slice().into());
    record.position.partition = key::partition(b"ada", 8);
    let end = format!("not {}", record.position.partition);
    assert!(told(&record).ends_with(&end), "another key is no other partitioner: {}", told(&record));
}

fn id() -> impl Strategy<Value = String> {
    "[a-z0-9é/:~]{1,12}"
}

fn any_text() -> impl Strategy<Value = Option<String>> {
    option::of("\\PC{1,20}")
}

fn any_zone() -> impl Strategy<Value = String> {
    sample::select(vec!["Europe/Dublin", "America/Sao_Paulo", "UTC"]).prop_map(str::to_owned)
}

fn any_ms() -> impl Strategy<Value = i64> {
    0..bounds::TIME_MS_END
}

/// A number of at most 15 digits. Without its feature `float_roundtrip`, which other packages in a build may or may not
/// enable, serde_json reads longer ones with an error in the last bit.
fn any_number(from: i64, to: i64) -> impl Strategy<Value = f64> {
    const PARTS: i64 = 1_000_000;
    (from * PARTS..=to * PARTS).prop_map(|parts| parts as f64 / PARTS as f64)
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn any_attributes() -> impl Strategy<Value = std::collections::BTreeMap<String, Scalar>> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Scalar::Boolean),
        any_number(-999_999_999, 999_999_999).prop_map(Scalar::Number),
        "\\PC{0,20}".prop_map(Scalar::Text),
    ];
    collection::btree_map("\\PC{1,8}", scalar, 0..4)
}

fn any_channel() -> impl Strategy<Value = Channel> {
    sample::select(vec![Channel::Whatsapp, Channel::Sms, Channel::Email, Channel::Push, Channel::Call])
}

fn any_change<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = FieldUpdate<T>> {
    (0..3, value).prop_map(|(choice, value)| match choice {
        0 => FieldUpdate::Keep,
        1 => FieldUpdate::Clear,
        _ => FieldUpdate::Set(value),
    })
}

fn any_country() -> impl Strategy<Value = String> {
    // A placeholder is read as a missing value.
    "[A-Z]{2}".prop_filter("names no placeholder", |code| !country::PLACEHOLDERS.contains(&code.as_str()))
}

/// Boxed, as are the strategies below: a strategy of nested tuples overflows the stack of a test in a debug build.
fn any_attempt() -> BoxedStrategy<Attempt> {
    let texts =
        (any_text(), option::of(id()), option::of(any_country()), any_text(), any_text(), any_text(), any_text());
    let numbers = (
        option::of(any::<u32>()),
        option::of(any_number(-90, 90)),
        option::of(any_number(-180, 180)),
        option::of(any_number(0, 999_999)),
    );
    (any_ip(), texts, numbers)
        .prop_map(|(ip, texts, numbers)| {
            let (user_agent, device_id, country, city, browser, os, device_type) = texts;
            let (asn, latitude, longitude, rtt_ms) = numbers;
            Attempt {
                user_agent,
                device_id,
                country,
                asn,
                city,
                latitude,
                longitude,
                browser,
                os,
                device_type,
                rtt_ms,
                ..Attempt::from_ip(ip)
            }
        })
        .boxed()
}

fn any_booking() -> BoxedStrategy<Box<Booking>> {
    let start = prop_oneof![
        (any_ms(), option::of(any_zone())).prop_map(|(at_ms, zone)| StartsAt::Instant { at_ms, zone }),
        (any_ms(), any_zone()).prop_map(|(at_ms, zone)| {
            let local = crate::zone::local(at_ms - at_ms % 1000, &jiff::tz::TimeZone::UTC);
            StartsAt::Local { local, zone }
        }),
    ];
    let optional = (option::of(1..=44_640_u32), option::of(id()), option::of(id()), any_text(), option::of(any_ms()));
    (id(), id(), start, optional, any_attributes())
        .prop_map(|(appointment_id, client_id, starts_at, rest, attributes)| {
            let (duration_minutes, location_id, practitioner_id, service, booked_at_ms) = rest;
            Box::new(Booking {
                appointment_id,
                client_id,
                starts_at,
                duration_minutes,
                location_id,
                practitioner_id,
                service,
                booked_at_ms,
                attributes,
            })
        })
        .boxed()
}

fn any_update() -> BoxedStrategy<Box<ClientUpdate>> {
    let consent = (any_channel(), any::<bool>(), any_text()).prop_map(|(channel, consent, address_ref)| Consent {
        channel,
        consent,
        address_ref,
    });
    let hours = (0..1440_u16, 0..1440_u16).prop_map(|(from_minute, to_minute)| QuietHours { from_minute, to_minute });
    let changes = (
        any_change(any_zone()),
        any_change("[a-z]{2}-[A-Z]{2}"),
        any_change(collection::vec(consent, 0..5)),
        any_change(hours),
        any_change(any_attributes()),
    );
    (id(), changes)
        .prop_map(|(client_id, (time_zone, language, channels, quiet_hours, attributes))| {
            Box::new(ClientUpdate { client_id, time_zone, language, channels, quiet_hours, attributes })
        })
        .boxed()
}

fn any_announcement() -> BoxedStrategy<Box<Announcement>> {
    let named = || {
        (id(), any_ms()).prop_map(|(appointment_id, at_ms)| NamedVisit {
            appointment_id,
            starts_at: rfc3339(at_ms),
            local_start: wall_clock(crate::zone::local(at_ms, &jiff::tz::TimeZone::UTC)),
        })
    };
    let risk = (any_number(0, 1), sample::select(vec!["low", "medium", "high"]))
        .prop_map(|(score, level)| Risk { score, level: level.into() });
    let rest = (any_zone(), collection::vec(any_channel(), 0..4), option::of(risk), collection::vec(named(), 0..3));
    (id(), id(), named(), rest)
        .prop_map(|(reminder_id, client_id, visit, (time_zone, channels, risk, visits))| {
            Box::new(Announcement {
                reminder_id,
                client_id,
                expires_at: visit.starts_at.clone(),
                appointment_id: visit.appointment_id,
                starts_at: visit.starts_at,
                local_start: visit.local_start,
                time_zone,
                step: "24h".into(),
                channels,
                template: "visit".into(),
                risk,
                visits,
            })
        })
        .boxed()
}

fn any_verdict() -> BoxedStrategy<Box<Verdict>> {
    (id(), id(), any_text(), option::of(any_ip()), any_attempt(), option::of(id()))
        .prop_map(|(user_id, decision_id, reported_by, ip, attempt, idempotency_digest)| {
            let Attempt { device_id, asn, country, user_agent, .. } = attempt;
            Box::new(Verdict {
                user_id,
                decision_id,
                reported_by,
                ip,
                device_id,
                asn,
                country,
                user_agent,
                idempotency_digest,
            })
        })
        .boxed()
}

fn any_login() -> BoxedStrategy<Box<Login>> {
    let optional = (option::of(id()), option::of(id()), any_text(), any_text());
    (id(), any::<bool>(), any_attempt(), optional)
        .prop_map(|(user_id, succeeded, attempt, optional)| {
            let (decision_id, session_id, method, failure_reason) = optional;
            Box::new(Login { user_id, succeeded, attempt, decision_id, session_id, method, failure_reason })
        })
        .boxed()
}

fn any_login_fact() -> BoxedStrategy<LoginFact> {
    let device = || {
        let device = |(user_id, device_id, idempotency_digest)| DeviceRef { user_id, device_id, idempotency_digest };
        (id(), id(), option::of(id())).prop_map(device)
    };
    prop_oneof![
        any_login().prop_map(LoginFact::Attempted),
        any_verdict().prop_map(LoginFact::Confirmed),
        any_verdict().prop_map(LoginFact::Reported),
        device().prop_map(LoginFact::DeviceTrusted),
        device().prop_map(LoginFact::DeviceRevoked),
        id().prop_map(|user_id| LoginFact::UserErased(UserErasure { user_id })),
    ]
    .boxed()
}

fn any_visit() -> BoxedStrategy<AppointmentRef> {
    (id(), id()).prop_map(|(appointment_id, client_id)| AppointmentRef { appointment_id, client_id }).boxed()
}

fn any_appointment_fact() -> BoxedStrategy<AppointmentFact> {
    let by = option::of(sample::select(vec![CancelledBy::Client, CancelledBy::Business]));
    let cancelled = (any_visit(), any_text(), by).prop_map(|(visit, reason, by)| {
        let AppointmentRef { appointment_id, client_id } = visit;
        AppointmentFact::Cancelled(Cancellation { appointment_id, client_id, reason, by })
    });
    let request = (any_visit(), collection::vec(any_channel(), 0..4), any_text(), any_text());
    let request = request.prop_map(|(visit, channels, template, reason)| {
        let (AppointmentRef { appointment_id, client_id }, idempotency_digest) = (visit, None);
        Box::new(Request { appointment_id, client_id, channels, template, reason, idempotency_digest })
    });
    let feedback = || {
        let fields = (id(), any_visit(), option::of(any_channel()), any_text());
        fields.prop_map(|(reminder_id, visit, channel, reason)| {
            let AppointmentRef { appointment_id, client_id } = visit;
            Box::new(Feedback { reminder_id, appointment_id, client_id, channel, reason })
        })
    };
    prop_oneof![
        any_booking().prop_map(AppointmentFact::Booked),
        any_booking().prop_map(AppointmentFact::Rescheduled),
        any_visit().prop_map(AppointmentFact::Confirmed),
        any_visit().prop_map(AppointmentFact::Attended),
        any_visit().prop_map(AppointmentFact::Missed),
        cancelled,
        any_visit().prop_map(AppointmentFact::Deleted),
        any_update().prop_map(AppointmentFact::ClientUpdated),
        id().prop_map(|client_id| AppointmentFact::ClientErased(ClientErasure { client_id })),
        request.prop_map(AppointmentFact::ReminderRequested),
        feedback().prop_map(AppointmentFact::ReminderDelivered),
        feedback().prop_map(AppointmentFact::ReminderFailed),
        feedback().prop_map(AppointmentFact::ReminderConfirmed),
    ]
    .boxed()
}

fn any_fact() -> BoxedStrategy<Fact> {
    let withdrawal = (id(), any_visit(), id()).prop_map(|(reminder_id, visit, reason)| {
        let AppointmentRef { appointment_id, client_id } = visit;
        Withdrawal { reminder_id, appointment_id, client_id, reason }
    });
    prop_oneof![
        any_login_fact().prop_map(Fact::from),
        any_appointment_fact().prop_map(Fact::from),
        any_announcement().prop_map(|announcement| ReminderFact::Due(announcement).into()),
        withdrawal.prop_map(|withdrawal| ReminderFact::Withdrawn(withdrawal).into()),
    ]
    .boxed()
}

fn any_event() -> impl Strategy<Value = Event> {
    (any_fact(), id(), id(), "[a-z0-9-]{1,63}", any_ms()).prop_map(|(fact, id, source, tenant, time_ms)| Event {
        envelope: Envelope { id, source, tenant, time_ms },
        fact,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_in_both_modes(event in any_event()) {
        let record = stored(encode_event(&event, &[("causationid".into(), "x".into())]));
        let read = decode(&record);
        prop_assert_eq!(read.as_ref(), Ok(&event));
        let value = structured(&record).unwrap();
        let parsed = decode_structured(&value, DEFAULTS).unwrap();
        prop_assert_eq!(&parsed.event, &event);
        prop_assert_eq!(&parsed.extensions, &vec![("causationid".to_owned(), "x".to_owned())]);
        let again = structured_event(&parsed);
        prop_assert_eq!(&decode_structured(&again, DEFAULTS).unwrap(), &parsed);
        let headers: Vec<(&str, ReadResult<String>)> = record.headers.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("ce_")?, Ok(String::from_utf8(value.to_vec()).ok()?)))
        }).collect();
        let binary = decode_binary(&headers, &record.value, DEFAULTS);
        prop_assert_eq!(binary, Ok(parsed));
    }

    #[test]
    fn no_bytes_are_a_panic(
        headers in collection::vec(("ce_(id|type|time|tenant|source|specversion|x)|content-type", any::<Vec<u8>>()), 0..8),
        body in any::<Vec<u8>>(),
        structured_mode: bool,
    ) {
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        if structured_mode {
            headers.push(("content-type", b"application/cloudevents+json"));
        }
        let record = record(&headers, &body);
        let _ = decode(&record);
        let _ = structured(&record);
    }

    #[test]
    fn a_damaged_event_is_read_or_refused_with_places(
        event in any_event(), at: sample::Index, byte: u8, structured_mode: bool,
    ) {
        let mut record = stored(encode_event(&event, &[]));
        if structured_mode {
            record.value = structured(&record).unwrap().to_string().into();
            record.headers = vec![("content-type".into(), Bytes::from_static(b"application/cloudevents+json"))];
        }
        let mut body = record.value.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        record.value = body.into();
        if let Err(faults) = decode(&record) {
            prop_assert!(faults.iter().all(|fault| CODES.contains(&fault.code)), "{}", faults);
            prop_assert!(faults.iter().all(|fault| fault.pointer.is_empty() || fault.pointer.starts_with('/')));
        }
    }

    #[test]
    fn a_value_of_any_type_is_no_panic(
        type_name in sample::select(catalog::types().map(|known| known.name).collect::<Vec<_>>()),
        event in any_event(),
        values in collection::vec(any_json(), 16),
    ) {
        let mut data = event.fact.data();
        for (field, value) in data.values_mut().zip(values) {
            *field = value;
        }
        let value = self::event(type_name, Value::Object(data));
        let _ = decode_structured(&value, DEFAULTS);
    }
}

pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,40}|2026-0[1-9]-[0-3][0-9]T[0-2][0-9]:00:00Z?".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map("\\PC{0,8}|channel|from|to", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
