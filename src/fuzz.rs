//! Every decoder of bytes that may come from outside, as a function of bytes: the targets of `scripts/fuzz`.
//!
//! ```text
//!   fuzz/corpus/TARGET/* ──┬─► cargo test: each input, complete, truncated and slightly changed
//!                          └─► scripts/fuzz: new inputs, found by coverage
//! ```
//!
//! A target panics if a decoder panics, or if the result of decoding violates a guarantee: accepted values can be
//! written and read again, and bounded values are within their bounds. Rejecting an input is always correct. An input
//! that once caused a panic stays in the corpus.

use bytes::Bytes;
use foretell_domain::address::{Bucket, RowKey, View};
use foretell_domain::dead::resolution::ResolutionRecord;
use foretell_domain::dead::{Letter, patch, repair};
use foretell_domain::decision::record::StoredDecision;
use foretell_domain::pointer::Pointer;
use foretell_domain::remind::policy as reminders;
use foretell_domain::score::login;
use foretell_domain::score::no_show::model::PublishedDocument;
use foretell_domain::view::cell::{Cell, decode_state, encode_state};
use foretell_domain::view::{self, Aggregate, AggregateView, Fold, StateVisitor};
use foretell_enrich::geo::Geo;
use foretell_enrich::netset::{self, Bogons};
use foretell_events::codec::{self, Defaults, json};
use foretell_events::document::{self, Syntax, depth};
use foretell_events::fuzz::{NOW_MS, admitted, message, written};
use foretell_events::gate::{self, GateContext};
use foretell_events::policy::TEXT_BYTES_MAX;
use foretell_events::record::{NewRecord, Record};
use foretell_events::zone::Rules;
use foretell_events::{Topic, agent};
use foretell_lab::source::{self, Origin, SourceFormat};
use foretell_service::http::auth::Keys;
use foretell_service::policies::PolicyDocument;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::IpAddr;

const DEFAULTS: Defaults<'_> = Defaults { tenant: "default", time_ms: NOW_MS };

/// A decoder, or several of one kind.
#[derive(Debug, Clone, Copy)]
pub struct FuzzTarget {
    /// Name of the target and of its corpus.
    pub name: &'static str,
    /// Decodes bytes; panics if a guarantee does not hold.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, run }
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    target("record", record),
    target("structured", structured),
    target("binary", foretell_service::http::fuzz::binary),
    target("headers", foretell_service::http::fuzz::headers),
    target("cursors", foretell_service::http::fuzz::cursors),
    target("content_encoding", foretell_service::http::fuzz::content_encoding),
    target("login_policy", |bytes| policy::<login::LoginPolicy>(bytes, &login::LoginPolicy::default())),
    target("reminders_policy", |bytes| {
        policy::<reminders::ReminderPolicy>(bytes, &reminders::ReminderPolicy::default());
    }),
    target("model", |bytes| policy::<PublishedDocument>(bytes, &PublishedDocument::nothing(vec!["sex".to_owned()]))),
    target("expression", expression),
    target("toml", toml),
    target("api_keys", api_keys),
    target("netset", netset),
    target("mmdb", mmdb),
    target("rba", |bytes| history(bytes, SourceFormat::Rba)),
    target("noshow", |bytes| history(bytes, SourceFormat::Noshow)),
    target("events", |bytes| history(bytes, SourceFormat::Events)),
    target("time_zone", time_zone),
    target("user_agent", user_agent),
    target("dead_letter", dead_letter),
    target("decision", decision),
    target("patch", patched),
    target("log_block", foretell_disk::log::fuzz::block),
    target("row", row),
    target("store", store),
    target("journal", crate::ops::import::fuzz_journal),
];

fn produced(bytes: &[u8], topic: Topic) -> Record {
    let (headers, body) = message(bytes);
    let (key, value) = (Some(Bytes::from_static(b"default:u")), Bytes::copy_from_slice(body));
    written(NewRecord { topic, key, value, headers })
}

fn record(bytes: &[u8]) {
    let record = produced(bytes, Topic::Logins);
    let kept = codec::decode(&record);
    let incoming = gate::record(&record);
    // A byte order mark is the only thing that is accepted in incoming records but not in the log.
    let is_marked = record.value.starts_with(document::BYTE_ORDER_MARK);
    if let (Ok(event), false) = (&incoming, is_marked) {
        assert_eq!(kept.as_ref(), Ok(event), "the stricter reading accepts no more");
    }
    for event in kept.iter().chain(&incoming) {
        let again = written(codec::encode_event(event, &[]));
        assert_eq!(codec::decode(&again).as_ref(), Ok(event), "what is understood can be written");
        let _ = codec::check_record(event, &record, 8);
    }
    if let Ok(value) = codec::structured(&record) {
        let _ = codec::decode_structured(&value, DEFAULTS);
    }
}

