//! Tests with a few valid and invalid rows of each format.

use super::*;
use flate2::{Compression, write::GzEncoder};
use foretell_events::appointment::{AppointmentFact, Scalar, StartsAt};
use foretell_events::login::LoginFact;
use foretell_events::{Fact, agent, gate, zone};
use std::io::Write;

/// Rows 0, 2 and 3 of the RBA data set (Wiefling, Jørgensen, Thunem, Lo Iacono, CC BY 4.0), the first one moved to the
/// end, and an invented one.
const RBA: &str = r#"index,Login Timestamp,User ID,Round-Trip Time [ms],IP Address,Country,Region,City,ASN,User Agent String,Browser Name and Version,OS Name and Version,Device Type,Login Successful,Is Attack IP,Is Account Takeover
2,2020-02-03 12:43:55.900,-3.28E+18,,81.167.144.58,NO,Vestland,Urangsvag,29695,"Mozilla/5.0  (iPad; CPU OS 7_1 like Mac OS X) AppleWebKit/533.1 (KHTML, like Gecko Version/4.0 Mobile Safari/533.1 variation/277457",Android 2.3.3.2672,iOS 7.1,mobile,TRUE,FALSE,FALSE
3,2020-02-03 12:43:56.200,-4.32E+18,,170.39.78.152,US,-,-,393398,"Mozilla/5.0  (Linux; Android 4.1; Galaxy Nexus Build/JRN84D) Build/OPS27.82-19-4; wv AppleWebKit/537.36 (KHTML, like Gecko Version/4.0 Chrome/85.0.4183.127 Mobile Safari/537.36",Chrome Mobile WebView 85.0.4183,Android 4.1,mobile,FALSE,FALSE,FALSE
made-up,2020-02-03 12:43:55.900,7,35.5,192.0.2.1,de,-,-,,,,,,True,TRUE,TRUE
0,2020-02-03 12:43:30.800,-4.32E+18,,10.0.65.171,NO,-,-,29695,Mozilla/5.0  (iPhone; CPU iPhone OS 13_4 like Mac OS X) Gecko/20150101 Firefox/20.0.0.1618 (Chrome variation/248113,Firefox 20.0.0.1618,iOS 13.4,mobile,FALSE,FALSE,FALSE
"#;

const SYNTHETIC: &str = "\
index,timestamp,user_id,ip,asn,country,ua,browser,os,device_type,n_user_before,score_causal,score_notebook_leaky
0,2020-02-03T12:14:17,1016,198.51.1.12,64503,DE,UA-00,Safari 17,Android 14,mobile,0,,
1,2020-02-03T12:24:17,1000,198.51.1.9,64496,NO,UA-18,Safari 17,iOS 17,mobile,0,,
";

/// Invented; the last three show errors and odd values of the set.
const NOSHOW: &str = "\
PatientId,AppointmentID,Gender,ScheduledDay,AppointmentDay,Age,Neighbourhood,Scholarship,Hipertension,Diabetes,Alcoholism,Handcap,SMS_received,No-show
4711,900001,F,2016-03-10T15:04:05Z,2016-03-12T00:00:00Z,33,NORTH,0,1,0,0,2,1,Yes
4712.5,900002,M,2016-03-10T08:00:00Z,2016-03-10T00:00:00Z,0,SOUTH,0,0,0,0,0,0,No
4713,900003,M,2016-03-10T08:00:00Z,2016-03-09T00:00:00Z,50,SOUTH,0,0,0,0,0,0,No
4714,900004,F,2016-03-10T08:00:00Z,2016-03-11T00:00:00Z,-1,SOUTH,0,0,0,0,0,0,No
1.2E+13,900005,F,2016-03-10T07:00:00Z,2016-03-11T00:00:00Z,61,SOUTH,0,0,0,0,0,0,No
";

const EVENTS: &str = concat!(
    r#"{"specversion":"1.0","id":"2","source":"urn:t","type":"foretell.user.erased","time":"2026-02-02T00:00:00Z","data":{"user_id":"u","why":"asked"},"traceparent":"00-1"}"#,
    "\r\n\n",
    r#"{"specversion":"1.0","id":"1","source":"urn:t","type":"foretell.user.erased","time":"2026-02-01T00:00:00Z","data":{"user_id":"u"},"tenant":"own"}"#,
);

fn origin() -> Origin<'static> {
    Origin { file: "file.csv", tenant: "acme" }
}

