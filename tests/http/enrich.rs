//! What files contain about addresses, and user agents about devices: in events, in scores, and in warnings.

use crate::instance::{Answer, Instance, NOW_MS, PARTITIONS, World, event};
use foretell_enrich::{Config, Enricher};
use foretell_events::{Topic, key};
use foretell_ports::log::record_at;
use foretell_service::http::Parts;
use foretell_service::ports::Ports;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const LINUX: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36";

fn mmdb(path: &Path, networks: &[(&str, Value)]) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V4;
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Test".into();
    database.metadata.build_epoch = u64::try_from(NOW_MS / 1000).unwrap();
    for (network, record) in networks {
        let data = database.insert_value(record).unwrap();
        database.insert_node(network.parse::<IpAddrWithMask>().unwrap(), data);
    }
    database.write_to(std::fs::File::create(path).unwrap()).unwrap();
}

/// An instance with files that locate 203.0.113.0/24 in Dublin and 198.51.100.0/24 in Oslo.
struct Enriched {
    instance: Instance,
    enricher: Arc<Enricher>,
    dir: tempfile::TempDir,
}

impl Enriched {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = |country: &str, city: &str, latitude: f64, longitude: f64| json!({"country_code": country, "city": city, "latitude": latitude, "longitude": longitude});
        let cities = [
            ("203.0.113.0/24", place("IE", "Dublin", 53.3, -6.2)),
            ("198.51.100.0/24", place("NO", "Oslo", 59.9, 10.7)),
        ];
        mmdb(&dir.path().join("city.mmdb"), &cities);
        let system = |number: u32| json!({"autonomous_system_number": number});
        mmdb(&dir.path().join("asn.mmdb"), &[("203.0.113.0/24", system(64_500)), ("198.51.100.0/24", system(64_501))]);
        let config = Config {
            geo_asn: Some(dir.path().join("asn.mmdb")),
            geo_city: Some(dir.path().join("city.mmdb")),
            ..Config::default()
        };
        Self::with(dir, config).await
    }

    async fn with(dir: tempfile::TempDir, config: Config) -> Self {
        let world = World::new();
        let enricher = Enricher::new(&config, world.clock.clone());
        enricher.reload();
        let parts = Parts { ports: Ports { enricher: enricher.clone(), ..world.ports() }, ..world.parts() };
        Self { instance: Instance::with(world, parts).await, enricher, dir }
    }

    /// The data of an event as it is in the log after it was sent.
    async fn logged(&self, data: Value) -> Value {
        let user = data["user_id"].as_str().unwrap().to_owned();
        let answer = self.instance.fold(&[event(&user, "login.succeeded", data)]).await;
        let partition = key::partition(format!("default:{user}").as_bytes(), PARTITIONS);
        let offset = answer.body["positions"][0]["offset"].as_i64().unwrap();
        let log = self.instance.world.log.as_ref();
        let record = record_at(log, Topic::Logins, partition, offset).await.unwrap().unwrap();
        serde_json::from_slice(&record.value).unwrap()
    }

    async fn score(&self, attempt: Value) -> Value {
        let answer = self.instance.post("/v1/risk/logins", &attempt).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

fn codes(score: &Value) -> Vec<&str> {
    score["reasons"].as_array().unwrap().iter().filter_map(|reason| reason["code"].as_str()).collect()
}

#[tokio::test]
async fn an_event_is_enriched_by_its_address_and_keeps_its_own_values() {
    let files = Enriched::start().await;
    let whole = files.logged(json!({"user_id": "a", "ip": "203.0.113.7", "user_agent": LINUX, "extra": 1})).await;
    let expected = json!({
        "user_id": "a", "ip": "203.0.113.7", "user_agent": LINUX, "extra": 1,
        "country": "IE", "asn": 64_500, "city": "Dublin", "latitude": 53.3, "longitude": -6.2,
    });
    assert_eq!(whole, expected, "and values derived from the user agent are not stored: the rules may improve");
    let own = json!({"user_id": "b", "ip": "203.0.113.7", "country": "NO", "asn": 7, "city": "Bergen"});
    assert_eq!(files.logged(own.clone()).await, own);
    let unplaced = json!({"user_id": "c", "ip": "203.0.113.7", "country": null, "city": ""});
    let placed = files.logged(unplaced).await;
    assert_eq!((&placed["country"], &placed["city"]), (&json!("IE"), &json!("Dublin")));
    let inside = json!({"user_id": "d", "ip": "10.0.0.7"});
    assert_eq!(files.logged(inside.clone()).await, inside);
}

#[tokio::test]
async fn a_score_resolves_the_address_as_the_event_did() {
    let files = Enriched::start().await;
    for n in 0..5 {
        let data = json!({"user_id": "u", "ip": "203.0.113.7", "device_id": "d"});
        files.instance.fold(&[event(&format!("e{n}"), "login.succeeded", data)]).await;
    }
    let scored = async |change: Value| {
        let mut attempt = json!({"user_id": "u", "ip": "203.0.113.7", "device_id": "d"});
        change.as_object().unwrap().iter().for_each(|(name, value)| attempt[name] = value.clone());
        files.score(attempt).await
    };
    let (home, neighbour) = (scored(json!({})).await, scored(json!({"ip": "203.0.113.99"})).await);
    let abroad = scored(json!({"ip": "198.51.100.7"})).await;
    let stated = scored(json!({"ip": "198.51.100.7", "country": "IE", "asn": 64_500})).await;
    for score in [&home, &neighbour, &stated] {
        assert!(!codes(score).contains(&"NEW_COUNTRY"), "{score}");
    }
    assert!(codes(&abroad).contains(&"NEW_COUNTRY"), "{abroad}");
    assert!(neighbour["score"].as_f64() < abroad["score"].as_f64(), "of the same system and country");
    assert_eq!(stated["score"], neighbour["score"], "the request wins: {stated}");
    assert_eq!(abroad["warnings"], json!([]));
}

#[tokio::test]
async fn a_user_agent_is_read_in_the_fold_and_at_scoring() {
    let instance = Instance::start().await;
    for n in 0..6 {
        let login = |user: &str, agent: &str| {
            let data = json!({"user_id": user, "ip": "203.0.113.7", "user_agent": agent});
            event(&format!("{user}{n}"), "login.succeeded", data)
        };
        let firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
        instance.fold(&[login("u", LINUX), login("v", firefox)]).await;
    }
    let score = async |change: Value| {
        let mut attempt = json!({"user_id": "u", "ip": "203.0.113.7"});
        change.as_object().unwrap().iter().for_each(|(name, value)| attempt[name] = value.clone());
        let score = instance.post("/v1/risk/logins", &attempt).await.body["score"].as_f64();
        score.unwrap()
    };
    let same = score(json!({"user_agent": LINUX})).await;
    let spelled = score(json!({"browser": "Chrome 146.0.0", "os": "Linux", "device_type": "desktop"})).await;
    let newer = score(json!({"user_agent": LINUX.replace("146.0.0.0", "147.0.1.0")})).await;
    let other = score(json!({"user_agent": "curl/8.5.0"})).await;
    assert!(spelled < newer, "the row knows the browser that only the string has named: {spelled} {newer}");
    assert!(same < newer && newer < other, "system and device are still the same: {same} {newer} {other}");
}

#[tokio::test]
async fn what_files_cannot_say_is_neutral_and_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |name: &str| dir.path().join(name);
    let config = Config {
        geo_asn: Some(missing("asn.mmdb")),
        geo_city: Some(missing("city.mmdb")),
        deny_lists: vec![missing("deny.netset")],
        ..Config::default()
    };
    let files = Enriched::with(dir, config).await;
    let data = json!({"user_id": "u", "ip": "203.0.113.7"});
    assert_eq!(files.logged(data.clone()).await, data, "an event is taken all the same");
    let score = files.score(data.clone()).await;
    assert_eq!(score["warnings"], json!(["GEO_UNAVAILABLE", "LIST_UNAVAILABLE"]));
    let bare = Instance::start().await;
    bare.fold(&[event("u", "login.succeeded", data.clone())]).await;
    let without = bare.post("/v1/risk/logins", &data).await.body;
    assert_eq!((&score["score"], &without["warnings"]), (&without["score"], &json!([])));
    let notices = files.instance.get("/readyz?verbose").await.body["notices"].to_string();
    assert!(notices.contains("asn.mmdb") && notices.contains("deny.netset"), "{notices}");
    mmdb(&files.dir.path().join("asn.mmdb"), &[("203.0.113.0/24", json!({"autonomous_system_number": 64_500}))]);
    mmdb(&files.dir.path().join("city.mmdb"), &[("203.0.113.0/24", json!({"country_code": "IE"}))]);
    std::fs::write(files.dir.path().join("deny.netset"), "# none\n").unwrap();
    files.enricher.reload();
    assert_eq!(files.score(data.clone()).await["warnings"], json!([]));
    files.instance.world.clock.set(NOW_MS + 61 * 86_400_000);
    assert_eq!(files.score(data).await["warnings"], json!(["GEO_STALE"]));
}

