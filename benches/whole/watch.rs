//! Watches a service fold, from outside: its counters, and the processor time of the processes involved.

use crate::load::{Connection, request};
use crate::{Failure, figure, process};
use std::time::{Duration, Instant};

/// Interval at which the counters are read.
const LOOK: Duration = Duration::from_millis(50);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(600);

struct Counters {
    records: f64,
    rows: f64,
}

/// Waits until the family has folded `events` records, and prints rates and costs.
pub(crate) async fn run(host: &str, family: &str, events: u64, processes: &[String]) -> Result<(), Failure> {
    let processes: Vec<_> = processes.iter().filter_map(|process| process.split_once('=')).collect();
    let mut connection = reached(host).await?;
    let first = counters(&mut connection, family).await?;
    let before = times(&processes)?;
    let began = Instant::now();
    let mut last = counters(&mut connection, family).await?;
    while last.records < events as f64 {
        if began.elapsed() > PATIENCE {
            return Err(format!("{} of {events} records after {PATIENCE:?}", last.records).into());
        }
        tokio::time::sleep(LOOK).await;
        last = counters(&mut connection, family).await?;
    }
    let (took, folded) = (began.elapsed().as_secs_f64(), last.records - first.records);
    figure(&format!("{family} folded"), folded / took, "events/s");
    figure("rows written per event", (last.rows - first.rows) / folded, "rows");
    figure("rows written", (last.rows - first.rows) / took, "rows/s");
    for ((name, _), (after, before)) in processes.iter().zip(times(&processes)?.iter().zip(before)) {
        figure(&format!("processor time of {name}"), (after - before) * 1e6 / folded, "us/event");
    }
    Ok(())
}

fn times(processes: &[(&str, &str)]) -> Result<Vec<f64>, Failure> {
    processes.iter().map(|(_, id)| process::seconds(id)).collect()
}

/// A connection to a service that may still be starting.
async fn reached(host: &str) -> Result<Connection, Failure> {
    let began = Instant::now();
    loop {
        if let Ok(mut connection) = Connection::open(host).await
            && matches!(connection.exchange(&request("GET /metrics", "", b"")).await, Ok((200, _)))
        {
            return Ok(connection);
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{host} does not answer").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn counters(connection: &mut Connection, family: &str) -> Result<Counters, Failure> {
    let (_, body) = connection.exchange(&request("GET /metrics", "", b"")).await?;
    let text = std::str::from_utf8(body)?;
    let label = format!("family=\"{family}\"");
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(&label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    Ok(Counters { records: sum("foretell_records_total{"), rows: sum("foretell_rows_written_total{") })
}
