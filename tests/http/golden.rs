//! The published scores, through the whole service: events over HTTP, views, scores over HTTP.

use crate::instance::{Instance, World, event};
use crate::shared::{FILES, RELATIVE_ERROR_MAX, Row, read};
use foretell_domain::score::login::{LoginPolicy, Mode};
use foretell_service::http::Parts;
use foretell_service::policies::{Policies, Settings};
use serde_json::{Value, json};

fn time(row: &Row) -> String {
    format!("{}Z", row.timestamp)
}

/// The attempt, as in a request for a score and in the data of an event.
fn attempt(row: &Row) -> Value {
    json!({
        "user_id": row.user_id, "ip": row.ip, "asn": row.asn, "country": row.country, "user_agent": row.ua,
        "browser": row.browser, "os": row.os, "device_type": row.device_type,
    })
}

#[tokio::test]
async fn every_golden_score_is_answered_over_http() {
    for (name, expected) in FILES {
        let world = World::new();
        let parts = world.parts();
        let faithful = LoginPolicy { mode: Mode::Faithful, ..LoginPolicy::default() };
        let policies = Policies::new(&parts.rows, Settings { login: faithful, ..Settings::default() }, 1_000);
        let instance = Instance::with(world, Parts { policies, ..parts }).await;
        let mut scored = 0;
        for row in read(name) {
            let mut body = attempt(&row);
            body["occurred_at"] = json!(time(&row));
            let got = instance.post("/v1/risk/logins", &body).await.body;
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
            let mut login = event(&row.index.to_string(), "login.succeeded", attempt(&row));
            login["time"] = json!(time(&row));
            instance.fold(&[login]).await;
        }
        assert_eq!(scored, expected, "{name}");
    }
}
