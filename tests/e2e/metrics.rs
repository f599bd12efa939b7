//! What a process exports to Prometheus: everything that is documented, from the start, and following the rules of
//! `promtool check metrics` (which `scripts/test metrics` runs).

use crate::deployment::Deployment;
use crate::facts;
use crate::process::Service;
use foretell_ports::clock::{Clock, System};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Names in the first column of the table of metrics.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/operations/observe.md");
    let (_, section) = page.split_once("\n## Metrics\n").expect("the section is there");
    let section = section.split("\n## ").next().expect("its text");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').split('{').next()));
    names.flatten().map(str::to_owned).collect()
}

/// A metric as it is exported.
#[derive(Debug, Default)]
struct Exported {
    kind: String,
    help: String,
    /// Series with their labels; of a histogram also its buckets, sum and count.
    series: Vec<String>,
}

fn exported(text: &str) -> BTreeMap<String, Exported> {
    let mut metrics = BTreeMap::<String, Exported>::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let mut bases = ["_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| name.strip_suffix(suffix));
            let histogram = bases.find(|base| metrics.get(*base).is_some_and(|metric| metric.kind == "histogram"));
            let base = histogram.unwrap_or(name).to_owned();
            metrics.entry(base).or_default().series.push(series.to_owned());
        }
    }
    metrics
}

/// What the linter of Prometheus reports about names, units, kinds and texts.
fn complaints(text: &str) -> Vec<String> {
    const UNITS: [&str; 12] = [
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "minutes",
        "hours",
        "days",
        "kilobytes",
        "megabytes",
        "kib",
        "mib",
        "percent",
        "ms",
    ];
    let mut complaints = Vec::new();
    for (name, Exported { kind, help, series }) in exported(text) {
        let mut words = name.split('_');
        let mut complain = |about: &str| complaints.push(format!("{name}: {about}"));
        if help.is_empty() {
            complain("no help text");
        }
        if (kind == "counter") != name.ends_with("_total") {
            complain("a counter ends in _total, and nothing else does");
        }
        if ["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)) {
            complain("ends as a part of a histogram does");
        }
        if words.any(|word| UNITS.contains(&word) || ["counter", "gauge", "histogram"].contains(&word)) {
            complain("is not in a base unit, or names its kind");
        }
        if name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b':') {
            complain("is not in snake_case");
        }
        if series.iter().collect::<BTreeSet<_>>().len() != series.len() {
            complain("a series is there twice");
        }
    }
    complaints
}

async fn scraped(service: &Service) -> String {
    service.ops("/metrics").await.body.as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_process_exports_what_is_documented_and_nothing_else() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &[]).await;
    let text = scraped(&service).await;
    let (documented, exported) = (documented(), exported(&text));
    assert!(documented.len() > 40, "{documented:?}");
    assert_eq!(exported.keys().cloned().collect::<BTreeSet<_>>(), documented);
    assert_eq!(complaints(&text), Vec::<String>::new());
    let empty: Vec<_> = exported.iter().filter(|(_, metric)| metric.series.is_empty()).collect();
    assert!(empty.is_empty(), "{empty:?}");
    // One of each: a closed set of labels, a route, a partition, and the build.
    for series in [
        "foretell_rejected_records_total{family=\"logins\",code=\"WRONG_PARTITION\"} 0",
        "foretell_scores_total{kind=\"login\",level=\"high\"} 0",
        "foretell_http_requests_total{route=\"/v1/risk/logins\",method=\"POST\",status=\"503\"} 0",
        "foretell_http_request_seconds_count{route=\"/v1/users/{user_id}\"} 0",
        "foretell_partition_stopped{family=\"logins\",partition=\"0\"} 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    }
    let build = format!("version=\"{}\",commit=\"{}\"", foretell::version::VERSION, foretell::version::COMMIT);
    assert!(text.contains(&format!("foretell_build_info{{{build}}} 1")), "{text}");
    service.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_worked_exports_no_more_names_and_passes_the_linter() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &[]).await;
    let now_ms = System.now_ms();
    let attempt = json!({"user_id": "ada", "ip": "198.51.100.7", "device_id": "laptop"});
    service.fold(&[facts::event("l1", "login.succeeded", now_ms, &attempt)]).await;
    service.post("/v1/risk/logins", &attempt).await.good();
    assert_eq!(service.post("/v1/risk/logins", &json!({})).await.status, 422);
    let text = scraped(&service).await;
    assert_eq!(complaints(&text), Vec::<String>::new());
    assert_eq!(exported(&text).into_keys().collect::<BTreeSet<_>>(), documented());
    assert!(text.contains("foretell_scores_total{kind=\"login\""), "{text}");
    service.process.stop().await;
}

#[test]
fn the_linter_complains_of_each_fault() {
    let metric = |name: &str, kind: &str, help: &str| format!("{help}# TYPE {name} {kind}\n{name} 1\n");
    for (text, expected) in [
        (metric("a_total", "counter", ""), "a_total: no help text"),
        (metric("a", "counter", "# HELP a x\n"), "a: a counter ends in _total, and nothing else does"),
        (metric("a_total", "gauge", "# HELP a_total x\n"), "a_total: a counter ends in _total, and nothing else does"),
        (metric("a_ms", "gauge", "# HELP a_ms x\n"), "a_ms: is not in a base unit, or names its kind"),
        (metric("aB", "gauge", "# HELP aB x\n"), "aB: is not in snake_case"),
        (metric("a_count", "gauge", "# HELP a_count x\n"), "a_count: ends as a part of a histogram does"),
        (metric("a", "gauge", "# HELP a x\n") + "a 2\n", "a: a series is there twice"),
    ] {
        assert_eq!(complaints(&text), [expected], "{text}");
    }
    assert_eq!(complaints(&metric("a_seconds_total", "counter", "# HELP a_seconds_total x\n")), Vec::<String>::new());
}