fn load(text: &str, format: SourceFormat) -> SourceData {
    read_from(text.as_bytes(), origin(), format).unwrap()
}

fn refusal(text: &str, format: SourceFormat) -> String {
    read_from(text.as_bytes(), origin(), format).unwrap_err().to_string()
}

fn ids(loaded: &SourceData) -> Vec<&str> {
    loaded.events.iter().map(|sourced| sourced.event.envelope.id.as_str()).collect()
}

fn login(sourced: &Sourced) -> &foretell_events::login::Login {
    match &sourced.event.fact {
        Fact::Login(LoginFact::Attempted(login)) => login,
        other => panic!("{other:?}"),
    }
}

fn at(text: &str) -> i64 {
    codec::parse_rfc3339(text).unwrap()
}

#[test]
fn logins_of_the_data_set_come_in_order_of_time() {
    let loaded = load(RBA, SourceFormat::Rba);
    assert_eq!(ids(&loaded), ["0", "2", "made-up", "3"]);
    assert_eq!((loaded.rows, loaded.skipped), (4, 0));
    let envelope = &loaded.events[0].event.envelope;
    assert_eq!((envelope.source.as_str(), envelope.tenant.as_str()), (rba::SOURCE, "acme"));
    assert_eq!(envelope.time_ms, at("2020-02-03T12:43:30.800Z"));
    let first = login(&loaded.events[1]);
    assert_eq!((first.user_id.as_str(), first.succeeded), ("-3.28E+18", true));
    assert_eq!((first.attempt.asn, first.attempt.country.as_deref()), (Some(29_695), Some("NO")));
    assert_eq!((first.attempt.city.as_deref(), first.attempt.rtt_ms), (Some("Urangsvag"), None));
    assert!(first.attempt.user_agent.as_deref().unwrap().contains("(KHTML, like Gecko"));
    assert!(!login(&loaded.events[3]).succeeded);
}

#[test]
fn missing_columns_are_omitted_and_labels_are_not_part_of_the_event() {
    let loaded = load(RBA, SourceFormat::Rba);
    let made_up = &loaded.events[2];
    assert_eq!(made_up.label, Some(SourceLabel::Row { attack_ip: true, account_takeover: true }));
    assert_eq!(loaded.events[0].label, Some(SourceLabel::Row { attack_ip: false, account_takeover: false }));
    let attempt = &login(made_up).attempt;
    assert_eq!((attempt.country.as_deref(), attempt.rtt_ms), (Some("DE"), Some(35.5)));
    assert_eq!((&attempt.user_agent, &attempt.city, attempt.asn), (&None, &None, None));
    assert!(!made_up.structured().to_string().to_lowercase().contains("attack"));
}

#[test]
fn codes_that_name_no_country_are_absent() {
    for (code, read) in [("no", Some("NO")), ("XK", Some("XK")), ("A1", None), ("EU", None), ("AP", None)] {
        let text = format!(
            "index,timestamp,user_id,ip,asn,country,ua,browser,os,device_type\n\
             0,2020-02-03T12:24:17,u,192.0.2.1,1,{code},a,b,o,mobile\n"
        );
        assert_eq!(login(&load(&text, SourceFormat::Rba).events[0]).attempt.country.as_deref(), read, "{code}");
    }
}

#[test]
fn synthetic_histories_are_known_by_their_first_line() {
    let loaded = load(SYNTHETIC, SourceFormat::Rba);
    assert_eq!(ids(&loaded), ["0", "1"]);
    let second = &loaded.events[1];
    assert_eq!((second.label, second.event.envelope.source.as_str()), (None, rba::SOURCE_SYNTHETIC));
    assert_eq!(second.event.envelope.time_ms, at("2020-02-03T12:24:17Z"));
    assert_eq!(login(second).attempt.user_agent.as_deref(), Some("UA-18"));
    assert!(login(second).succeeded);
}