#[tokio::test]
async fn a_country_that_does_not_exist_is_refused_over_http_alone() {
    let instance = Instance::start().await;
    for (code, status) in [("IE", 202), ("no", 202), ("XK", 202), ("UK", 422), ("QQ", 422), ("B7", 422)] {
        let data = json!({"user_id": "u", "ip": "203.0.113.7", "country": code});
        let request =
            instance.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
        let sent = event(code, "login.failed", data.clone()).to_string();
        let answer = Answer::of(request.body(sent).send().await.unwrap()).await;
        let scored = instance.post("/v1/risk/logins", &data).await;
        assert_eq!((answer.status, scored.status == 200), (status, status == 202), "{code}: {}", answer.body);
        if status == 422 {
            for (answer, pointer) in [(answer, "/data/country"), (scored, "/country")] {
                let fault = &answer.body["errors"][0];
                assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!("INVALID_VALUE")));
            }
        }
    }
}

/// An instance that has folded three logins of `u` in Germany, from one address and device.
async fn after_logins_in_germany() -> Instance {
    let instance = Instance::start().await;
    let data = json!({"user_id": "u", "ip": "203.0.113.50", "device_id": "d", "country": "DE",
                      "latitude": 52.5, "longitude": 13.4});
    let logins = [1, 2, 3].map(|at| event(&at.to_string(), "login.succeeded", data.clone()));
    instance.fold(&logins).await;
    instance
}