fn structured(bytes: &[u8]) {
    let Ok(value) = json::parse(bytes, "") else { return };
    for event in value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice) {
        let Ok(parsed) = codec::decode_structured(event, DEFAULTS) else { continue };
        let again = codec::decode_structured(&codec::structured_event(&parsed), DEFAULTS);
        assert_eq!(again.as_ref().map(|again| &again.event), Ok(&parsed.event), "sent again it is the same event");
        admitted(parsed);
    }
}

fn policy<D: PolicyDocument>(bytes: &[u8], settings: &D) {
    let syntax = if document::without_byte_order_mark(bytes).trim_ascii_start().starts_with(b"{") {
        Syntax::Json
    } else {
        Syntax::Toml
    };
    let Ok(document) = document::parse(bytes, syntax, TEXT_BYTES_MAX) else { return };
    if D::read(&document, settings).is_ok() {
        let again = json::parse(document.to_string().as_bytes(), "").expect("invariant: a document is written as JSON");
        assert!(D::read(&again, settings).is_ok(), "a document that is published is read again: {document}");
    }
}

fn expression(bytes: &[u8]) {
    let Ok(when) = std::str::from_utf8(bytes) else { return };
    let rule = serde_json::json!({"rules": [{"code": "OURS", "when": when, "factor": 2.0}]});
    let _ = login::LoginPolicy::read(&rule, &login::LoginPolicy::default());
}

fn toml(bytes: &[u8]) {
    let Ok(text) = document::text(bytes) else { return };
    if text.len() > TEXT_BYTES_MAX || depth::check(text).is_err() {
        return;
    }
    if let Ok(value) = document::from_toml::<toml::Value>(text) {
        assert!(levels(&value) <= depth::LEVELS_MAX + 1, "deeper than was counted: {text}");
    }
}

fn levels(value: &toml::Value) -> usize {
    let within = match value {
        toml::Value::Array(items) => items.iter().map(levels).max(),
        toml::Value::Table(table) => table.values().map(levels).max(),
        _ => None,
    };
    1 + within.unwrap_or(0)
}

fn api_keys(bytes: &[u8]) {
    if let Ok(text) = document::text(bytes) {
        let _ = Keys::parse(text);
    }
}

const ADDRESSES: [&str; 5] = ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:203.0.113.9", "64:ff9b::102:304"];

fn addresses() -> impl Iterator<Item = IpAddr> {
    ADDRESSES.iter().filter_map(|address| address.parse().ok())
}

fn netset(bytes: &[u8]) {
    for bogons in [Bogons::Leave, Bogons::Take] {
        if let Ok(read) = netset::read(bytes, 1_000, bogons) {
            assert!(read.prefixes <= 1_000);
            addresses().for_each(|address| {
                let _ = read.set.contains(address);
            });
        }
    }
}

fn mmdb(bytes: &[u8]) {
    let Ok(geo) = Geo::of_bytes(bytes.to_vec()) else { return };
    let _ = geo.built_ms();
    for place in addresses().filter_map(|address| geo.locate(address).ok()) {
        if let Some((latitude, longitude)) = place.coordinates {
            assert!(latitude.abs() <= 90.0 && longitude.abs() <= 180.0, "{latitude} {longitude}");
        }
    }
}

fn history(bytes: &[u8], format: SourceFormat) {
    let Ok(loaded) = source::read_from(bytes, Origin::default(), format) else { return };
    for sourced in &loaded.events {
        let parsed = sourced.parsed();
        if GateContext::of_operator(NOW_MS).check(&parsed.event).is_ok() {
            let sent = codec::decode_structured(&sourced.structured(), DEFAULTS).map(|parsed| parsed.event);
            assert_eq!(sent.as_ref(), Ok(&sourced.event), "a service reads what is appended without one");
        }
        admitted(parsed);
    }
}

fn time_zone(bytes: &[u8]) {
    let Ok(rules) = Rules::over_bundled(Some("2031a"), vec![("Mars/Base".to_owned(), bytes.to_vec())]) else { return };
    let Some(zone) = rules.get("Mars/Base") else { return };
    for second in [0, NOW_MS / 1_000, 4_133_980_799] {
        if let Ok(at) = jiff::Timestamp::from_second(second) {
            let offset = zone.to_offset(at);
            let _ = offset.to_datetime(at).to_zoned(zone.clone());
        }
    }
}

