//! Tickets: a page without a key opens one stream of its tenant, once, within a minute, and nothing else.

use crate::instance::{Answer, Instance, NOW_MS, World};
use crate::stream::{DUE_MS, Subscriber, announce};
use foretell_service::http::auth::{Keys, hash};
use reqwest::Method;

const TICKETS: &str = "/v1/streams/tickets";
const STREAM: &str = "/v1/reminders/stream";

/// An API with keys named after their use.
async fn instance(world: World) -> Instance {
    let key = |(name, tenant, scope): (&str, &str, &str)| {
        let hash = hash(name);
        format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ntenant = \"{tenant}\"\nscopes = [\"{scope}\"]\n")
    };
    let keys = [
        ("desk", "acme", "visits:read"),
        ("root", "acme", "admin"),
        ("writer", "acme", "events:write"),
        ("logins", "acme", "logins:read"),
        ("globex", "globex", "views:read"),
    ];
    let mut parts = world.parts();
    parts.keys = Some(Keys::parse(&keys.map(key).concat()).unwrap());
    Instance::without_views(world, parts).await
}

async fn post(instance: &Instance, key: &str) -> Answer {
    Answer::of(instance.request(Method::POST, TICKETS).bearer_auth(key).send().await.unwrap()).await
}

async fn ticket(instance: &Instance, key: &str) -> String {
    let given = post(instance, key).await;
    assert_eq!(given.status, 201, "{}", given.body);
    given.body["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ticket_opens_the_stream_of_its_tenant_at_the_last_event_id() {
    let world = World::new();
    let views = Instance::with(world.clone(), world.parts()).await;
    announce(&views, "acme", &["c1", "c2"]).await;
    announce(&views, "globex", &["x"]).await;
    world.clock.set(DUE_MS);
    let instance = instance(world).await;
    let given = post(&instance, "desk").await;
    assert_eq!((given.status, given.header("cache-control")), (201, "no-store"));
    assert_eq!(given.body["expires_at"], "2026-03-02T12:01:00.000Z", "a minute from now");
    let ticket_of_acme = given.body["ticket"].as_str().unwrap();
    let mut first = Subscriber::open(&instance, &format!("{STREAM}?ticket={ticket_of_acme}"), &[]).await;
    let sent = [first.next().await.unwrap(), first.next().await.unwrap()];
    assert!(sent.iter().all(|sent| sent.data["tenant"] == "acme" && sent.kind == "foretell.reminder.due"), "{sent:?}");
    // A page opens a new stream with a new ticket, and continues after its last event.
    let again = format!("{STREAM}?ticket={}&lastEventId={}", ticket(&instance, "root").await, sent[0].id);
    let mut second = Subscriber::open(&instance, &again, &[]).await;
    assert_eq!(second.next().await.unwrap().data, sent[1].data);
    let other = format!("{STREAM}?ticket={}", ticket(&instance, "globex").await);
    let mut other = Subscriber::open(&instance, &other, &[]).await;
    assert_eq!(other.next().await.unwrap().data["tenant"], "globex");
}

#[tokio::test]
async fn a_ticket_is_used_once_within_a_minute_and_for_the_stream_alone() {
    let instance = instance(World::new()).await;
    let open = async |ticket: &str| instance.get(&format!("{STREAM}?ticket={ticket}&from=bogus")).await;
    // The request is rejected by the handler, so that no stream has to end; the ticket is used up nevertheless.
    let used = ticket(&instance, "desk").await;
    assert_eq!(open(&used).await.problem(), (400, "MALFORMED_REQUEST"));
    let again = open(&used).await;
    assert_eq!(again.problem(), (401, "UNAUTHENTICATED"));
    assert_eq!(again.header("www-authenticate"), "Bearer");
    assert!(again.body["detail"].as_str().unwrap().contains("POST /v1/streams/tickets"), "{}", again.body);
    let (in_time, late) = (ticket(&instance, "desk").await, ticket(&instance, "desk").await);
    instance.world.clock.set(NOW_MS + 59_999);
    assert_eq!(open(&in_time).await.problem().0, 400);
    instance.world.clock.set(NOW_MS + 60_000);
    assert_eq!(open(&late).await.problem().0, 401);
    for wrong in ["", "ft_", "ft_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "desk"] {
        assert_eq!(open(wrong).await.problem().0, 401, "{wrong}");
    }

    let ticket = ticket(&instance, "root").await;
    for (method, path) in [
        (Method::GET, "/v1/agenda"),
        (Method::GET, "/v1/users/u"),
        (Method::POST, TICKETS),
        (Method::POST, "/v1/events"),
        (Method::GET, "/v1/nothing"),
    ] {
        let request = instance.request(method, &format!("{path}?ticket={ticket}"));
        assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (401, "UNAUTHENTICATED"), "{path}");
        let request = instance.request(Method::GET, path).bearer_auth(&ticket);
        assert_eq!(Answer::of(request.send().await.unwrap()).await.problem(), (401, "UNAUTHENTICATED"), "{path}");
    }
    let with = async |name: &str, value: &str| {
        let request = instance.request(Method::GET, &format!("{STREAM}?ticket={ticket}")).header(name, value);
        Answer::of(request.send().await.unwrap()).await
    };
    let both = with("authorization", "Bearer desk").await;
    assert_eq!(both.problem(), (400, "MALFORMED_REQUEST"), "it is ambiguous which of both counts");
    assert_eq!(with("foretell-tenant", "globex").await.problem(), (403, "TENANT_FORBIDDEN"));
}

#[tokio::test]
async fn tickets_are_given_to_keys_that_may_read_the_stream() {
    let instance = instance(World::new()).await;
    for (key, status) in
        [("desk", 201), ("root", 201), ("globex", 201), ("writer", 403), ("logins", 403), ("guess", 401)]
    {
        assert_eq!(post(&instance, key).await.status, status, "{key}");
    }
    let nobody = Answer::of(instance.request(Method::POST, TICKETS).send().await.unwrap()).await;
    assert_eq!(nobody.problem(), (401, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn without_keys_a_ticket_carries_the_tenant_that_a_header_named() {
    let world = World::new();
    let instance = Instance::with(world.clone(), world.parts()).await;
    announce(&instance, "acme", &["c1"]).await;
    world.clock.set(DUE_MS);
    let request = instance.request(Method::POST, TICKETS).header("foretell-tenant", "acme");
    let given = Answer::of(request.send().await.unwrap()).await;
    let path = format!("{STREAM}?ticket={}", given.body["ticket"].as_str().unwrap());
    assert_eq!(Subscriber::open(&instance, &path, &[]).await.next().await.unwrap().data["tenant"], "acme");
    assert_eq!(instance.get(&path).await.problem(), (401, "UNAUTHENTICATED"));
}

#[tokio::test]
async fn a_tenant_that_hoards_tickets_has_to_wait_and_others_get_theirs() {
    let instance = instance(World::new()).await;
    let mut given = 0;
    let refused = loop {
        let answer = post(&instance, "desk").await;
        if answer.status != 201 {
            break answer;
        }
        given += 1;
    };
    assert_eq!((given, refused.problem()), (512, (429, "TENANT_OVERLOADED")));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(post(&instance, "globex").await.status, 201);
    instance.world.clock.set(NOW_MS + 60_000);
    assert_eq!(post(&instance, "desk").await.status, 201, "a minute later they have expired");
}
