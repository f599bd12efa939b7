//! Tests with data files that appear, change and disappear, written by the tests themselves.

use super::*;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicI64, Ordering};

const NOW_MS: i64 = 1_772_359_200_000;

struct Manual(AtomicI64);

impl Clock for Manual {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// An MMDB file of IPv4 networks, built at `built_ms`.
fn mmdb(networks: &[(&str, Value)], built_ms: i64) -> Vec<u8> {
    mmdb_of(IpVersion::V4, networks, built_ms)
}

fn mmdb_of(version: IpVersion, networks: &[(&str, Value)], built_ms: i64) -> Vec<u8> {
    let mut database = Database::default();
    database.metadata.ip_version = version;
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Test".into();
    database.metadata.build_epoch = u64::try_from(built_ms / 1000).unwrap();
    for (network, record) in networks {
        let data = database.insert_value(record).unwrap();
        database.insert_node(network.parse::<IpAddrWithMask>().unwrap(), data);
    }
    database.write_to(Vec::new()).unwrap()
}

fn cities(built_ms: i64) -> Vec<u8> {
    let nested = json!({
        "country": {"iso_code": "IE", "geoname_id": 1}, "city": {"names": {"de": "x", "en": "Dublin"}},
        "location": {"latitude": 53.3, "longitude": -6.2, "accuracy_radius": 10},
    });
    let flat = json!({"country_code": "no", "city": "Oslo", "latitude": 59.9, "longitude": 10.7, "postcode": "0001"});
    let odd = json!({"country_code": "EU", "city": {"geoname_id": 1}, "latitude": 1000.0, "longitude": 1.0});
    let networks = [
        ("203.0.113.0/24", nested),
        ("198.51.100.0/24", flat),
        ("192.0.2.0/24", odd),
        ("10.0.0.0/8", json!({"country_code": "DE"})),
    ];
    mmdb(&networks, built_ms)
}

fn systems(built_ms: i64) -> Vec<u8> {
    let record = json!({"autonomous_system_number": 64_500_u32, "autonomous_system_organization": "Example"});
    mmdb(&[("203.0.113.0/24", record), ("198.51.100.0/24", json!({"autonomous_system_number": ""}))], built_ms)
}

/// Data files, a clock, and an enricher that uses both.
struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<Manual>,
    enricher: Arc<Enricher>,
}

impl Fixture {
    /// Files of these names are configured; those with content exist.
    fn new(asn: Option<&[u8]>, city: Option<&[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            geo_asn: Some(dir.path().join("asn.mmdb")),
            geo_city: Some(dir.path().join("city.mmdb")),
            deny_lists: vec![dir.path().join("deny.netset")],
            allow_lists: vec![dir.path().join("allow.netset")],
            ..Config::default()
        };
        let clock = Arc::new(Manual(AtomicI64::new(NOW_MS)));
        let fixture = Self { enricher: Enricher::new(&config, clock.clone()), dir, clock };
        for (name, content) in [("asn.mmdb", asn), ("city.mmdb", city)] {
            content.into_iter().for_each(|content| fixture.put(name, content));
        }
        fixture.enricher.reload();
        fixture
    }

    fn put(&self, name: &str, content: &[u8]) {
        let aside = self.dir.path().join("aside");
        std::fs::write(&aside, content).unwrap();
        std::fs::rename(aside, self.dir.path().join(name)).unwrap();
    }

    fn reload(&self, name: &str, content: &[u8]) {
        self.put(name, content);
        self.enricher.reload();
    }

    fn enriched(&self, mut attempt: Attempt) -> (Attempt, Vec<&'static str>) {
        let warnings = self.enricher.enrich(&mut attempt);
        (attempt, warnings)
    }

    fn at(&self, ip: &str) -> (Attempt, Vec<&'static str>) {
        self.enriched(from(ip))
    }

    fn country(&self, ip: &str) -> Option<String> {
        self.at(ip).0.country
    }
}

fn from(ip: &str) -> Attempt {
    Attempt::from_ip(ip.parse().unwrap())
}

type Short<'a> = (Option<u32>, Option<&'a str>, Option<&'a str>, Option<f64>, Option<f64>);

