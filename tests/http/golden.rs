//! The published scores, through everything that lies between: events over HTTP, views, scores over HTTP.

use crate::instance::{Instance, World, event};
use foretell::http::Parts;
use foretell::policies::Policies;
use foretell::score::login::{Mode, Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const RELATIVE_ERROR_MAX: f64 = 1e-9;

/// A row of the files; other columns are not needed.
#[derive(Deserialize)]
struct Row {
    index: i64,
    timestamp: jiff::civil::DateTime,
    user_id: String,
    ip: String,
    asn: u32,
    country: String,
    ua: String,
    browser: String,
    os: String,
    device_type: String,
    n_user_before: u64,
    score_causal: Option<f64>,
}

impl Row {
    fn read(name: &str) -> Vec<Self> {
        let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/rba-golden", name].iter().collect();
        let mut reader = csv::Reader::from_path(path).expect("the file is committed");
        reader.deserialize().map(|row| row.expect("the columns of the file")).collect()
    }

    fn time(&self) -> String {
        format!("{}Z", self.timestamp)
    }

    /// The attempt, as a request to score and the data of an event have it.
    fn attempt(&self) -> Value {
        json!({
            "user_id": self.user_id, "ip": self.ip, "asn": self.asn, "country": self.country, "user_agent": self.ua,
            "browser": self.browser, "os": self.os, "device_type": self.device_type,
        })
    }
}

#[tokio::test]
async fn every_golden_score_is_answered_over_http() {
    for (name, expected) in [("synthetic_seed1_n300.csv", 281), ("synthetic_seed2_n300.csv", 280)] {
        let world = World::new();
        let parts = world.parts();
        let faithful = Policy { mode: Mode::Faithful, ..Policy::default() };
        let policies = Arc::new(Policies::new(parts.rows.clone(), faithful, 1_000));
        let instance = Instance::with(world, Parts { policies, ..parts }).await;
        let mut scored = 0;
        for row in Row::read(name) {
            let mut asked = row.attempt();
            asked["occurred_at"] = json!(row.time());
            let got = instance.post("/v1/risk/logins", &asked).await.body;
            assert_eq!(got["history"]["successes"], row.n_user_before, "{name} {}: {got}", row.index);
            assert_eq!(got["model"]["id"], "login-likelihood-faithful");
            match (got["model"]["likelihood_ratio"].as_f64(), row.score_causal) {
                (Some(ratio), Some(expected)) => {
                    let error = (ratio / expected - 1.0).abs();
                    assert!(error <= RELATIVE_ERROR_MAX, "{name} {}: {ratio} instead of {expected}", row.index);
                    scored += 1;
                }
                (ratio, expected) => assert_eq!((ratio, expected), (None, None), "{name} {}", row.index),
            }
            let mut login = event(&row.index.to_string(), "login.succeeded", row.attempt());
            login["time"] = json!(row.time());
            instance.fold(&[login]).await;
        }
        assert_eq!(scored, expected, "{name}");
    }
}
