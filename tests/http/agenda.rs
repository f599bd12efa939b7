//! The agenda: order, pages without loss or repetition, filters, limits, and tenants.

use crate::instance::{Answer, HOUR_MS, Instance, NOW_MS, World, booked, event};
use foretell_events::codec::rfc3339;
use foretell_service::http::{Config, Parts};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A booking for `starts_ms`, made this many days before the time at which every test begins.
fn visit(id: &str, client: &str, starts_ms: i64, lead_days: i64, location: &str) -> Value {
    let data = json!({
        "appointment_id": id, "client_id": client, "starts_at": rfc3339(starts_ms), "time_zone": "UTC",
        "booked_at": rfc3339(starts_ms - lead_days * 24 * HOUR_MS), "location_id": location, "service": "check-up",
    });
    event(&format!("book-{id}"), "appointment.booked", data)
}

fn status(id: &str, client: &str, kind: &str) -> Value {
    event(&format!("{kind}-{id}"), &format!("appointment.{kind}"), json!({"appointment_id": id, "client_id": client}))
}

/// Past visits of a client, each booked a week ahead; the first `missed` of them are missed.
fn past(client: &str, visits: usize, missed: usize) -> Vec<Value> {
    let of = |n: usize| {
        let id = format!("past-{client}-{n}");
        let outcome = if n < missed { "missed" } else { "attended" };
        let starts_ms = NOW_MS - (n as i64 + 2) * 24 * HOUR_MS;
        let mut booked = visit(&id, client, starts_ms, 7, "main");
        booked["time"] = json!(rfc3339(starts_ms - 7 * 24 * HOUR_MS));
        let mut ended = status(&id, client, outcome);
        ended["time"] = json!(rfc3339(starts_ms + HOUR_MS));
        [booked, ended]
    };
    (0..visits).flat_map(of).collect()
}

/// A clinic: three clients with a history (good, middling and bad) and new ones; visits over the next two days.
async fn clinic() -> Instance {
    let instance = Instance::start().await;
    for (client, visits, missed) in [("good", 12, 0), ("middling", 6, 1), ("bad", 6, 5)] {
        instance.fold(&past(client, visits, missed)).await;
    }
    let mut bookings = Vec::new();
    for (n, client) in ["good", "middling", "bad"].into_iter().enumerate() {
        let starts_ms = NOW_MS + (n as i64 + 1) * HOUR_MS;
        bookings.push(visit(&format!("soon-{client}"), client, starts_ms, 7, "main"));
        bookings.push(visit(&format!("later-{client}"), client, starts_ms + 24 * HOUR_MS, 7, "annex"));
    }
    for n in 0..9 {
        let location = if n % 2 == 0 { "main" } else { "annex" };
        // In a different order than their ids.
        let starts_ms = NOW_MS + (9 - n) * HOUR_MS / 4;
        bookings.push(visit(&format!("new-{n}"), &format!("new-client-{n}"), starts_ms, n % 3, location));
    }
    instance.fold(&bookings).await;
    instance
}