fn short(attempt: &Attempt) -> Short<'_> {
    let Attempt { asn, country, city, latitude, longitude, .. } = attempt;
    (*asn, country.as_deref(), city.as_deref(), *latitude, *longitude)
}

#[test]
fn both_layouts_are_read_and_what_makes_no_sense_is_not() {
    let files = Fixture::new(Some(&systems(NOW_MS)), Some(&cities(NOW_MS)));
    for (ip, found) in [
        ("203.0.113.9", (Some(64_500), Some("IE"), Some("Dublin"), Some(53.3), Some(-6.2))),
        ("198.51.100.9", (None, Some("NO"), Some("Oslo"), Some(59.9), Some(10.7))),
        ("192.0.2.9", (None, None, None, None, None)),
        ("::ffff:203.0.113.9", (Some(64_500), Some("IE"), Some("Dublin"), Some(53.3), Some(-6.2))),
        ("8.8.8.8", (None, None, None, None, None)),
        ("10.1.2.3", (None, None, None, None, None)), // Although the file contains it.
        ("2001:db8::1", (None, None, None, None, None)), // The file only contains IPv4.
    ] {
        let (attempt, warnings) = files.at(ip);
        assert_eq!((short(&attempt), warnings), (found, vec![]), "{ip}");
    }
}

#[test]
fn a_place_too_coarse_to_have_travelled_from_has_no_coordinates() {
    let nested = |city: Value, radius: Value| {
        let location = json!({"latitude": 37.7, "longitude": -97.8, "accuracy_radius": radius});
        json!({"country": {"iso_code": "US"}, "city": city, "location": location})
    };
    let (wichita, nowhere) = (json!({"names": {"en": "Wichita"}}), json!({"geoname_id": 1}));
    for (what, record, city, is_place) in [
        ("a city", nested(wichita.clone(), json!(100)), Some("Wichita"), true),
        ("a region", nested(wichita.clone(), json!(200)), Some("Wichita"), false),
        ("a radius as text", nested(wichita, json!("1000")), Some("Wichita"), false),
        ("the middle of a country", nested(nowhere.clone(), json!(1000)), None, false),
        ("a middle that claims to be near", nested(nowhere, json!(5)), None, false),
        (
            "a flat record of a country",
            json!({"country_code": "US", "latitude": 37.7, "longitude": -97.8}),
            None,
            false,
        ),
        (
            "a flat record of a city",
            json!({"country_code": "US", "city": "Wichita", "latitude": 1, "longitude": 2}),
            Some("Wichita"),
            true,
        ),
        (
            "nowhere",
            json!({"country_code": "US", "city": "Wichita", "latitude": 0, "longitude": 0}),
            Some("Wichita"),
            false,
        ),
    ] {
        let files = Fixture::new(None, Some(&mmdb(&[("203.0.113.0/24", record)], NOW_MS)));
        let (attempt, _) = files.at("203.0.113.9");
        let found = (attempt.country.as_deref(), attempt.city.as_deref(), attempt.latitude.is_some());
        assert_eq!(found, (Some("US"), city, is_place), "{what}");
        assert_eq!(attempt.latitude.is_some(), attempt.longitude.is_some(), "{what}");
    }
}

#[test]
fn lists_treat_the_addresses_of_a_64_alike() {
    let files = Fixture::new(None, None);
    files.put("allow.netset", b"2001:db8:5:5::5\n::ffff:203.0.113.7\n");
    files.reload("deny.netset", b"2001:db8:1:2:3:4:5:6\n::ffff:203.0.113.0/120\n");
    let listed = |ip: &str| files.enricher.listed(ip.parse().unwrap());
    for (ip, denied, exempt) in [
        ("2001:db8:1:2::1", true, false),
        ("2001:db8:1:3::1", false, false),
        ("2001:db8:5:5:ffff::", false, true),
        ("203.0.113.66", true, false),
        ("64:ff9b::203.0.113.66", true, false),
        ("203.0.113.7", false, true),
    ] {
        assert_eq!(listed(ip), ListMatches { denied, exempt }, "{ip}");
    }
}

