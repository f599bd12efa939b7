//! The cost of a score without reading its rows: from decoded rows, and from their bytes as a store returns them.

use criterion::{Criterion, criterion_group, criterion_main};
use foretell_domain::address::{RowKey, View};
use foretell_domain::decision::id::Id;
use foretell_domain::decision::record::{AnswerJson, DecisionRecord, ScoreInput, ScoredAttempt};
use foretell_domain::score::login::{self, Features, LoginEvidence, LoginPolicy};
use foretell_domain::score::no_show::calibration::Calibration;
use foretell_domain::score::no_show::input::{Attribute, Input};
use foretell_domain::score::no_show::model::{Basis, FORMAT, NoShowModel, Term, Training, VisitFilter};
use foretell_domain::score::no_show::{self, Config, ModelInForce};
use foretell_domain::view::cell::{decode_state, encode_state};
use foretell_domain::view::client::attribute::Attributes;
use foretell_domain::view::client::snapshot::{Snapshot, Subject};
use foretell_domain::view::client::{Client, Start};
use foretell_domain::view::feature::{Feature, FeatureCounts, FeatureLevel};
use foretell_domain::view::lead::{Lead, Outcomes};
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::{self, LoginFold, User};
use foretell_domain::view::{Aggregate, Merge, RecordPosition};
use foretell_events::appointment::{Scalar, StartsAt};
use foretell_events::login::{Attempt, Login, LoginFact};
use foretell_events::{DEFAULT_TENANT, Event, Fact};
use foretell_lab::source::generate::{GeneratedLogins as Generated, GeneratorParams};
use foretell_service::decisions::SOURCE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

/// Logins folded before the first score.
const FOLDED: usize = 200_000;
/// Logins scored in rotation.
const SCORED: usize = 4_096;
/// Source partitions that aggregate rows are spread over.
const PARTITIONS: u32 = 8;

/// A login to score, with its rows as a store contains them.
struct Request {
    login: Login,
    at_ms: i64,
    user: Option<Vec<u8>>,
    features: Vec<(FeatureLevel, RowKey, Vec<u8>)>,
}

impl Request {
    fn of(rows: &Materialized<LoginFold>, event: Event) -> Option<Self> {
        let Fact::Login(LoginFact::Attempted(login)) = event.fact else { return None };
        let user = rows.owner(&user::row_key(DEFAULT_TENANT, &login.user_id)).map(encode_state);
        let keys = Features::keys(DEFAULT_TENANT, &login.attempt);
        let features = keys.into_iter().flat_map(|(level, key)| {
            rows.partials(&key).map(|partial| (level, key.clone(), partial.encode())).collect::<Vec<_>>()
        });
        Some(Self { features: features.collect(), at_ms: event.envelope.time_ms, login: *login, user })
    }

    fn rows(&self) -> (Option<User>, Features) {
        let user = self.user.as_deref().map(|bytes| decode_state(bytes).expect("encoded above"));
        let mut merged: BTreeMap<FeatureLevel, Feature> = BTreeMap::new();
        for (level, key, bytes) in &self.features {
            assert_eq!(key.view, View::Feature);
            if let Aggregate::Feature(partial) = Aggregate::decode(key, bytes).expect("encoded above") {
                merged.entry(*level).or_default().merge(&partial);
            }
        }
        let mut features = Features::default();
        for (level, row) in &merged {
            features.insert(*level, Arc::new(FeatureCounts::from(row)));
        }
        (user, features)
    }

    fn score(&self, user: Option<&User>, features: &Features, policy: &LoginPolicy) -> login::LoginScore {
        login::score(&LoginEvidence::of(user, features, &self.login.attempt, self.at_ms), policy)
    }
}

fn requests() -> Vec<Request> {
    let mut rows = Materialized::new(LoginFold::default());
    let mut generated = Generated::new(GeneratorParams::default());
    for (offset, event) in generated.by_ref().take(FOLDED).enumerate() {
        let partition = foretell_events::key::partition(event.key().as_bytes(), PARTITIONS);
        rows.take(&event, RecordPosition { partition, offset: offset as i64 });
    }
    generated.take(SCORED).filter_map(|event| Request::of(&rows, event)).collect()
}

/// The defaults with twenty typical rules, a quarter of them in shadow mode.
fn twenty_rules() -> LoginPolicy {
    let conditions = [
        "country != 'IE' && !known_device",
        "'NEW_DEVICE' in signals && likelihood_ratio > 1.0",
        "hour_utc < 6 || weekday_utc in [6, 7]",
        "successes < 3 && failures_recent >= 2",
        "asn in [64500, 64501, 64502] && !denylisted",
        "user_agent.startsWith('curl/') || user_agent == ''",
        "distance_km > 500.0 && speed_kmh > 300.0",
        "days_since_success > 30.0 && new_country",
        "'role' in attributes && attributes['role'] == 'admin'",
        "ip.startsWith('10.') || exempt_network",
    ];
    let rule = |n: usize| {
        let mode = if n.is_multiple_of(4) { "shadow" } else { "on" };
        json!({"code": format!("RULE_{n}"), "when": conditions[n % conditions.len()], "factor": 1.5, "mode": mode})
    };
    let document = json!({"rules": (0..20).map(rule).collect::<Vec<_>>()});
    LoginPolicy::read(&document, &LoginPolicy::default()).expect("rules that can be used")
}