#[test]
fn an_appointment_is_booked_and_known_at_the_end_of_its_day() {
    let loaded = load(NOSHOW, SourceFormat::Noshow);
    let booked = ["900005-booked", "900002-booked", "900001-booked"];
    let outcomes = ["900002-outcome", "900005-outcome", "900001-outcome"];
    assert_eq!(ids(&loaded), [booked, outcomes].concat());
    assert_eq!((loaded.rows, loaded.skipped), (5, 2));
    let times: Vec<_> = loaded.events[3..].iter().map(|sourced| sourced.event.envelope.time_ms).collect();
    assert_eq!(times, ["2016-03-11", "2016-03-12", "2016-03-13"].map(|day| at(&format!("{day}T00:00:00Z"))));
    assert!(
        matches!(&loaded.events[5].event.fact, Fact::Appointment(AppointmentFact::Missed(visit)) if visit.client_id == "4711")
    );
    assert!(
        matches!(&loaded.events[3].event.fact, Fact::Appointment(AppointmentFact::Attended(visit)) if visit.client_id == "4712.5")
    );
    assert!(loaded.events.iter().all(|sourced| sourced.event.envelope.source == noshow::SOURCE));
}

#[test]
fn a_booking_has_its_day_its_lead_and_what_was_known() {
    let loaded = load(NOSHOW, SourceFormat::Noshow);
    let leads: Vec<_> = loaded.events[..3].iter().map(|sourced| booking(sourced).1).collect();
    assert_eq!(leads, [1, 0, 2]);
    let (attributes, _) = booking(&loaded.events[2]);
    assert_eq!(attributes["age"], Scalar::Number(33.0));
    assert_eq!(attributes["handicap"], Scalar::Number(2.0));
    assert_eq!(attributes["neighbourhood"], Scalar::Text("NORTH".into()));
    assert!(!attributes.keys().any(|name| name.to_lowercase().contains("sms")), "{attributes:?}");
}

fn booking(sourced: &Sourced) -> (&std::collections::BTreeMap<String, Scalar>, i32) {
    let Fact::Appointment(AppointmentFact::Booked(booking)) = &sourced.event.fact else {
        panic!("{:?}", sourced.event.fact)
    };
    let StartsAt::Instant { at_ms, zone: Some(name) } = &booking.starts_at else { panic!("{booking:?}") };
    let lead = zone::lead_days(booking.booked_at_ms.unwrap(), *at_ms, &zone::get(name).unwrap());
    (&booking.attributes, lead)
}

#[test]
fn lines_of_events_are_passed_on_unchanged() {
    let loaded = load(EVENTS, SourceFormat::Events);
    assert_eq!(ids(&loaded), ["1", "2"]);
    let tenants: Vec<_> = loaded.events.iter().map(|sourced| sourced.event.envelope.tenant.as_str()).collect();
    assert_eq!(tenants, ["own", "acme"]);
    let shown = loaded.events[1].structured();
    assert_eq!((&shown["data"]["why"], &shown["traceparent"]), (&"asked".into(), &"00-1".into()));
    assert_eq!(loaded.events[1].record().key.as_deref(), Some(&b"acme:u"[..]));
}

#[test]
fn the_events_of_a_file_can_be_appended_and_read_again() {
    for (text, format) in [(RBA, SourceFormat::Rba), (NOSHOW, SourceFormat::Noshow), (EVENTS, SourceFormat::Events)] {
        for sourced in load(text, format).events {
            let defaults = codec::Defaults { tenant: "other", time_ms: 0 };
            assert_eq!(codec::decode_structured(&sourced.structured(), defaults).unwrap().event, sourced.event);
        }
    }
}