#[test]
fn a_file_of_both_protocols_knows_an_address_by_every_spelling() {
    let country = |code: &str| json!({"country_code": code});
    // The first 96 bits of an IPv4 address are zero there.
    let networks = [("::cb00:7100/120", country("IE")), ("2001:db8::/32", country("NO")), ("fd00::/8", country("DE"))];
    let files = Fixture::new(None, Some(&mmdb_of(IpVersion::V6, &networks, NOW_MS)));
    for (ip, found) in [
        ("203.0.113.9", Some("IE")),
        ("::ffff:203.0.113.9", Some("IE")),
        ("64:ff9b::cb00:7109", Some("IE")),
        ("2002:cb00:7109::1", Some("IE")),
        ("2001:db8:1::9", Some("NO")),
        ("2001:db9::9", None),
        ("fd00::9", None),     // Local, whatever the file contains.
        ("::cb00:7109", None), // A form of IPv4 addresses that is no longer in use.
    ] {
        assert_eq!(files.country(ip).as_deref(), found, "{ip}");
    }
}

#[test]
fn the_values_of_an_attempt_win_and_are_not_contradicted() {
    let files = Fixture::new(Some(&systems(NOW_MS)), Some(&cities(NOW_MS)));
    let with = |change: fn(&mut Attempt)| {
        let mut attempt = from("203.0.113.9");
        change(&mut attempt);
        files.enriched(attempt).0
    };
    let abroad = with(|attempt| attempt.country = Some("NO".into()));
    assert_eq!(short(&abroad), (Some(64_500), Some("NO"), None, None, None), "no Dublin in Norway");
    let elsewhere = with(|attempt| attempt.city = Some("Cork".into()));
    assert_eq!(short(&elsewhere), (Some(64_500), Some("IE"), Some("Cork"), None, None));
    let same = with(|attempt| attempt.city = Some("dublin".into()));
    assert_eq!(short(&same), (Some(64_500), Some("IE"), Some("dublin"), Some(53.3), Some(-6.2)));
    let half = with(|attempt| attempt.latitude = Some(1.0));
    assert_eq!(short(&half), (Some(64_500), Some("IE"), Some("Dublin"), Some(1.0), None), "a pair or nothing");
    let mine = with(|attempt| attempt.asn = Some(7));
    assert_eq!(mine.asn, Some(7));
}

#[test]
fn a_missing_file_is_neutral_and_reported() {
    let files = Fixture::new(None, Some(&cities(NOW_MS)));
    let (attempt, warnings) = files.at("203.0.113.9");
    assert_eq!((attempt.asn, attempt.country.as_deref(), warnings), (None, Some("IE"), vec![GEO_UNAVAILABLE]));
    assert_eq!(files.at("10.0.0.1").1, Vec::<&str>::new(), "no look-up was needed");
    let mut known = from("203.0.113.9");
    known.asn = Some(7);
    assert_eq!(files.enriched(known).1, Vec::<&str>::new(), "nothing is missing");
    assert_eq!(files.enricher.problems().len(), 3, "a data file and two lists: {:?}", files.enricher.problems());
    assert_eq!(files.enricher.list_warning(), Some(LIST_UNAVAILABLE));
    assert_eq!(files.enricher.listed("203.0.113.9".parse().unwrap()), ListMatches::default());
    let nothing = Enricher::new(&Config::default(), files.clock.clone());
    let mut attempt = from("203.0.113.9");
    assert_eq!((nothing.enrich(&mut attempt), nothing.list_warning()), (vec![], None), "nothing is configured");
    assert_eq!(attempt, from("203.0.113.9"));
}

#[test]
fn a_file_becomes_stale_and_is_then_no_longer_used() {
    let files = Fixture::new(Some(&systems(NOW_MS)), Some(&cities(NOW_MS)));
    for (days, country, warnings) in
        [(60, Some("IE"), vec![]), (61, Some("IE"), vec![GEO_STALE]), (366, None, vec![GEO_STALE])]
    {
        files.clock.0.store(NOW_MS + days * DAY_MS, Ordering::SeqCst);
        let (attempt, warned) = files.at("203.0.113.9");
        assert_eq!((attempt.country.as_deref(), warned), (country, warnings), "after {days} days");
    }
    assert_eq!(files.enricher.stale().len(), 2, "{:?}", files.enricher.stale());
    files.reload("city.mmdb", &cities(NOW_MS + 366 * DAY_MS));
    assert_eq!(files.country("203.0.113.9").as_deref(), Some("IE"));
}