/// Decision, score and reasons of a login of `u` from another address, with `place` added to the request.
async fn scored(instance: &Instance, place: Value) -> Value {
    let mut attempt = json!({"user_id": "u", "ip": "203.0.113.51", "device_id": "d"});
    attempt.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
    let answer = instance.post("/v1/risk/logins", &attempt).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    json!([answer.body["decision"], answer.body["score"], answer.body["reasons"]])
}

#[tokio::test]
async fn a_placeholder_for_a_country_scores_as_no_country() {
    let instance = after_logins_in_germany().await;
    let absent = scored(&instance, json!({})).await;
    for code in ["ZZ", "XX", "T1", "EU", "AP", "A1", "A2", "O1", "zz", "t1"] {
        assert_eq!(scored(&instance, json!({"country": code})).await, absent, "{code}");
    }
    let abroad = scored(&instance, json!({"country": "FR"})).await;
    assert!(abroad.to_string().contains("NEW_COUNTRY"), "{abroad}");
}

#[tokio::test]
async fn a_placeholder_in_an_event_is_no_country_that_the_user_has_been_to() {
    let instance = Instance::start().await;
    let events = ["XX", "T1"].map(|code| {
        let data = json!({"user_id": "u", "ip": "203.0.113.50", "device_id": "d", "country": code});
        event(code, "login.succeeded", data)
    });
    instance.fold(&events).await;
    let answer = scored(&instance, json!({"country": "FR"})).await;
    assert!(!answer.to_string().contains("NEW_COUNTRY"), "no country is known before it: {answer}");
}

#[tokio::test]
async fn latitude_zero_with_longitude_zero_is_no_place() {
    let instance = after_logins_in_germany().await;
    let unknown = scored(&instance, json!({"country": "DE"})).await;
    for zero in [json!(0), json!(0.0), json!(-0.0)] {
        let place = json!({"country": "DE", "latitude": zero, "longitude": zero});
        assert_eq!(scored(&instance, place).await, unknown, "{zero}");
    }
    for (latitude, longitude) in [(0.0, 9.5), (52.5, 0.0)] {
        let place = json!({"country": "DE", "latitude": latitude, "longitude": longitude});
        let got = scored(&instance, place).await;
        assert!(got.to_string().contains("IMPOSSIBLE_TRAVEL"), "one zero is a place: {got}");
    }
}

#[tokio::test]
async fn a_file_fills_in_what_a_placeholder_leaves_open() {
    let files = Enriched::start().await;
    let data = json!({"user_id": "u", "ip": "203.0.113.7", "country": "ZZ", "latitude": 0, "longitude": 0});
    let logged = files.logged(data).await;
    let place = json!([logged["country"], logged["city"], logged["latitude"], logged["longitude"]]);
    assert_eq!(place, json!(["IE", "Dublin", 53.3, -6.2]));
}
