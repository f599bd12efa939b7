//! Connections that send or read nothing, in any state of the protocol, and the slots that they occupy.

use crate::instance::{Answer, Instance, World, login, until};
use bytes::Bytes;
use foretell_service::http::Config;
use h2::client::{self, SendRequest};
use reqwest::Method;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer that is larger than any buffer.
const LARGE: &str = "/docs/swagger-ui-bundle.js";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame without settings.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn instance(change: impl FnOnce(&mut Config)) -> Instance {
    let world = World::new();
    let mut parts = world.parts();
    change(&mut parts.config);
    Instance::with(world, parts).await
}

/// An instance without views, on which every request that waits for a fold stays busy.
async fn without_views(change: impl FnOnce(&mut Config)) -> Instance {
    let world = World::new();
    let mut parts = world.parts();
    change(&mut parts.config);
    Instance::without_views(world, parts).await
}

async fn connected(instance: &Instance, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(instance.address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// Reads until the other side closes or resets the connection.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it is closed");
    read
}

/// An HTTP/2 connection that answers pings; the sender of requests, and the connection's end.
async fn http2(instance: &Instance, window: u32) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let stream = TcpStream::connect(instance.address).await.unwrap();
    let mut builder = client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

fn get(instance: &Instance, path: &str) -> axum::http::Request<()> {
    axum::http::Request::get(format!("http://{}{path}", instance.address)).body(()).unwrap()
}

/// A request that is busy until the views contain its event, which they never do.
fn busy(instance: &Instance, id: &str) -> JoinHandle<Answer> {
    let request = instance.request(Method::POST, "/v1/events").header("prefer", "wait=20");
    let request = request.header("content-type", "application/cloudevents+json").body(login(id, id).to_string());
    tokio::spawn(async move { Answer::of(request.send().await.unwrap()).await })
}

/// Waits until the event of a busy request is in the log.
async fn appended(instance: &Instance, id: &str) {
    use foretell_events::{Topic, key};
    use foretell_ports::log::Log;
    let partition = key::partition(format!("default:{id}").as_bytes(), crate::instance::PARTITIONS);
    until(async || instance.world.log.extent(Topic::Logins, partition).await.unwrap().end > 0).await;
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed_whatever_it_sent() {
    let instance = instance(|config| config.head_ms_max = 50).await;
    for sent in [
        &b""[..],
        b"P",
        b"PRI * HT",
        b"GET /livez HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n",
        PREFACE,
        &[PREFACE, SETTINGS].concat(),
        // The beginning of an HTTP/2 header block that continues in another frame, which is not sent.
        &[PREFACE, SETTINGS, &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]].concat(),
    ] {
        let answer = closed(connected(&instance, sent).await).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{sent:?}: {}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn an_answered_connection_may_be_idle_for_longer_than_a_head_takes() {
    const GET: &[u8] = b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let instance = instance(|config| (config.head_ms_max, config.idle_ms_max) = (20, 60_000)).await;
    let mut idle = connected(&instance, GET).await;
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    // A connection that never sends a request is closed meanwhile.
    closed(connected(&instance, b"").await).await;
    idle.write_all(&[&b"GET /livez HTTP/1.1\r\nconnection: close\r\n"[..], b"host: 127.0.0.1\r\n\r\n"].concat())
        .await
        .unwrap();
    let rest = closed(idle).await;
    assert_eq!(rest.windows(12).filter(|part| part == b"HTTP/1.1 200").count(), 1, "the second one was answered");
}

#[tokio::test]
async fn an_answered_connection_is_not_idle_for_ever() {
    let instance = instance(|config| config.idle_ms_max = 50).await;
    let answer = closed(connected(&instance, b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn pings_keep_no_idle_connection_open_and_a_stream_does() {
    let instance = instance(|config| config.idle_ms_max = 50).await;
    let (mut busy, busy_ended) = http2(&instance, 65_535).await;
    let (stream, _) = busy.send_request(get(&instance, "/v1/reminders/stream"), true).unwrap();
    let stream = stream.await.unwrap();
    assert_eq!(stream.status(), 200);
    let (mut idle, idle_ended) = http2(&instance, 65_535).await;
    let (answer, _) = idle.send_request(get(&instance, "/livez"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    // h2 answers every ping by itself.
    tokio::time::timeout(PATIENCE, idle_ended).await.expect("it is closed").unwrap();
    assert!(!busy_ended.is_finished());
    let (answer, _) = busy.send_request(get(&instance, "/livez"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_reader_that_reads_nothing_is_cut_off() {
    let instance = instance(|config| config.write_ms_max = 50).await;
    let request = format!("GET {LARGE} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    let deaf = connected(&instance, request.repeat(20).as_bytes()).await;
    // Writing to a connection that the other side has closed results in an error.
    until(async || matches!(deaf.try_write(b"\r\n"), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock))
        .await;
}

#[tokio::test]
async fn a_stream_whose_window_stays_closed_is_reset_however_little_is_left_and_others_go_on() {
    let instance = instance(|config| config.write_ms_max = 50).await;
    let large: u32 = instance.get(LARGE).await.header("content-length").parse().unwrap();
    for (path, window) in [
        (LARGE, 0),
        (LARGE, large - 1),
        ("/openapi.json", 0),
        ("/livez", 0),
        ("/livez", 1),
        ("/nowhere", 0),
        ("/v1/users/nobody", 0),
    ] {
        let (mut sender, ended) = http2(&instance, window).await;
        let (answer, _) = sender.send_request(get(&instance, path), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let reset = async {
            loop {
                if let Err(reset) = body.data().await.expect("it has no end") {
                    return reset;
                }
            }
        };
        let reset = tokio::time::timeout(PATIENCE, reset).await.expect("it is reset");
        assert!(reset.is_reset(), "{path} {window}: {reset:?}");
        assert!(!ended.is_finished(), "{path} {window}");
        let request = axum::http::Request::head(format!("http://{}/livez", instance.address)).body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200, "an answer without a body needs no window");
    }
}

#[tokio::test]
async fn a_closed_window_holds_no_connection() {
    let instance = instance(|config| (config.write_ms_max, config.idle_ms_max) = (50, 50)).await;
    for path in ["/livez", "/nowhere", "/v1/users/nobody", LARGE] {
        let (mut sender, ended) = http2(&instance, 0).await;
        let (answer, _) = sender.send_request(get(&instance, path), true).unwrap();
        let _unread = answer.await.unwrap();
        // h2 answers every ping by itself.
        tokio::time::timeout(PATIENCE, ended).await.expect("it is closed").unwrap();
    }
}

#[tokio::test]
async fn the_reserve_is_not_held_by_closed_windows() {
    let instance = without_views(|config| (config.connections_max, config.connections_peer_max) = (1, 1)).await;
    let waiting = busy(&instance, "a");
    appended(&instance, "a").await;
    let mut held = Vec::new();
    for _ in 0..foretell_service::http::RESERVE {
        let (mut sender, ended) = http2(&instance, 0).await;
        let (answer, _) = sender.send_request(get(&instance, "/livez"), true).unwrap();
        held.push((answer.await.unwrap(), sender, ended));
    }
    let probe =
        async || instance.request(Method::GET, "/livez").send().await.is_ok_and(|answer| answer.status() == 200);
    // The busy connection keeps its slot for longer.
    tokio::time::timeout(PATIENCE / 2, until(probe)).await.expect("a probe is answered");
    waiting.abort();
}

#[tokio::test]
async fn documents_that_are_not_read_take_no_place_of_a_tenant() {
    let instance = instance(|config| (config.requests_max, config.requests_tenant_max) = (1, 1)).await;
    let (mut sender, _ended) = http2(&instance, 0).await;
    let mut unread = Vec::new();
    for _ in 0..16 {
        let (answer, _) = sender.send_request(get(&instance, LARGE), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    assert_eq!(instance.get(LARGE).await.problem(), (503, "OVERLOADED"));
    assert_eq!(instance.get("/v1/policies/login").await.status, 200);
    drop(unread);
    until(async || instance.get(LARGE).await.status == 200).await;
}

#[tokio::test]
async fn an_answer_keeps_its_place_until_it_is_read_however_small() {
    let instance = instance(|config| (config.requests_max, config.requests_tenant_max) = (4, 2)).await;
    let (mut sender, _ended) = http2(&instance, 0).await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let (answer, _) = sender.send_request(get(&instance, "/v1/policies/login"), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    assert_eq!(instance.get("/v1/policies/login").await.problem(), (429, "TENANT_OVERLOADED"));
    assert_eq!(instance.get("/livez").await.status, 200);
    drop(unread);
    until(async || instance.get("/v1/policies/login").await.status == 200).await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A HEADERS frame with literal fields (RFC 7541, 6.2.2).
fn headers(stream: u8, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    frame(1, 4 | flags, stream, &fields.iter().map(field).collect::<Vec<_>>().concat())
}

/// Reads frames until one of this kind and stream arrives.
async fn received(connection: &mut TcpStream, kind: u8, stream: u8) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        connection.read_exact(&mut payload).await?;
        if (head[3], head[8]) == (kind, stream) {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_request_that_crosses_the_goodbye_is_answered() {
    const GOAWAY: u8 = 7;
    let instance = without_views(|config| config.idle_ms_max = 50).await;
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/livez"), (":authority", "127.0.0.1")];
    let mut connection = connected(&instance, &[PREFACE, SETTINGS, &headers(1, 1, &get)].concat()).await;
    received(&mut connection, GOAWAY, 0).await.unwrap();
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/events"),
        (":authority", "127.0.0.1"),
        ("content-type", "application/cloudevents+json"),
        ("prefer", "wait=2"),
    ];
    let body = login("e", "u").to_string();
    connection.write_all(&[headers(3, 0, &post), frame(0, 1, 3, body.as_bytes())].concat()).await.unwrap();
    let answered = tokio::time::timeout(PATIENCE, received(&mut connection, 1, 3)).await.unwrap();
    assert!(answered.is_ok(), "it was cut off while it was answered: {answered:?}");
    closed(connection).await;
}

#[tokio::test]
async fn silent_connections_are_evicted_for_new_requests() {
    let instance = instance(|config| (config.connections_max, config.connections_peer_max) = (3, 3)).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(connected(&instance, b"").await);
    }
    for path in ["/livez", "/v1/policies/login"] {
        assert_eq!(instance.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn probes_are_answered_when_all_places_are_busy() {
    let instance = without_views(|config| (config.connections_max, config.connections_peer_max) = (2, 2)).await;
    let waiting = ["a", "b"].map(|id| busy(&instance, id));
    for id in ["a", "b"] {
        appended(&instance, id).await;
    }
    let mut silent = Vec::new();
    for _ in 0..2 * foretell_service::http::RESERVE {
        silent.push(connected(&instance, b"").await);
    }
    assert_eq!(instance.get("/livez").await.status, 200);
    assert_eq!(instance.get("/readyz").await.status, 503, "there are no views, so it is not ready");
    assert_eq!(instance.get("/v1/users/u").await.problem(), (503, "OVERLOADED"));
    let _views = instance.world.views(instance.shutdown.clone()).await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().status, 200, "requests with a slot are answered");
    }
    until(async || instance.get("/v1/users/u").await.status == 404).await;
}

#[tokio::test]
async fn a_peer_has_a_share_of_the_places() {
    let instance = without_views(|config| (config.connections_max, config.connections_peer_max) = (4, 1)).await;
    let waiting = busy(&instance, "a");
    appended(&instance, "a").await;
    assert_eq!(instance.get("/v1/users/u").await.problem(), (503, "OVERLOADED"));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(instance.address).await.unwrap();
    let request = b"GET /v1/policies/login HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    other.write_all(request).await.unwrap();
    let answer = closed(other).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("OVERLOADED"), "{answer}");
    waiting.abort();
}

#[tokio::test]
async fn a_head_is_bounded_in_bytes() {
    let instance = instance(|_| {}).await;
    let long = format!("GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    let mut stream = TcpStream::connect(instance.address).await.unwrap();
    // It may be rejected while it is still being sent.
    let _ = stream.write_all(long.as_bytes()).await;
    let answer = closed(stream).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}
