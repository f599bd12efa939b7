//! The time until an acknowledged event is visible, while others arrive at a steady rate.
//!
//! Each probe is the first login of a new account: it is posted, answered with 202, and then its row is read repeatedly
//! until it exists. Every other probe is posted with `Prefer: wait` instead and measures the complete request.

use crate::load::{Connection, post_event, request};
use crate::{Failure, figure, generated, percentiles};
use foretell_events::Fact;
use foretell_events::login::LoginFact;
use hdrhistogram::Histogram;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// Connections that share the steady rate.
const CONNECTIONS: u64 = 16;
/// Interval between two probes.
const PROBE: Duration = Duration::from_millis(25);
/// Interval between two reads of a row that does not exist yet.
const LOOK: Duration = Duration::from_micros(500);

/// Posts and probes.
pub(crate) async fn run(host: &str, rate: u64, time: Duration) -> Result<(), Failure> {
    let until = Instant::now() + time;
    let began = Instant::now();
    let mut posters = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let connection = Connection::open(host).await?;
        posters.spawn(post(connection, 1_000 + number, CONNECTIONS as f64 / rate as f64, until));
    }
    probe(host, until).await?;
    let mut posted = 0;
    while let Some(count) = posters.join_next().await {
        posted += count??;
    }
    figure("events posted in addition to the probes", posted as f64 / began.elapsed().as_secs_f64(), "events/s");
    Ok(())
}

async fn post(mut connection: Connection, seed: u64, gap_seconds: f64, until: Instant) -> Result<usize, Failure> {
    let mut ticks = interval(Duration::from_secs_f64(gap_seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut posted = 0;
    for event in generated::logins(seed) {
        ticks.tick().await;
        if Instant::now() >= until {
            break;
        }
        let (status, _) = connection.exchange(&post_event(&generated::cloud_event(event), "")).await?;
        if status != 202 {
            return Err(format!("a posted event was answered by {status}").into());
        }
        posted += 1;
    }
    Ok(posted)
}

/// The first login of a new account.
fn newcomer(number: usize) -> Option<(String, Value)> {
    let mut event = generated::logins(999).nth(number)?;
    let Fact::Login(LoginFact::Attempted(login)) = &mut event.fact else { return None };
    login.user_id = format!("newcomer-{number}");
    let user_id = login.user_id.clone();
    Some((user_id, generated::cloud_event(event)))
}

async fn probe(host: &str, until: Instant) -> Result<(), Failure> {
    let mut connection = Connection::open(host).await?;
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut visible, mut waited) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let mut number = 0;
    while Instant::now() < until {
        ticks.tick().await;
        let Some((user_id, event)) = newcomer(number) else { break };
        number += 1;
        if number.is_multiple_of(2) {
            let began = Instant::now();
            expect(&mut connection, &post_event(&event, "prefer: wait=10\r\n"), 200).await?;
            waited.record(began.elapsed().as_micros() as u64)?;
        } else {
            expect(&mut connection, &post_event(&event, ""), 202).await?;
            let began = Instant::now();
            seen(&mut connection, &user_id, began).await?;
            visible.record(began.elapsed().as_micros() as u64)?;
        }
    }
    percentiles("202 to visible", &visible);
    percentiles("POST with Prefer: wait", &waited);
    Ok(())
}

async fn expect(connection: &mut Connection, request: &[u8], expected: u16) -> Result<(), Failure> {
    let (status, body) = connection.exchange(request).await?;
    if status == expected { Ok(()) } else { Err(format!("{status} {}", String::from_utf8_lossy(body)).into()) }
}

async fn seen(connection: &mut Connection, user_id: &str, began: Instant) -> Result<(), Failure> {
    let read = request(&format!("GET /v1/users/{user_id}"), "", b"");
    loop {
        match connection.exchange(&read).await?.0 {
            200 => return Ok(()),
            404 if began.elapsed() < Duration::from_secs(10) => tokio::time::sleep(LOOK).await,
            status => return Err(format!("{user_id} is not visible after {:?}: {status}", began.elapsed()).into()),
        }
    }
}