async fn list(instance: &Instance, query: &str) -> Value {
    let answer = instance.get(&format!("/v1/agenda{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.body
}

fn ids(answer: &Value) -> Vec<String> {
    let visits = answer["visits"].as_array().unwrap().iter();
    visits.map(|visit| visit["appointment_id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of this size, each found by the cursor of the previous one.
async fn pages(instance: &Instance, query: &str, limit: usize) -> Vec<Value> {
    let mut pages = vec![list(instance, &format!("{query}&limit={limit}")).await];
    while let Some(next) = pages.last().unwrap()["next"].as_str() {
        pages.push(list(instance, &format!("?limit={limit}&cursor={next}")).await);
        assert!(pages.len() < 50, "it comes to an end");
    }
    pages
}

#[tokio::test]
async fn visits_of_the_next_day_come_by_risk_with_what_to_do() {
    let instance = clinic().await;
    let answer = list(&instance, "").await;
    assert_eq!((&answer["order"], &answer["next"], &answer["warnings"]), (&json!("risk"), &Value::Null, &json!([])));
    assert_eq!((&answer["from"], &answer["to"]), (&json!(rfc3339(NOW_MS)), &json!(rfc3339(NOW_MS + 24 * HOUR_MS))));
    let visits = answer["visits"].as_array().unwrap();
    assert_eq!(visits.len(), 12, "those of the day after are not among them");
    let key = |visit: &Value| {
        (-visit["score"].as_f64().unwrap(), visit["starts_at"].to_string(), visit["appointment_id"].to_string())
    };
    assert!(visits.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])), "{visits:?}");
    let bad = &visits[0];
    assert_eq!((&bad["appointment_id"], &bad["client_id"]), (&json!("soon-bad"), &json!("bad")));
    assert_eq!((&bad["level"], &bad["recommended_action"]), (&json!("high"), &json!("call")));
    assert_eq!(
        (&bad["location_id"], &bad["service"], &bad["lead_days"]),
        (&json!("main"), &json!("check-up"), &json!(7))
    );
    assert_eq!((&bad["local_start"], &bad["time_zone"]), (&json!("2026-03-01T13:00:00"), &json!("UTC")));
    let codes: Vec<_> = bad["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert_eq!(codes[0], "PAST_NO_SHOWS", "{codes:?}");
    // A score is the same on every route.
    for visit in visits {
        let alone = instance.get(&format!("/v1/risk/appointments/{}", visit["appointment_id"].as_str().unwrap())).await;
        for field in ["score", "level", "recommended_action"] {
            assert_eq!(alone.body[field], visit[field], "{field} of {visit}");
        }
    }
    let totals = &answer["totals"];
    let level = |level: &str| visits.iter().filter(|visit| visit["level"] == level).count();
    for of in ["low", "medium", "high"] {
        assert_eq!(totals[of], level(of), "{of}: {totals}");
    }
    assert_eq!((&totals["visits"], &totals["confirmed"]), (&json!(12), &json!(0)));
    let partitions: Vec<_> = answer["view"].as_array().unwrap().iter().map(|view| &view["partition"]).collect();
    assert_eq!(partitions, [0, 1, 2]);
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing() {
    let instance = clinic().await;
    for query in ["?order=risk&to=2026-03-04T00:00:00Z", "?order=start&to=2026-03-04T00:00:00Z", "?location_id=main"] {
        let whole = list(&instance, query).await;
        for limit in [1, 2, 4, 7, 100] {
            let pages = pages(&instance, query, limit).await;
            let together: Vec<_> = pages.iter().flat_map(ids).collect();
            assert_eq!(together, ids(&whole), "{query} by {limit}");
            for page in &pages {
                assert_eq!(page["totals"], whole["totals"], "of the whole list");
                assert_eq!((&page["warnings"], &page["to"]), (&json!([]), &whole["to"]));
            }
            assert!(pages.iter().rev().skip(1).all(|page| ids(page).len() == limit), "every page but the last is full");
        }
    }
    let by_start = list(&instance, "?order=start").await;
    let starts: Vec<_> = by_start["visits"].as_array().unwrap().iter().map(|v| v["starts_at"].to_string()).collect();
    assert!(starts.is_sorted(), "{starts:?}");
}

#[tokio::test]
async fn a_list_stays_at_its_first_instant_and_reports_changes() {
    let instance = clinic().await;
    let first = list(&instance, "?limit=5").await;
    instance.world.clock.set(NOW_MS + 2 * HOUR_MS);
    let next = format!("?limit=5&cursor={}", first["next"].as_str().unwrap());
    let second = list(&instance, &next).await;
    assert_eq!((&second["from"], &second["evaluated_at"]), (&first["from"], &first["evaluated_at"]));
    assert_eq!(second["warnings"], json!([]), "time alone changes nothing");
    assert_ne!(list(&instance, "").await["from"], first["from"], "another list begins now");
    instance.fold(&[visit("another", "new-client-1", NOW_MS + 3 * HOUR_MS, 1, "main")]).await;
    let changed = list(&instance, &next).await;
    assert_eq!(changed["warnings"], json!(["AGENDA_CHANGED"]));
    let last = list(&instance, &format!("?cursor={}", changed["next"].as_str().unwrap())).await;
    assert_eq!(
        last["warnings"],
        json!(["AGENDA_CHANGED"]),
        "it is compared with the first page, whichever came between"
    );
}

#[tokio::test]
async fn cancelled_visits_are_not_listed_and_confirmed_ones_are_marked() {
    let instance = clinic().await;
    let soon = |kind: &str, id: &str| status(&format!("soon-{id}"), id, kind);
    let mut moved = visit("new-1", "new-client-1", NOW_MS + 30 * HOUR_MS, 2, "annex");
    moved["type"] = json!("foretell.appointment.rescheduled");
    moved["id"] = json!("move-new-1");
    let new = |kind: &str, n: usize| status(&format!("new-{n}"), &format!("new-client-{n}"), kind);
    let events = [
        soon("cancelled", "bad"),
        soon("confirmed", "good"),
        moved,
        new("deleted", 3),
        new("attended", 4),
        new("missed", 5),
    ];
    instance.fold(&events).await;
    let answer = list(&instance, "").await;
    let listed: BTreeSet<_> = ids(&answer).into_iter().collect();
    for gone in ["soon-bad", "new-1", "new-3", "new-4"] {
        assert!(!listed.contains(gone), "{gone}");
    }
    assert!(listed.contains("new-5"), "a visit that has not begun cannot be missed");
    assert_eq!((listed.len(), &answer["totals"]["confirmed"]), (8, &json!(1)));
    let good = answer["visits"].as_array().unwrap().iter().find(|visit| visit["appointment_id"] == "soon-good");
    assert_eq!(good.unwrap()["status"], "confirmed");
    let moved = list(&instance, "?from=2026-03-02T16:00:00Z&to=2026-03-02T16:00:01Z").await;
    assert_eq!(ids(&moved), ["new-1"], "to the instant: from is within");
    assert!(ids(&list(&instance, "?from=2026-03-02T15:00:01Z&to=2026-03-02T16:00:00Z").await).is_empty(), "to is not");
}

#[tokio::test]
async fn the_next_reminder_is_that_of_the_appointment() {
    let instance = Instance::start().await;
    // Booked just now for four days ahead, and for this evening: the steps of the second were never due.
    let far = rfc3339(NOW_MS + 96 * HOUR_MS);
    instance.fold(&[booked("b", "c", "far", &far), booked("d", "c", "near", "2026-03-01T18:00:00")]).await;
    let answer = list(&instance, "?order=start&to=2026-03-08T00:00:00Z").await;
    assert_eq!(ids(&answer), ["near", "far"]);
    let story = instance.get("/v1/appointments/far").await.body;
    let planned =
        story["reminders"].as_array().unwrap().iter().find(|reminder| reminder["status"] == "planned").unwrap();
    let next = &answer["visits"][1]["next_reminder"];
    for field in ["step", "due_at", "status"] {
        assert_eq!(next[field], planned[field], "{field}");
    }
    assert_eq!((&next["step"], &answer["visits"][0]["next_reminder"]), (&json!("72h"), &Value::Null));
}

#[tokio::test]
async fn the_visits_of_another_tenant_are_invisible() {
    let instance = Instance::start().await;
    let as_tenant = async |method: Method, path: &str, tenant: &str, body: &Value| {
        let request = instance.request(method, path).header("foretell-tenant", tenant).header("prefer", "wait=20");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        Answer::of(request.body(body.to_string()).send().await.unwrap()).await
    };
    // Names that are close to each other in the order of keys; more clients in an hour than a page of a scan has.
    let counts = [("acme", 3), ("acme-2", 450), ("acm", 2), ("acme0", 1)];
    for (tenant, count) in counts {
        let bookings: Vec<_> = (0..count)
            .map(|n| visit(&format!("{tenant}-{n}"), &format!("client-{n}"), NOW_MS + HOUR_MS + n, 3, "main"))
            .collect();
        for batch in bookings.chunks(200) {
            let folded = as_tenant(Method::POST, "/v1/events", tenant, &json!(batch)).await;
            assert_eq!((folded.status, &folded.body["folded"]), (200, &json!(true)), "{}", folded.body);
        }
    }
    for (tenant, count) in counts {
        let answer = as_tenant(Method::GET, "/v1/agenda?limit=1000", tenant, &Value::Null).await.body;
        let expected: BTreeSet<_> = (0..count).map(|n| format!("{tenant}-{n}")).collect();
        assert_eq!(ids(&answer).into_iter().collect::<BTreeSet<_>>(), expected, "{tenant}");
        assert_eq!(answer["totals"]["visits"], count);
    }
    assert!(ids(&list(&instance, "").await).is_empty(), "the default tenant has none");
    // A cursor of another tenant only leads through the caller's own list.
    let first = as_tenant(Method::GET, "/v1/agenda?limit=10", "acme-2", &Value::Null).await.body;
    let path = format!("/v1/agenda?cursor={}", first["next"].as_str().unwrap());
    let other = as_tenant(Method::GET, &path, "acme", &Value::Null).await.body;
    assert!(ids(&other).iter().all(|id| id.starts_with("acme-") && id.len() == 6), "{other}");
}

#[tokio::test]
async fn agendas_wait_for_their_turn_and_do_not_crowd_out_scores() {
    let world = World::new();
    let parts = world.parts();
    let config = Config { agendas_max: 1, ..parts.config.clone() };
    let instance = Instance::with(world, Parts { config, ..parts }).await;
    instance.fold(&[visit("a", "c", NOW_MS + HOUR_MS, 1, "main")]).await;
    let lists = futures::future::join_all((0..32).map(|_| instance.get("/v1/agenda")));
    let (lists, score) = tokio::join!(lists, instance.get("/v1/risk/appointments/a"));
    assert_eq!(score.status, 200);
    for list in lists {
        assert_eq!((list.status, ids(&list.body)), (200, vec!["a".to_owned()]), "{}", list.body);
    }
}

#[tokio::test]
async fn a_window_has_bounds() {
    let world = World::new();
    let parts = world.parts();
    let config = Config { agenda_visits_max: 4, ..parts.config.clone() };
    let instance = Instance::with(world, Parts { config, ..parts }).await;
    let bookings: Vec<_> =
        (0..5).map(|n| visit(&format!("a{n}"), &format!("c{}", n % 2), NOW_MS + n * HOUR_MS, 1, "main")).collect();
    instance.fold(&bookings).await;
    assert_eq!(instance.get("/v1/agenda").await.problem(), (422, "AGENDA_TOO_LARGE"));
    assert_eq!(ids(&list(&instance, "?to=2026-03-01T13:30:00Z&order=start").await), ["a0", "a1", "a2", "a3"]);
    for (query, problem, pointer) in [
        ("?from=soon", (400, "MALFORMED_REQUEST"), "/from"),
        ("?order=name", (400, "MALFORMED_REQUEST"), "/order"),
        ("?limit=x", (400, "MALFORMED_REQUEST"), "/limit"),
        ("?cursor=x", (400, "MALFORMED_REQUEST"), "/cursor"),
        ("?limit=1001", (422, "VALIDATION_FAILED"), "/limit"),
        ("?to=2026-02-01T00:00:00Z", (422, "VALIDATION_FAILED"), "/to"),
        ("?from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:01Z", (422, "VALIDATION_FAILED"), "/to"),
    ] {
        let answer = instance.get(&format!("/v1/agenda{query}")).await;
        assert_eq!(answer.problem(), problem, "{query}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{query}");
    }
    assert_eq!(instance.get("/v1/agenda?limit=1&limit=2").await.problem(), (400, "MALFORMED_REQUEST"));
}
