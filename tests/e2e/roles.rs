//! Roles in separate processes, on the clusters: together they form one service.

use crate::deployment::Deployment;
use crate::facts;
use crate::groups::{GROUPS, members};
use crate::process::{PATIENCE, Service, until};
use foretell_events::codec::rfc3339;
use foretell_ports::clock::{Clock, System};
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use std::pin::Pin;
use tokio::time::timeout;

const HOUR_MS: i64 = 3_600_000;

/// A subscriber of the stream of reminders.
struct Subscriber {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Subscriber {
    async fn open(service: &Service) -> Self {
        let response = service.ask(Method::GET, "/v1/reminders/stream").send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { chunks: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// Type and data of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let event = field("event:").zip(field("data:"));
                let event = event.map(|(kind, data)| (kind.to_owned(), serde_json::from_str(data).expect("JSON")));
                self.text = rest.to_owned();
                if let Some(event) = event {
                    return event;
                }
            }
            let chunk = timeout(PATIENCE, self.chunks.next()).await.expect("an event in time");
            let chunk = chunk.expect("the stream goes on").expect("bytes");
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}

/// A visit in 22 hours that was booked long ago, of a client without quiet hours.
fn booked(client: &str, now_ms: i64) -> [Value; 2] {
    let profile = json!({"client_id": client, "quiet_hours": {"from": "00:00", "to": "00:00"}});
    let visit = json!({
        "client_id": client, "appointment_id": format!("visit-{client}"), "time_zone": "Europe/Dublin",
        "starts_at": rfc3339(now_ms + 22 * HOUR_MS), "booked_at": rfc3339(now_ms - 240 * HOUR_MS),
    });
    [
        facts::event(&format!("{client}-profile"), "client.updated", now_ms - 241 * HOUR_MS, &profile),
        facts::event(&format!("{client}-booked"), "appointment.booked", now_ms - 240 * HOUR_MS, &visit),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_are_one_service() {
    let deployment = Deployment::cluster();
    let [mut http, mut views, mut reminders] =
        ["http", "views", "reminders"].map(|role| Service::start(&deployment, &["--roles", role]));
    for service in [&mut http, &mut views, &mut reminders] {
        service.until_ready().await;
    }
    for (service, status) in [(&http, 404), (&views, 404), (&reminders, 404)] {
        assert_eq!(service.get("/v1/users/nobody").await.status, status);
        assert_eq!(service.get("/livez").await.status, 200);
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(service.ops(path).await.status, 200, "{path}");
        }
        assert_eq!(service.get("/metrics").await.status, 404);
    }
    assert_eq!(http.get("/v1/users/nobody").await.body["code"], "USER_NOT_FOUND");
    assert_eq!(views.get("/openapi.json").await.status, 404, "a process without the role answers no requests");

    let now_ms = System.now_ms();
    let attempt = json!({"user_id": "ada", "ip": "198.51.100.7", "device_id": "laptop", "country": "IE", "asn": 64500});
    let logins: Vec<_> = (1..=5)
        .map(|day| facts::event(&format!("l{day}"), "login.succeeded", now_ms - day * 24 * HOUR_MS, &attempt))
        .collect();
    http.fold(&logins).await;
    let score = http.post("/v1/risk/logins", &attempt).await.good();
    assert_eq!((&score["history"]["successes"], &score["decision"]), (&json!(5), &json!("allow")), "{score}");

    let mut subscriber = Subscriber::open(&http).await;
    http.fold(&booked("fatima", now_ms)).await;
    let (kind, due) = subscriber.next().await;
    assert_eq!((kind.as_str(), &due["data"]["appointment_id"]), ("foretell.reminder.due", &json!("visit-fatima")));
    assert_eq!((&due["data"]["step"], &due["id"]), (&json!("24h"), &due["data"]["reminder_id"]), "{due}");

    // Another process replaces the planner, and each announcement is made once.
    reminders.process.kill();
    let mut reminders = Service::start(&deployment, &["--roles", "reminders"]);
    reminders.until_ready().await;
    let ids = json!({"client_id": "fatima", "appointment_id": "visit-fatima"});
    http.fold(&[facts::event("cancel", "appointment.cancelled", System.now_ms(), &ids)]).await;
    let (kind, withdrawn) = subscriber.next().await;
    assert_eq!(kind, "foretell.reminder.withdrawn", "{withdrawn}");
    assert_eq!(withdrawn["data"]["reminder_id"], due["data"]["reminder_id"]);
    assert_eq!(withdrawn["data"]["reason"], "cancelled", "{withdrawn}");
    // A later subscriber receives the same from the log.
    let mut later = Subscriber::open(&http).await;
    for (kind, event) in [("foretell.reminder.due", &due), ("foretell.reminder.withdrawn", &withdrawn)] {
        let received = later.next().await;
        assert_eq!((received.0.as_str(), &received.1), (kind, event));
    }

    for service in [http, views, reminders] {
        service.process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stops_is_out_of_its_groups_when_it_ends() {
    // Longer than a request waits for its fold: nothing below can have waited for a session to expire.
    let deployment = Deployment::cluster_of_sessions(45_000);
    let one = Service::ready(&deployment, &[]).await;
    let other = Service::ready(&deployment, &[]).await;
    until("both are members of all groups", async || (members(&deployment).await == [2; GROUPS]).then_some(())).await;
    one.process.stop().await;
    assert_eq!(members(&deployment).await, [1; GROUPS]);

    let user = |n: i64| {
        let attempt = json!({"user_id": format!("user-{n}"), "ip": "198.51.100.7"});
        facts::event(&format!("l{n}"), "login.succeeded", System.now_ms() - n, &attempt)
    };
    other.fold(&(0..100).map(user).collect::<Vec<_>>()).await;
    other.process.stop().await;
    assert_eq!(members(&deployment).await, [0; GROUPS]);
}
