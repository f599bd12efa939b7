//! Ingestion appends events in order and unchanged, and rejects a batch before it appends any of it.

use super::*;
use foretell_events::codec::{self, Defaults, INVALID_VALUE, Parsed};
use foretell_events::gate::{NOT_ACCEPTED, RESERVED_SOURCE};
use foretell_events::login::{DeviceRef, LoginFact, Verdict};
use foretell_events::policy::{Kind, PolicyFact, Publication};
use foretell_events::record::Record;
use foretell_ports::log::memory;
use serde_json::json;
use std::net::IpAddr;

const NOW_MS: i64 = 1_772_359_200_000;

struct Fixed;

impl Clock for Fixed {
    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

fn ingest() -> (Ingest, Arc<memory::Log>) {
    let clock: Arc<dyn Clock> = Arc::new(Fixed);
    let log = Arc::new(memory::Log::new(|_| 1, clock.clone()));
    let enricher = Enricher::new(&Default::default(), clock.clone());
    (Ingest::new(log.clone(), clock, enricher, "foretell.".into()), log)
}

fn login(id: &str, user_id: &str) -> Parsed {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "urn:t", "type": "foretell.login.succeeded",
        "time": codec::rfc3339(NOW_MS), "data": {"user_id": user_id, "ip": "192.0.2.1", "unknown": [1]},
    });
    codec::decode_structured(&event, Defaults { tenant: "acme", time_ms: NOW_MS }).unwrap()
}

async fn records(log: &memory::Log, topic: Topic) -> Vec<Record> {
    log.page(topic, 0, 0).await.unwrap().records
}

fn device(user_id: &str) -> Fact {
    LoginFact::DeviceTrusted(DeviceRef { user_id: user_id.into(), device_id: "d".into(), idempotency_digest: None })
        .into()
}

fn policy() -> Fact {
    PolicyFact::Published(Box::new(Publication {
        kind: Kind::Login,
        version: 1,
        // Larger than the limit of unknown fields: all of its fields are known.
        document: json!({"note": "x".repeat(8_000)}).to_string(),
        published_by: None,
        request: None,
        earlier: Vec::new(),
    }))
    .into()
}

