//! Load over HTTP/1.1: requests are built beforehand, connections are kept, answers are read completely, and their
//! status is checked. The client is a few lines on top of a socket, so that it uses little of the shared processor.

use crate::{Failure, figure, generated, percentiles};
use axum::{Json, Router, routing::post, serve::ListenerExt};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Different requests that are sent in rotation.
const QUESTIONS: usize = 20_000;
/// Time before measuring, in which caches fill and connections open.
const WARM_UP: Duration = Duration::from_secs(3);

/// A kept connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(host: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its answer: the status, and the body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8]), Failure> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the service closed the connection".into());
            }
            if let Some((head, length)) = head(&self.buffer)
                && self.buffer.len() >= head + length
            {
                let status = std::str::from_utf8(&self.buffer[9..12])?.parse()?;
                return Ok((status, &self.buffer[head..head + length]));
            }
        }
    }
}

/// Bytes of a complete head, and of the body that follows it.
fn head(answer: &[u8]) -> Option<(usize, usize)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..end]).ok()?;
    let length = |line: &str| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    };
    Some((end + 4, text.lines().find_map(length).unwrap_or(0)))
}

/// A complete request; `headers` are lines with their line endings.
pub(crate) fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request =
        format!("{line} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

/// A request that posts one event.
pub(crate) fn post_event(event: &Value, headers: &str) -> Vec<u8> {
    let headers = format!("content-type: application/cloudevents+json\r\n{headers}");
    request("POST /v1/events", &headers, event.to_string().as_bytes())
}

/// Parses JSON and writes it again: the minimum that any service of this kind does.
pub(crate) async fn echo(listen: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?.tap_io(|stream| {
        // On a closed connection the next read fails.
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new().fallback(post(|Json(body): Json<Value>| async { Json(body) }));
    Ok(axum::serve(listener, router).await?)
}

/// Requests scores on every connection, one after another.
pub(crate) async fn scores(host: &str, path: &str, connections: usize, time: Duration) -> Result<(), Failure> {
    let question = |event| {
        let body = generated::question(&event).to_string();
        request(&format!("POST {path}"), "content-type: application/json\r\n", body.as_bytes())
    };
    let questions: Arc<Vec<_>> = Arc::new(generated::logins(2).take(QUESTIONS).map(question).collect());
    ask(host, &questions, connections, WARM_UP).await?;
    let times = ask(host, &questions, connections, time).await?;
    figure(&format!("POST {path}"), times.len() as f64 / time.as_secs_f64(), "/s");
    percentiles(&format!("POST {path}"), &times);
    Ok(())
}

async fn ask(
    host: &str,
    questions: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    time: Duration,
) -> Result<Histogram<u64>, Failure> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let mut connection = Connection::open(host).await?;
        let questions = Arc::clone(questions);
        tasks.spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            let turn = questions.iter().cycle().skip(number * questions.len() / connections);
            for question in turn {
                let began = Instant::now();
                if began >= until {
                    break;
                }
                let (status, body) = connection.exchange(question).await?;
                if status != 200 {
                    return Err(format!("{status} {}", String::from_utf8_lossy(body)).into());
                }
                times.record(began.elapsed().as_micros() as u64)?;
            }
            Ok::<_, Failure>(times)
        });
    }
    merged(tasks).await
}

async fn merged(mut tasks: JoinSet<Result<Histogram<u64>, Failure>>) -> Result<Histogram<u64>, Failure> {
    let mut all = Histogram::new(3)?;
    while let Some(times) = tasks.join_next().await {
        all.add(times??)?;
    }
    Ok(all)
}

/// Posts events in batches of one size, or one by one, until all are accepted.
pub(crate) async fn ingest(host: &str, events: usize, batch: usize, connections: usize) -> Result<(), Failure> {
    // A separate seed for each batch size, because duplicate ids would be skipped.
    let events: Vec<_> = generated::logins(100 + batch as u64).take(events).map(generated::cloud_event).collect();
    let post = |chunk: &[Value]| match chunk {
        [event] => post_event(event, ""),
        chunk => {
            let body = serde_json::to_vec(chunk).unwrap_or_default();
            request("POST /v1/events", "content-type: application/cloudevents-batch+json\r\n", &body)
        }
    };
    let requests: VecDeque<_> = events.chunks(batch).map(post).collect();
    let requests = Arc::new(Mutex::new(requests));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(host).await?;
        let requests = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            let next = || requests.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some(request) = next() {
                let began = Instant::now();
                let (status, body) = connection.exchange(&request).await?;
                if status != 202 {
                    return Err(format!("{status} {}", String::from_utf8_lossy(body)).into());
                }
                times.record(began.elapsed().as_micros() as u64)?;
            }
            Ok(times)
        });
    }
    let times = merged(tasks).await?;
    let name = format!("ingest {batch} a request, {connections} connections");
    figure(&name, events.len() as f64 / began.elapsed().as_secs_f64(), "events/s");
    percentiles(&name, &times);
    Ok(())
}