#[test]
fn a_file_is_replaced_and_damaged_ones_are_not_taken() {
    let files = Fixture::new(None, Some(&cities(NOW_MS)));
    let whole = cities(NOW_MS + 1_000);
    for bad in [&b""[..], b"garbage", &whole[..whole.len() - 60], &whole[whole.len() / 2..]] {
        files.reload("city.mmdb", bad);
        assert_eq!(files.country("203.0.113.9").as_deref(), Some("IE"), "{} bytes", bad.len());
        assert!(
            files.enricher.problems()[1].contains("the previous one stays in force"),
            "{:?}",
            files.enricher.problems()
        );
    }
    let moved = mmdb(&[("203.0.113.0/24", json!({"country_code": "FR"}))], NOW_MS);
    files.reload("city.mmdb", &moved);
    assert_eq!(files.country("203.0.113.9").as_deref(), Some("FR"));
    std::fs::remove_file(files.dir.path().join("city.mmdb")).unwrap();
    files.enricher.reload();
    assert_eq!(files.country("203.0.113.9").as_deref(), Some("FR"), "a deleted file stays in force");
}

#[test]
fn a_file_that_is_truncated_or_overwritten_in_place_does_not_end_the_process() {
    let files = Fixture::new(None, Some(&cities(NOW_MS)));
    let path = files.dir.path().join("city.mmdb");
    for content in [Vec::new(), vec![0xa5; 4096]] {
        std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        assert_eq!(files.country("203.0.113.9").as_deref(), Some("IE"), "before the next check");
        files.enricher.reload();
        assert_eq!(files.country("203.0.113.9").as_deref(), Some("IE"));
    }
}

#[test]
fn damage_inside_of_a_file_is_neutral_wherever_it_is() {
    let whole = cities(NOW_MS);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &damaged).unwrap();
        let Ok(geo) = Geo::open(file.path()) else { continue };
        for ip in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "8.8.8.8", "2001:db8::1"] {
            // Any result is fine, as long as there is one.
            let location = geo.locate(ip.parse().unwrap()).unwrap_or_default();
            assert!(location.country.is_none_or(|code| foretell_events::country::exists(&code)));
        }
    }
}

#[test]
fn lists_deny_and_exempt() {
    let files = Fixture::new(None, None);
    files.put("allow.netset", b"203.0.113.7\n10.0.0.0/8\n");
    files.reload("deny.netset", b"# bad\n203.0.113.0/24\n2001:db8::/32\n10.0.0.0/8\n");
    let listed = |ip: &str| {
        let ListMatches { denied, exempt } = files.enricher.listed(ip.parse().unwrap());
        (denied, exempt)
    };
    assert_eq!(listed("203.0.113.66"), (true, false));
    assert_eq!(listed("203.0.113.7"), (false, true), "the allow list wins");
    assert_eq!(listed("2001:db8::9"), (true, false));
    assert_eq!(listed("10.9.9.9"), (false, true));
    assert_eq!(listed("8.8.8.8"), (false, false));
    assert_eq!(files.enricher.list_warning(), None);
    files.reload("deny.netset", b"<html>\n");
    assert_eq!(listed("203.0.113.66"), (true, false), "an invalid list does not replace a valid one");
    files.reload("deny.netset", b"# empty today\n");
    assert_eq!(listed("203.0.113.66"), (false, false));
}

#[tokio::test(start_paused = true)]
async fn the_watch_takes_new_files_up_until_shutdown() {
    let files = Fixture::new(None, None);
    let shutdown = CancellationToken::new();
    let watch = tokio::spawn(files.enricher.clone().watch(shutdown.clone()));
    files.put("city.mmdb", &cities(NOW_MS));
    while files.country("203.0.113.9").is_none() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    shutdown.cancel();
    watch.await.unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (config, key) in [
        (Config { reload_ms: 99, ..Config::default() }, "reload_ms"),
        (Config { stale_days: 400, ..Config::default() }, "expired_days"),
        (Config { deny_lists: vec![PathBuf::new(); 65], ..Config::default() }, "deny_lists"),
    ] {
        assert_eq!(config.validate().unwrap_err().key, key);
    }
    assert_eq!(Config::default().validate(), Ok(()));
}
