//! The cost of completing an attempt: a user agent parsed and taken from the cache, an address resolved from mapped
//! files, and an address looked up in a list of 100,000 prefixes.

use criterion::{Criterion, criterion_group, criterion_main};
use foretell_enrich::netset::{self, Bogons};
use foretell_enrich::{Config, Enricher};
use foretell_events::agent;
use foretell_events::login::Attempt;
use foretell_ports::clock::System;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

/// Prefixes of a list.
const PREFIXES: u32 = 100_000;
/// Networks of a data file.
const NETWORKS: u32 = 100_000;
/// Addresses and strings that are looked up in rotation.
const LOOK_UPS: u32 = 4_096;
/// Spreads numbers over all addresses (Knuth's multiplicative hash), so that consecutive look-ups are not adjacent.
const SPREAD: u32 = 2_654_435_761;

fn spread(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(n.wrapping_mul(SPREAD))
}

fn agents() -> Vec<String> {
    let version = |n: u32| (60 + n % 90, n % 7_000, n % 211);
    let browser = |n: u32| {
        let (major, build, patch) = version(n);
        format!(
            "Mozilla/5.0 (Linux; Android {}; SM-G{n}) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/{major}.0.{build}.{patch} Mobile Safari/537.36",
            9 + n % 8
        )
    };
    (0..LOOK_UPS).map(browser).collect()
}

fn user_agents(criterion: &mut Criterion) {
    agent::warm();
    let agents = agents();
    agents.iter().for_each(|text| drop(agent::read(text)));
    let mut group = criterion.benchmark_group("user agent");
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("parsed", |bencher| {
        let mut turn = agents.iter().cycle();
        bencher.iter(|| black_box(agent::parse(turn.next().expect("a cycle has no end"))));
    });
    group.bench_function("cached", |bencher| {
        let mut turn = agents.iter().cycle();
        bencher.iter(|| black_box(agent::read(turn.next().expect("a cycle has no end"))));
    });
    let longest = "Mozilla/5.0 (compatible; ".repeat(64);
    group.bench_function("parsed, a kilobyte of meaningless text", |bencher| {
        bencher.iter(|| black_box(agent::parse(&longest)));
    });
    group.finish();
}

fn lists(criterion: &mut Criterion) {
    let text: String = (0..PREFIXES).map(|n| format!("{}/{}\n", spread(n), 20 + n % 13)).collect();
    let mut group = criterion.benchmark_group("list of 100,000 prefixes");
    group.bench_function("read", |bencher| {
        bencher.iter(|| black_box(netset::read(text.as_bytes(), PREFIXES as usize, Bogons::Leave)));
    });
    let set = netset::read(text.as_bytes(), PREFIXES as usize, Bogons::Leave).expect("a list").set;
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("contains", |bencher| {
        let mut turn = (0..LOOK_UPS).map(|n| IpAddr::V4(spread(n.wrapping_mul(97)))).cycle();
        bencher.iter(|| black_box(set.contains(turn.next().expect("a cycle has no end"))));
    });
    group.finish();
}

/// Writes a data file of /24 networks with 251 different records.
fn mmdb(path: &Path, record: impl Fn(u32) -> serde_json::Value) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V4;
    database.metadata.binary_format_major_version = 2;
    database.metadata.database_type = "Bench".into();
    database.metadata.build_epoch = 4_000_000_000; // Never stale.
    let records: BTreeMap<u32, _> =
        (0..251).map(|n| (n, database.insert_value(record(n)).expect("a record"))).collect();
    for n in 0..NETWORKS {
        let network = Ipv4Addr::from(spread(n).to_bits() & 0xffff_ff00);
        database.insert_node(IpAddrWithMask::new(network.into(), 24), records[&(n % 251)]);
    }
    database.write_to(std::fs::File::create(path).expect("a file")).expect("written");
}

fn addresses(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (asn, city) = (dir.path().join("asn.mmdb"), dir.path().join("city.mmdb"));
    mmdb(&asn, |n| serde_json::json!({"autonomous_system_number": 64_500 + n}));
    mmdb(&city, |n| {
        serde_json::json!({
            "country": {"iso_code": "IE"}, "city": {"names": {"en": format!("City {n}")}},
            "location": {"latitude": 53.3, "longitude": -6.2},
        })
    });
    let config = Config { geo_asn: Some(asn), geo_city: Some(city), ..Config::default() };
    let enricher = Enricher::new(&config, Arc::new(System));
    enricher.reload();
    let mut group = criterion.benchmark_group("address");
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("resolved, both files", |bencher| {
        let mut turn = (0..LOOK_UPS).cycle();
        bencher.iter(|| {
            let mut attempt = Attempt::from_ip(spread(turn.next().expect("a cycle has no end")).into());
            enricher.enrich(&mut attempt);
            black_box(attempt)
        });
    });
    group.finish();
}

criterion_group!(benches, user_agents, lists, addresses);
criterion_main!(benches);
