//! Scores and views, as a result of the appended events.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, World, booked, event, login, until};
use async_trait::async_trait;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_domain::score::OnUnavailable;
use foretell_domain::score::login::LoginPolicy;
use foretell_domain::view::Limits;
use foretell_engine::rows::{self, Rows};
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::{Checkpoint, Flush, Row, Store};
use foretell_service::http::Parts;
use foretell_service::policies::{Policies, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn a_user_never_seen_is_unscored_and_one_with_history_is_compared() {
    let instance = Instance::start().await;
    let attempt = json!({"user_id": "u", "ip": "198.51.100.7", "device_id": "laptop", "country": "IE"});
    let before = instance.post("/v1/risk/logins", &attempt).await;
    assert_eq!(before.status, 200);
    assert_eq!(
        (&before.body["score"], &before.body["level"], &before.body["decision"]),
        (&Value::Null, &json!("unscored"), &json!("challenge"))
    );
    assert_eq!(before.body["reasons"][0]["code"], "FIRST_LOGIN");
    for n in 0..5 {
        instance.fold(&[login(&format!("u{n}"), "u"), login(&format!("v{n}"), "v")]).await;
    }
    let known = instance.post("/v1/risk/logins", &attempt).await.body;
    let other = json!({"user_id": "u", "ip": "203.0.113.9", "device_id": "phone", "country": "BR"});
    let other = instance.post("/v1/risk/logins", &other).await.body;
    assert_eq!(
        (&known["decision"], &known["kind"], &known["user_id"]),
        (&json!("allow"), &json!("login"), &json!("u"))
    );
    assert!(other["score"].as_f64() > known["score"].as_f64());
    let codes: Vec<_> = other["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert!(codes.contains(&&json!("NEW_DEVICE")) && codes.contains(&&json!("NEW_COUNTRY")), "{codes:?}");
    for body in [&known, &other] {
        let effects: f64 = body["reasons"].as_array().unwrap().iter().map(|r| r["effect"].as_f64().unwrap()).sum();
        let score = body["score"].as_f64().unwrap();
        assert!((1.0 / (1.0 + (-effects).exp()) - score).abs() < 1e-9, "effects add up to the score: {body}");
        assert!(body["model"]["likelihood_ratio"].is_f64() && body["policy"]["version"].is_string());
        assert_eq!(body["evaluated_at"], "2026-03-01T10:00:00.000Z");
        assert_eq!(body["warnings"], json!([]));
        assert_eq!(body["view"]["lag_ms"], 0);
    }
    assert_ne!(known["id"], other["id"]);
}

#[tokio::test]
async fn devices_are_known_trusted_and_revoked() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let decide = async |method: Method, device: &str| {
        let request = instance.request(method, &format!("/v1/users/u/devices/{device}")).header("prefer", "wait=20");
        Answer::of(request.send().await.unwrap()).await.status
    };
    let devices = async || {
        let body = instance.get("/v1/users/u").await.body;
        let devices = body["devices"].as_array().unwrap().clone();
        devices.iter().map(|d| (d["device_id"].as_str().unwrap().to_owned(), d["trusted"] == true)).collect::<Vec<_>>()
    };
    assert_eq!(devices().await, [("laptop".to_owned(), false)]);
    let first = instance.get("/v1/users/u").await.body;
    assert_eq!(first["devices"][0]["first_seen"], "2026-03-01T10:00:00.000Z");
    assert_eq!(first["devices"][0]["label"], "unknown device, first seen 1 March");
    assert_eq!(first["devices"][0]["known_until"], "2026-05-30T10:00:00.000Z");
    assert_eq!((&first["devices"][0]["logins"], &first["history"]["successes"]), (&json!(1), &json!(1)));
    instance.world.clock.set(NOW_MS + HOUR_MS);
    assert_eq!(decide(Method::PUT, "my%20phone%2F7").await, 200);
    assert_eq!(devices().await, [("my phone/7".to_owned(), true), ("laptop".to_owned(), false)]);
    assert_eq!(decide(Method::DELETE, "laptop").await, 200);
    assert_eq!(devices().await, [("my phone/7".to_owned(), true)]);
    instance.world.clock.set(NOW_MS + 2 * HOUR_MS);
    instance
        .fold(&[{
            let mut erased = event("erase", "user.erased", json!({"user_id": "u"}));
            erased["time"] = json!("2026-03-01T12:00:00Z");
            erased
        }])
        .await;
    assert_eq!(instance.get("/v1/users/u").await.problem(), (404, "USER_NOT_FOUND"));
}

#[tokio::test]
async fn an_appointment_is_seen_scored_and_forgotten() {
    let instance = Instance::start().await;
    // 29 March 2026: Dublin moves its clocks forward at 01:00.
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let seen = instance.get("/v1/appointments/a").await;
    assert_eq!(seen.status, 200);
    for (field, value) in [
        ("appointment_id", "a"),
        ("client_id", "c"),
        ("status", "booked"),
        ("starts_at", "2026-03-29T08:30:00.000Z"),
        ("time_zone", "Europe/Dublin"),
        ("local_start", "2026-03-29T09:30:00"),
    ] {
        assert_eq!(seen.body[field], value, "{field}");
    }
    let reminders: Vec<_> =
        seen.body["reminders"].as_array().unwrap().iter().map(|r| (&r["step"], &r["due_at"], &r["status"])).collect();
    // 72 and 24 absolute hours before; both are outside of the quiet hours from 21:00 to 08:00.
    assert_eq!(
        reminders,
        [
            (&json!("72h"), &json!("2026-03-26T08:30:00.000Z"), &json!("planned")),
            (&json!("24h"), &json!("2026-03-28T08:30:00.000Z"), &json!("planned")),
        ]
    );
    let scored = instance.get("/v1/risk/appointments/a").await.body;
    let again = instance.post("/v1/risk/appointments", &json!({"appointment_id": "a"})).await.body;
    assert_eq!((&scored["score"], &scored["reasons"]), (&again["score"], &again["reasons"]));
    assert_eq!((&scored["kind"], &scored["client_id"]), (&json!("appointment"), &json!("c")));
    let codes: Vec<_> = scored["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert_eq!(codes, ["BASE_RATE", "LEAD_TIME", "NEW_CLIENT"]);
    let considered = json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00", "time_zone": "Europe/Dublin"});
    let considered = instance.post("/v1/risk/appointments", &considered).await.body;
    assert_eq!(considered["score"], scored["score"], "the same visit, only considered");
    assert!(considered.get("appointment_id").is_none());
    let client = instance.get("/v1/clients/c").await.body;
    assert_eq!(client["upcoming"][0]["appointment_id"], "a");
    assert_eq!(
        client["history"],
        json!({"attended": 0, "missed": 0, "cancelled": 0, "late_cancelled": 0, "rescheduled": 0})
    );
    instance.fold(&[event("d", "appointment.deleted", json!({"appointment_id": "a", "client_id": "c"}))]).await;
    assert_eq!(instance.get("/v1/appointments/a").await.problem(), (404, "APPOINTMENT_NOT_FOUND"));
    assert_eq!(instance.get("/v1/risk/appointments/a").await.problem(), (404, "APPOINTMENT_NOT_FOUND"));
    assert_eq!(instance.get("/v1/clients/c").await.body["upcoming"], json!([]));
}

#[tokio::test]
async fn a_considered_visit_takes_the_zone_of_its_client() {
    let instance = Instance::start().await;
    let updated = |zone: &str| event(zone, "client.updated", json!({"client_id": "c", "time_zone": zone}));
    let attempt = json!({"client_id": "c", "starts_at": "2026-03-01T14:00:00Z", "booked_at": "2026-03-01T09:00:00Z"});
    let mut codes = Vec::new();
    // Five hours later is the same day in Dublin, and the next one in Auckland (UTC+13).
    for zone in ["Europe/Dublin", "Pacific/Auckland"] {
        instance.fold(&[updated(zone)]).await;
        codes.push(instance.post("/v1/risk/appointments", &attempt).await.body["reasons"][1]["code"].clone());
    }
    assert_eq!(codes, ["SAME_DAY_BOOKING", "LEAD_TIME"]);
}

#[tokio::test]
async fn lag_is_the_age_of_the_oldest_open_record() {
    let world = World::new();
    let first = Instance::with(world.clone(), world.parts()).await;
    first.fold(&[login("e1", "u")]).await;
    first.shutdown.cancel();
    let parts = world.parts();
    let progress = parts.progress.clone();
    let second = Instance::without_views(world.clone(), parts).await;
    let request = second.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
    let placed = Answer::of(request.body(login("e2", "u").to_string()).send().await.unwrap()).await;
    let partition = placed.body["positions"][0]["partition"].as_u64().unwrap() as u32;
    world.clock.set(NOW_MS + 90_000);
    until(async || progress.view(Family::Logins, partition).lag_ms >= 90_000).await;
    let user = second.get("/v1/users/u").await.body;
    assert_eq!(user["view"], json!({"partition": partition, "offset": 1, "lag_ms": 90_000}));
    assert_eq!(world.log.extent(Topic::Logins, partition).await.unwrap().end, 2);
}

/// A store in which reads of one view, or of all, never return.
struct Silent {
    within: Arc<dyn Store>,
    view: Option<View>,
}

#[async_trait]
impl Store for Silent {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.within.checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        self.within.apply(flush).await
    }

    async fn read(&self, of: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        if keys.iter().any(|key| self.view.is_none_or(|view| key.view == view)) {
            return std::future::pending().await;
        }
        self.within.read(of, source, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.within.scan(generation, view, bucket, after, limit).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.within.drop_generation(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.within.buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.within.pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.within.swap_pointer(family, expected, new).await
    }
}

#[tokio::test]
async fn rows_that_do_not_come_in_time_are_answered_as_the_policy_says() {
    let attempt = json!({"user_id": "u", "ip": "198.51.100.7"});
    let visit = json!({"client_id": "c", "starts_at": "2026-03-29T09:30:00Z"});
    for (policy, decision) in [
        (OnUnavailable::Challenge, Some("challenge")),
        (OnUnavailable::Allow, Some("allow")),
        (OnUnavailable::Error, None),
    ] {
        let world = World::new();
        let parts = world.parts();
        let rows = Rows::cached(
            Arc::new(Silent { within: world.store.clone(), view: None }),
            &rows::Config::default(),
            &Limits::default(),
        );
        let (mut config, mut scoring) = (parts.config.clone(), parts.scoring.clone());
        (config.score_deadline_ms, scoring.no_show.on_unavailable) = (20, policy);
        let rows = Arc::new(rows);
        let settings = LoginPolicy { on_unavailable: policy, ..LoginPolicy::default() };
        let policies = Policies::new(&rows, Settings { login: settings, ..Settings::default() }, 1_000);
        let instance = Instance::with(world, Parts { rows, policies, config, scoring, ..parts }).await;
        let login = instance.post("/v1/risk/logins", &attempt).await;
        let considered = instance.post("/v1/risk/appointments", &visit).await;
        match decision {
            Some(decision) => {
                assert_eq!((login.status, &login.body["decision"]), (200, &json!(decision)));
                assert_eq!(
                    (&login.body["warnings"], &login.body["score"]),
                    (&json!(["DEGRADED", "POLICY_UNAVAILABLE"]), &Value::Null)
                );
                assert_eq!((considered.status, &considered.body["warnings"]), (200, &json!(["DEGRADED"])));
                assert!(considered.body["score"].is_f64(), "the configured rate is known");
            }
            None => {
                assert_eq!(login.problem(), (503, "VIEWS_UNAVAILABLE"));
                assert_eq!(considered.problem(), (503, "VIEWS_UNAVAILABLE"));
            }
        }
        assert_eq!(instance.get("/v1/risk/appointments/a").await.problem(), (503, "VIEWS_UNAVAILABLE"));
    }
}

/// Available rows are used: without the aggregate rows the user's own row still shows what is unusual for the user.
#[tokio::test]
async fn a_score_is_given_from_the_rows_that_are_there() {
    let world = World::new();
    let parts = world.parts();
    let silent = |view| Arc::new(Silent { within: world.store.clone(), view: Some(view) });
    let mut config = parts.config.clone();
    config.score_deadline_ms = 100;
    let reader = |view| Arc::new(Rows::cached(silent(view), &rows::Config::default(), &Limits::default()));
    let rows = reader(View::Feature);
    let instance = Instance::with(world.clone(), Parts { rows, config: config.clone(), ..parts }).await;
    instance.fold(&[login("e", "u")]).await;
    let attempt = |ip: &str, device: &str, country: &str| json!({"user_id": "u", "ip": ip, "device_id": device, "country": country});
    let usual = instance.post("/v1/risk/logins", &attempt("198.51.100.7", "laptop", "IE")).await.body;
    let other = instance.post("/v1/risk/logins", &attempt("203.0.113.9", "phone", "BR")).await.body;
    for answer in [&usual, &other] {
        assert_eq!((&answer["warnings"], &answer["history"]["successes"]), (&json!(["DEGRADED"]), &json!(1)));
    }
    assert!(usual["score"].as_f64() < other["score"].as_f64(), "{usual} {other}");
    assert!(other["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == "NEW_DEVICE"), "{other}");
    // Without the user's row nothing can be compared, but signals of an attack are still reported.
    for n in 0..6 {
        let failed = event(&format!("f{n}"), "login.failed", json!({"user_id": format!("x{n}"), "ip": "203.0.113.9"}));
        instance.fold(&[failed]).await;
    }
    let parts = world.parts();
    let ownerless = Instance::without_views(world.clone(), Parts { rows: reader(View::User), config, ..parts }).await;
    let got = ownerless.post("/v1/risk/logins", &attempt("203.0.113.9", "laptop", "IE")).await.body;
    assert_eq!(
        (&got["score"], &got["decision"], &got["level"]),
        (&Value::Null, &json!("challenge"), &json!("unscored"))
    );
    let codes: Vec<_> = got["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert_eq!((codes, &got["warnings"]), (vec![&json!("IP_FAN_OUT")], &json!(["DEGRADED"])));
}