#[tokio::test]
async fn events_are_appended_in_order_with_what_they_brought() {
    let (ingest, log) = ingest();
    let terms = ingest.terms(Sender::Caller, Some("acme"));
    let admitted = ["1", "2"].map(|id| terms.admit(login(id, "u")).unwrap());
    let ready: Vec<_> = admitted.into_iter().map(|admitted| ingest.ready(admitted)).collect();
    assert_eq!(ready.iter().map(|one| (one.id(), one.key())).collect::<Vec<_>>(), [("1", "acme:u"), ("2", "acme:u")]);
    let positions = ingest.append(ready).await.unwrap();
    assert_eq!(positions.iter().map(|position| position.offset).collect::<Vec<_>>(), [0, 1]);
    for (record, id) in records(&log, Topic::Logins).await.iter().zip(["1", "2"]) {
        let plain = codec::encode_parsed(&login(id, "u"));
        assert_eq!((&record.key, &record.value, &record.headers), (&plain.key, &plain.value, &plain.headers));
    }
    assert_eq!(ingest.accept(Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn a_record_that_the_log_rejects_leaves_nothing_of_its_batch() {
    let (ingest, log) = ingest();
    let terms = ingest.terms(Sender::Caller, None);
    let mut ready: Vec<_> = ["1", "2"].map(|id| ingest.ready(terms.admit(login(id, "u")).unwrap())).into();
    ready[1].record.value = vec![b' '; 2 * foretell_events::record::RECORD_BYTES_MAX].into();
    let error = ingest.append(ready).await.unwrap_err();
    assert_eq!(error.kind, foretell_ports::Kind::Reject);
    assert!(records(&log, Topic::Logins).await.is_empty());
}

#[tokio::test]
async fn own_facts_of_any_topic_are_published_as_the_codec_writes_them() {
    let (ingest, log) = ingest();
    let envelope =
        |id: &str| Envelope { id: id.into(), source: API_SOURCE.into(), tenant: "acme".into(), time_ms: NOW_MS };
    let own = |id: &str, fact| OwnFact { tenant: "acme", id: id.into(), fact };
    let position = ingest.publish(own("1", device("u"))).await.unwrap();
    assert_eq!((position.topic, position.offset), (Topic::Logins, 0));
    let mut fenced = log.fence(Topic::Policies, 0).await.unwrap();
    let position = ingest.publish_fenced(fenced.as_mut(), own("2", policy())).await.unwrap();
    assert_eq!((position.topic, position.partition), (Topic::Policies, 0));
    for (topic, id, fact) in [(Topic::Logins, "1", device("u")), (Topic::Policies, "2", policy())] {
        let written = codec::encode_event(&Event { envelope: envelope(id), fact }, &[]);
        let record = records(&log, topic).await.into_iter().find(|record| record.key.is_some()).unwrap();
        assert_eq!((record.key, record.value, record.headers), (written.key, written.value, written.headers), "{id}");
    }
}

#[tokio::test]
async fn own_facts_pass_the_gate_and_the_fence() {
    let (ingest, log) = ingest();
    let verdict = |country: &str| -> Fact {
        LoginFact::Reported(Box::new(Verdict {
            user_id: "u".into(),
            decision_id: "d".into(),
            reported_by: None,
            ip: Some(IpAddr::from([192, 0, 2, 1])),
            device_id: None,
            asn: None,
            country: Some(country.into()),
            user_agent: None,
            idempotency_digest: None,
        }))
        .into()
    };
    let own = |fact| OwnFact { tenant: "acme", id: "1".into(), fact };
    let Err(Error::Faulty(faults)) = ingest.publish(own(verdict("QQ"))).await else { panic!("no such country") };
    assert_eq!(faults.first().code, INVALID_VALUE);
    assert!(records(&log, Topic::Logins).await.is_empty());
    ingest.publish(own(verdict("IE"))).await.unwrap();

    let mut first = log.fence(Topic::Policies, 0).await.unwrap();
    let _second = log.fence(Topic::Policies, 0).await.unwrap();
    let Err(Error::Log(error)) = ingest.publish_fenced(first.as_mut(), own(policy())).await else { panic!("fenced") };
    assert_eq!(error.kind, foretell_ports::Kind::Fatal);
}

#[tokio::test]
async fn what_foretell_alone_writes_is_accepted_from_nobody_else() {
    let (ingest, _) = ingest();
    let mut event = login("1", "u").event;
    event.envelope.source = API_SOURCE.into();
    let policy = Parsed::of(Event { envelope: event.envelope.clone(), fact: policy() });
    let codes = |sender, parsed: &Parsed| -> Vec<&str> {
        let faults = ingest.terms(sender, None).check(&parsed.event).err().map(Faults::into_vec);
        faults.unwrap_or_default().iter().map(|fault| fault.code).collect()
    };
    let operator = Sender::Operator { topic: None };
    assert_eq!(codes(Sender::Caller, &policy), [NOT_ACCEPTED, RESERVED_SOURCE]);
    assert_eq!(codes(operator, &policy), [NOT_ACCEPTED]);
    assert_eq!(codes(operator, &Parsed::of(event)), Vec::<&str>::new());
}

#[test]
fn a_batch_has_as_many_events_of_one_user_as_its_row_remembers() {
    let (ingest, _) = ingest();
    let terms = ingest.terms(Sender::Caller, None);
    let of = |user: &str, count| -> Vec<_> {
        (0..count).map(|number: usize| terms.admit(login(&number.to_string(), user)).unwrap()).collect()
    };
    let full = BATCH_SUBJECT_EVENTS_MAX;
    assert_eq!(over_subject_limit(&[of("u", full), of("v", full)].concat()), []);
    assert_eq!(
        over_subject_limit(&[of("u", full), of("v", 1), of("u", 2)].concat()),
        [(full + 1, full + 1), (full + 2, full + 2)]
    );
}