fn login_score(criterion: &mut Criterion) {
    let (requests, policy) = (requests(), LoginPolicy::default());
    let read: Vec<_> = requests.iter().map(Request::rows).collect();
    let mut group = criterion.benchmark_group("login score");
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("from merged rows", |bencher| {
        let mut turn = requests.iter().zip(&read).cycle();
        bencher.iter(|| {
            let (request, (user, features)) = turn.next().expect("a cycle has no end");
            black_box(request.score(user.as_ref(), features, &policy))
        });
    });
    let ruled = twenty_rules();
    group.bench_function("from merged rows, with 20 rules", |bencher| {
        let mut turn = requests.iter().zip(&read).cycle();
        bencher.iter(|| {
            let (request, (user, features)) = turn.next().expect("a cycle has no end");
            black_box(request.score(user.as_ref(), features, &ruled))
        });
    });
    group.bench_function("from stored bytes", |bencher| {
        let mut turn = requests.iter().cycle();
        bencher.iter(|| {
            let request = turn.next().expect("a cycle has no end");
            let (user, features) = request.rows();
            black_box(request.score(user.as_ref(), &features, &policy))
        });
    });
    group.finish();
}

/// A model as large as one that is trained on a year: 12 inputs, 110 columns.
fn no_show_model() -> NoShowModel {
    let term = |input, basis: Basis| {
        let weights = (0..basis.columns()).map(|n| 0.01 * n as f64 - 0.05).collect();
        Term { input, of: VisitFilter::All, basis, weights, absent: 0.1, centre: 0.05 }
    };
    let steps = |count: u32| Basis::Steps((0..count).map(f64::from).collect());
    let hinges = || Basis::Hinges((0..10).map(|n| f64::from(n) * 8.0).collect());
    let levels = |count: u32| Basis::Levels((0..count).map(|n| format!("level {n}").into()).collect());
    let attribute = |name: &str| Input::Attribute(Attribute::new(name));
    let terms = vec![
        term(Input::LeadDays, steps(11)),
        term(Input::Record, Basis::Linear),
        Term { of: VisitFilter::SameDay, ..term(Input::Record, Basis::Linear) },
        term(Input::SameDayVisits, steps(2)),
        term(Input::BookingHour, steps(9)),
        term(attribute("age"), hinges()),
        term(attribute("town"), levels(32)),
        term(attribute("service"), levels(24)),
        term(attribute("insured"), steps(1)),
        term(Input::OpenVisits, steps(3)),
        term(Input::MissedDaysAgo, steps(4)),
        term(Input::LateCancelled, steps(2)),
    ];
    let training = Training::default();
    NoShowModel { format: FORMAT, training, intercept: -1.5, lead_rates: [0.2; 12], prior_no_shows: 1.5, terms }
}

/// A visit of a client with some history, by both models, from the client's row.
fn no_show_score(criterion: &mut Criterion) {
    let told = [("age", Scalar::Number(44.0)), ("town", Scalar::Text("level 30".into()))];
    let attributes = Attributes::of(&told.map(|(name, value)| (name.to_owned(), value)).into());
    let starts_at = StartsAt::Instant { at_ms: 1_772_359_200_000, zone: Some("Europe/Dublin".into()) };
    let start = Start::of(&starts_at, "UTC".into());
    let mut client = Client::default();
    client.days[3] = Outcomes { attended: 7, missed: 2 };
    let (lead, config, model) = (Lead::default(), Config::default(), no_show_model());
    let calibration = Calibration::default();
    let mut group = criterion.benchmark_group("no-show score");
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("two counters", |bencher| {
        bencher.iter(|| {
            no_show::score(
                &no_show::VisitEvidence { client: Some(black_box(&client)), lead: &lead, lead_days: 9 },
                &config,
            )
        });
    });
    group.bench_function("trained, with its snapshot and reasons", |bencher| {
        bencher.iter(|| {
            let visit = Subject { id: None, start: &start, booked_at_ms: 1_771_581_600_000, attributes: &attributes };
            let snapshot = Snapshot::of(Some(black_box(&client)), visit, 1_771_581_600_000);
            let by = ModelInForce { model: &model, version: "1", calibration: &calibration };
            no_show::score_by_model(&snapshot, Some(&client), &lead, by, &config)
        });
    });
    group.finish();
}

/// The cost of recording a score: its id and its record. The answer is that of the catalog's example.
fn decision(criterion: &mut Criterion) {
    let example = include_str!("../catalog/examples/foretell.decision.made/login.json");
    let example: Value = serde_json::from_str(example).expect("an example is JSON");
    let answer = &example["data"];
    let attempt = Attempt {
        user_agent: answer["attempt"]["user_agent"].as_str().map(str::to_owned),
        device_id: Some("d-9".into()),
        country: Some("BR".into()),
        asn: Some(64_500),
        ..Attempt::from_ip([198, 51, 100, 7].into())
    };
    let mut group = criterion.benchmark_group("decision");
    group.throughput(criterion::Throughput::Elements(1));
    group.bench_function("name and record", |bencher| {
        bencher.iter(|| {
            let id = Id::new(1_772_359_200_000, 2, black_box(7)).to_string();
            let asked = ScoreInput::Attempt(ScoredAttempt { at_ms: 1_772_359_200_000, attempt: &attempt });
            let (tenant, subject, at_ms) = (DEFAULT_TENANT, "ada", 1_772_359_200_000);
            let answer = &AnswerJson::of(answer);
            black_box(DecisionRecord { id: &id, tenant, subject, at_ms, input: asked, answer }.record(SOURCE))
        });
    });
    group.finish();
}

criterion_group!(benches, login_score, no_show_score, decision);
criterion_main!(benches);