#[test]
fn a_gzipped_file_is_the_file_in_it() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(RBA.as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logins.csv.gz");
    std::fs::write(&path, &packed).unwrap();
    let (plain, unpacked) = (load(RBA, SourceFormat::Rba), read(&path, SourceFormat::Rba, "acme").unwrap());
    assert_eq!(plain.events, unpacked.events);
    assert_eq!(plain.digest, unpacked.digest);
    assert_eq!(plain.digest, load(RBA, SourceFormat::Rba).digest);
    let torn = read_from(&packed[..packed.len() / 2], origin(), SourceFormat::Rba).unwrap_err();
    assert!(torn.to_string().starts_with("cannot read file.csv, line "), "{torn}");
    let absent = read(&folder.path().join("absent"), SourceFormat::Rba, "acme").unwrap_err();
    assert!(matches!(absent, Error::Open { .. }), "{absent}");
    let empty = format!("{:x?}", load("", SourceFormat::Events).digest);
    assert!(empty.contains("e3b0c44298fc1c149afbf4c8996fb924"), "{empty}");
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    for (format, text, from, to, expected) in [
        (
            SourceFormat::Rba,
            RBA,
            "81.167.144.58",
            "81.167.144",
            r#"file.csv, line 2, IP Address: "81.167.144" is not an"#,
        ),
        (SourceFormat::Rba, RBA, ",29695,\"", ",AS29695,\"", "file.csv, line 2, ASN: must be a number, not a string"),
        (
            SourceFormat::Rba,
            RBA,
            "2020-02-03 12:43:56.200",
            "2020-02-30 12:43:56",
            "file.csv, line 3, Login Timestamp: ",
        ),
        (
            SourceFormat::Rba,
            RBA,
            "True,TRUE",
            "maybe,TRUE",
            "file.csv, line 4, Login Successful: is neither true nor false",
        ),
        (SourceFormat::Rba, RBA, "made-up,", ",", "file.csv, line 4, index: is empty"),
        (SourceFormat::Rba, RBA, ",7,35.5", ",,35.5", "file.csv, line 4, User ID: user_id is required"),
        (SourceFormat::Rba, RBA, ",7,35.5", ",35.5", "cannot read file.csv, line 4: "),
        (SourceFormat::Rba, RBA, "IP Address", "Address", "file.csv has no column \"IP Address\""),
        (SourceFormat::Rba, "", "", "", "file.csv has no column \"index\""),
        (SourceFormat::Noshow, RBA, "", "", "file.csv has no column \"AppointmentID\""),
        (SourceFormat::Noshow, NOSHOW, ",33,", ",old,", "file.csv, line 2, Age: is not a number"),
        (SourceFormat::Noshow, NOSHOW, "2016-03-12T00", "2016-03-32T00", "file.csv, line 2, AppointmentDay: "),
        (SourceFormat::Noshow, NOSHOW, "1,Yes", "1,Ja", "file.csv, line 2, No-show: is neither yes nor no"),
        (SourceFormat::Noshow, NOSHOW, "4712.5", "", "file.csv, line 3, PatientId: client_id is required"),
        (
            SourceFormat::Events,
            EVENTS,
            "\"time\":\"2026-02-02T00:00:00Z\",",
            "",
            "file.csv, line 1, /time: time is required",
        ),
        (SourceFormat::Events, EVENTS, "{\"user_id\":\"u\"}", "{}", "file.csv, line 3, /data/user_id: MISSING_FIELD"),
        (SourceFormat::Events, EVENTS, "\"data\"", "data", "cannot read file.csv, line 1: "),
    ] {
        let broken = text.replacen(from, to, 1);
        let refused = refusal(&broken, format);
        assert!(refused.starts_with(expected), "{from} -> {to}: {refused}");
    }
    let endless = vec![b' '; foretell_events::record::RECORD_BYTES_MAX + 1];
    let refused = read_from(&endless[..], origin(), SourceFormat::Events).unwrap_err();
    assert!(refused.to_string().contains("longer than 1048576 bytes"), "{refused}");
    let binary = read_from(&b"index,\xff\n\xff\xfe"[..], origin(), SourceFormat::Rba).unwrap_err();
    assert!(matches!(binary, Error::Read { .. }), "{binary}");
}

#[test]
fn windows_files_say_what_others_say() {
    for (text, format) in [
        (RBA, SourceFormat::Rba),
        (SYNTHETIC, SourceFormat::Rba),
        (NOSHOW, SourceFormat::Noshow),
        (EVENTS, SourceFormat::Events),
    ] {
        let expected = load(text, format).events;
        let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
        for written in [text.trim_end(), &crlf, crlf.trim_end()] {
            for marked in [written.to_owned(), format!("\u{feff}{written}")] {
                assert_eq!(load(&marked, format).events, expected, "{marked:?}");
            }
        }
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let refused = read_from(&utf16[..], origin(), format).unwrap_err().to_string();
        assert_eq!(refused, "cannot read file.csv, line 1: it is UTF-16; save it as UTF-8");
    }
    assert!(load("\u{feff}", SourceFormat::Events).events.is_empty());
    let empty = refusal("\u{feff}", SourceFormat::Noshow);
    assert_eq!(empty, "file.csv has no column \"AppointmentID\"; its first line is \"\". Is it of another format?");
}