fn user_agent(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(agent::parse(&text), agent::parse(&text), "a fold reads it again and again");
}

fn dead_letter(bytes: &[u8]) {
    let record = produced(bytes, Topic::DeadLetters);
    if let Some(resolved) = ResolutionRecord::read(&record) {
        let again = ResolutionRecord::read(&written(resolved.record(None)));
        assert_eq!(again, Some(resolved), "a resolution record is read as it was written");
    }
    let Some(letter) = Letter::read(&record) else { return };
    let terms = repair::RepairContext { patch: None, attempts_max: 3, now_ms: NOW_MS };
    if let Ok((repaired, _)) = repair::repair(&letter, &record, &terms) {
        let repaired = written(repaired);
        let event = gate::record(&repaired).expect("what is sent again is folded");
        assert_eq!(codec::check_record(&event, &repaired, 1), Ok(()));
    }
}

fn decision(bytes: &[u8]) {
    if let Some(kept) = StoredDecision::read(&produced(bytes, Topic::Decisions)) {
        let _ = kept.is_login();
        let _ = kept.verdict("id", None);
    }
}

fn patched(bytes: &[u8]) {
    let Ok(patch) = serde_json::from_slice::<json_patch::Patch>(document::without_byte_order_mark(bytes)) else {
        return;
    };
    let mut event = serde_json::json!({"id": "e", "data": {"user_id": "u", "list": [1, {"a": null}]}});
    let _ = patch::apply(&mut event, &patch);
    let text = serde_json::to_vec(&event).expect("invariant: a value has a JSON form");
    assert!(serde_json::from_slice::<Value>(&text).is_ok(), "a patched event is no deeper than a parser reads");
}

/// A row of the view that the first byte chooses.
fn row(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    if let Ok(cell) = Cell::decode(bytes) {
        assert_eq!(Cell::decode(&cell.encode()), Ok(cell));
    }
    let view = View::ALL[usize::from(*first) % View::ALL.len()];
    for bucket in [Bucket::starts(0, 0), Bucket::Calendar { partition: 0 }] {
        view::with_state(&RowKey::in_bucket(view, bucket, "default:u".to_owned()), State(bytes));
    }
}

/// Decodes a state and encodes it again.
struct State<'a>(&'a [u8]);

impl State<'_> {
    fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(self) {
        if let Ok(state) = decode_state::<T>(self.0) {
            assert_eq!(decode_state::<T>(&encode_state(&state)), Ok(state), "a row is read as it is written");
        }
    }
}

impl StateVisitor for State<'_> {
    type Output = ();

    fn owner<F: Fold>(self) {
        self.again::<F::Owner>();
    }

    fn aggregate<A: AggregateView + Into<Aggregate>>(self) {
        self.again::<A>();
    }
}

fn store(bytes: &[u8]) {
    foretell_disk::store::fuzz_stored(bytes);
    if let Ok(pointer) = serde_json::from_slice::<Pointer>(bytes) {
        let text = serde_json::to_string(&pointer).expect("invariant: a pointer has a JSON form");
        assert_eq!(serde_json::from_str::<Pointer>(&text).ok(), Some(pointer), "a pointer is read as it is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn corpus(target: &FuzzTarget) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// Every input that once caused a panic, and the seeds of generated inputs: complete, truncated, and changed.
    #[test]
    fn no_input_of_the_corpus_is_a_panic() {
        for target in TARGETS {
            let corpus = corpus(target);
            assert!(!corpus.is_empty(), "{} has no corpus", target.name);
            for (_, bytes) in &corpus {
                (target.run)(bytes);
                let step = bytes.len() / 16 + 1;
                for at in (0..bytes.len()).step_by(step) {
                    (target.run)(&bytes[..at]);
                    for byte in [0, b'"', b'9', 0x80, 0xff] {
                        let mut changed = bytes.clone();
                        changed[at] = byte;
                        (target.run)(&changed);
                    }
                }
            }
        }
    }

    #[test]
    fn every_corpus_belongs_to_a_target_and_is_small() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let target = TARGETS.iter().find(|target| target.name == name);
            let target = target.unwrap_or_else(|| panic!("no target reads the corpus {name}"));
            bytes += corpus(target).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
        assert!(bytes < 512 * 1024, "{bytes} bytes");
    }
}
