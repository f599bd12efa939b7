//! Data files of addresses with real processes: missing, added, damaged, and used by commands.

use crate::deployment::Deployment;
use crate::facts;
use crate::process::{Service, until};
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value, json};
use std::path::Path;

/// Puts a data file in place that locates 203.0.113.0/24 in a country.
fn place(path: &Path, country: &str, built_s: u64) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V4;
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Test".into();
    database.metadata.build_epoch = built_s;
    let data = database.insert_value(json!({"country": {"iso_code": country}})).expect("a record");
    database.insert_node("203.0.113.0/24".parse::<IpAddrWithMask>().expect("a network"), data);
    let aside = path.with_extension("new");
    database.write_to(std::fs::File::create(&aside).expect("a file")).expect("written");
    std::fs::rename(aside, path).expect("in place");
}

fn now_s() -> u64 {
    u64::try_from(foretell_ports::clock::Clock::now_ms(&foretell_ports::clock::System) / 1000).expect("after 1970")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_its_files_serves_and_takes_them_up_when_they_come() {
    let mut deployment = Deployment::disk();
    let (city, deny) = (deployment.scratch_file("city.mmdb"), deployment.scratch_file("deny.netset"));
    deployment.set("ENRICH__GEO_CITY", city.to_str().expect("text"));
    deployment.set("ENRICH__DENY_LISTS", deny.to_str().expect("text"));
    deployment.set("ENRICH__RELOAD_MS", "100");
    let messages = deployment.failure(1, &["config", "check"]);
    assert!(
        messages.contains("geo_city") && messages.contains("deny.netset") && messages.contains("No such file"),
        "{messages}"
    );

    let service = Service::ready(&deployment, &[]).await;
    let attempt = json!({"user_id": "ada", "ip": "203.0.113.7"});
    let login = |id: &str, ip: &str| {
        facts::event(id, "login.succeeded", 1_767_225_600_000, &json!({"user_id": "ada", "ip": ip}))
    };
    service.fold(&[login("before", "203.0.113.7")]).await;
    let warnings = async || service.post("/v1/risk/logins", &attempt).await.good()["warnings"].clone();
    assert_eq!(warnings().await, json!(["GEO_UNAVAILABLE", "LIST_UNAVAILABLE"]));

    place(&city, "IE", now_s());
    std::fs::write(&deny, "203.0.113.7\n").expect("written");
    until("the files are taken up", async || (warnings().await == json!([])).then_some(())).await;
    service.fold(&[login("after", "203.0.113.7"), login("elsewhere", "198.51.100.1")]).await;
    let codes = async || {
        let score = service.post("/v1/risk/logins", &attempt).await.good();
        score["reasons"].as_array().expect("reasons").iter().map(|reason| reason["code"].clone()).collect::<Vec<_>>()
    };
    assert!(codes().await.contains(&json!("DENYLISTED_NETWORK")), "{:?}", codes().await);

    std::fs::write(&city, "spoilt").expect("written");
    std::fs::write(&deny, "<html>\n").expect("written");
    until("the damaged file is reported", async || {
        let notices = service.get("/readyz?verbose").await.good()["notices"].to_string();
        (notices.contains("city.mmdb") && notices.contains("deny.netset")).then_some(())
    })
    .await;
    assert_eq!(warnings().await, json!([]), "what was good stays in force");
    assert!(codes().await.contains(&json!("DENYLISTED_NETWORK")));

    let countries = countries(&deployment);
    assert_eq!(countries["successes"], 1, "only the login after the file was there has a country: {countries}");
    assert!(deployment.output(&["verify"]).ends_with("; 0 differ\n"), "and no row depends on files");
    place(&city, "IE", now_s() - 61 * 86_400);
    until("the file is stale", async || (warnings().await == json!(["GEO_STALE"])).then_some(())).await;
    service.process.stop().await;
}

/// The row of logins from Ireland.
fn countries(deployment: &Deployment) -> Value {
    let row = deployment.output(&["inspect", "row", "feature", "default:country:IE", "--json"]);
    let row: Value = serde_json::from_str(&row).expect("JSON");
    row[0]["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_and_a_backtest_resolve_addresses_as_a_service_does() {
    let deployment = Deployment::disk();
    let (city, file) = (deployment.scratch_file("city.mmdb"), deployment.scratch_file("logins.jsonl"));
    place(&city, "IE", now_s());
    let login = |n: i64, data: Value| {
        facts::event(&format!("login-{n}"), "login.succeeded", 1_767_225_600_000 + n * 60_000, &data).to_string()
    };
    let home = |n| login(n, json!({"user_id": "ada", "ip": "203.0.113.7"}));
    let messages = login(9, json!({"user_id": "ada", "ip": "203.0.113.7", "country": "NO"}));
    std::fs::write(&file, [home(1), home(2), home(3), messages].join("\n")).expect("written");
    let (city, file) = (city.to_str().expect("text"), file.to_str().expect("text"));
    deployment.output(&["import", "logins", file, "--format", "events", "--geo-city", city]);
    let service = Service::ready(&deployment, &[]).await;
    assert_eq!(countries(&deployment)["successes"], 3, "and the one with the country NO is not Irish");
    service.process.stop().await;
    let last = |arguments: &[&str]| {
        let rows = deployment.output(&[&["evaluate", "logins", file, "--format", "events"], arguments].concat());
        let last: Value = serde_json::from_str(rows.lines().last().expect("a row")).expect("JSON");
        last["score"].as_f64().expect("a score")
    };
    assert!(last(&["--geo-city", city]) > last(&[]), "another country than before, where it is known");
}