#[test]
fn formats_are_known_by_name() {
    assert!(SourceFormat::ALL.iter().all(|format| SourceFormat::parse(format.name()) == Some(*format)));
    assert_eq!(SourceFormat::parse("csv"), None);
}

/// A file is not trusted: a few kilobytes can decompress to gigabytes without the end of a row.
#[test]
fn a_row_without_an_end_is_refused_with_its_line_before_memory_runs_out() {
    let (names, _) = RBA.split_once('\n').unwrap();
    for (format, head, line) in [
        (SourceFormat::Rba, format!("{names}\n1,\""), 2),
        (SourceFormat::Rba, format!("{RBA}\""), 6),
        (SourceFormat::Rba, String::new(), 1),
        (SourceFormat::Noshow, format!("{NOSHOW}4715,"), 7),
        (SourceFormat::Noshow, "\"".to_owned(), 1),
        (SourceFormat::Events, String::new(), 1),
    ] {
        let endless = head.as_bytes().chain(io::repeat(b'a'));
        let refusal = read_from(endless, origin(), format).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("cannot read file.csv, line {line}: ")), "{refusal}");
        assert!(refusal.contains("longer than 1048576 bytes"), "{refusal}");
    }
}

#[test]
fn a_row_of_a_record_s_size_is_read_and_rows_are_bounded_one_by_one() {
    let wide = |bytes: usize| SYNTHETIC.replacen(",0,,\n", &format!(",0,,{}\n", "x".repeat(bytes)), 1);
    let long = wide(foretell_events::record::RECORD_BYTES_MAX - 100);
    let (names, rows) = long.split_once('\n').unwrap();
    let row = rows.lines().next().unwrap();
    let many = format!("{names}\n{}\n", [row; 5].join("\n"));
    assert_eq!(load(&many, SourceFormat::Rba).rows, 5);
    assert!(
        refusal(&wide(2 * foretell_events::record::RECORD_BYTES_MAX), SourceFormat::Rba)
            .contains("line 2: a row is longer")
    );
}

#[test]
fn country_codes_that_name_no_country_are_counted() {
    let loaded = load(&RBA.replace(",NO,", ",QQ,"), SourceFormat::Rba);
    assert_eq!((loaded.rows, loaded.without_country), (4, 2));
    assert_eq!(load(RBA, SourceFormat::Rba).without_country, 0);
}

/// What was sent in three bytes may be encoded in twelve.
#[test]
fn unknown_fields_are_measured_as_they_are_written_however_short_the_line() {
    let numbers = format!("[{}]", ["1e9"; 800].join(","));
    let line = EVENTS.lines().next().unwrap().replace("\"asked\"", &numbers);
    assert!(line.len() < gate::UNKNOWN_BYTES_MAX, "{} bytes", line.len());
    assert_eq!(load(&line, SourceFormat::Events).dropped, 1);
}

/// The data set's levels come from the same rules, of 2021; its user agents are partly invented (two systems in one),
/// so that not all can match.
#[test]
fn most_of_the_public_data_set_is_read_as_its_authors_read_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/rba-sample.csv.gz");
    let loaded = read(&path, SourceFormat::Rba, "default").unwrap();
    let (mut systems, mut devices) = (0, 0);
    for sourced in &loaded.events {
        let Fact::Login(LoginFact::Attempted(login)) = &sourced.event.fact else { panic!("a file of logins") };
        let agent = agent::read(login.attempt.user_agent.as_deref().unwrap_or_default());
        systems += usize::from(agent.os == login.attempt.os);
        devices += usize::from(agent.device.map(agent::DeviceType::name) == login.attempt.device_type.as_deref());
    }
    assert!(systems > 1_900 && devices > 1_550, "{systems} systems and {devices} kinds of device of 2000");
}
