//! The fold rate of an embedded instance: the real pipelines on a log and a store on disk.

use crate::{Failure, figure, generated, process};
use foretell_domain::address::{Family, Generation, View};
use foretell_engine::pipeline::{Config, task};
use foretell_events::record::Record;
use foretell_events::{Topic, codec};
use foretell_lab::source::generate::{GeneratedLogins, GeneratorParams, Hot};
use foretell_ports::clock::System;
use foretell_ports::log::{Log, Next};
use foretell_ports::store::Store;
use foretell_service::instance::{self, Instance};
use foretell_service::ports::Ports;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Partitions of an embedded topic by default.
const PARTITIONS: u32 = 4;
/// Records per append.
const CHUNK: usize = 1_000;
/// Records that are decoded without folding them.
const DECODED: usize = 50_000;

/// Appends, reads, decodes and folds.
pub(crate) async fn run(directory: &Path, events: usize) -> Result<(), Failure> {
    let directory = foretell_disk::log::lock(directory)?;
    let clock = Arc::new(System);
    let log: Arc<dyn Log> = Arc::new(foretell_disk::log::Log::open(
        &directory,
        |_| PARTITIONS,
        foretell_disk::log::Config::default(),
        clock,
    )?);
    let store: Arc<dyn Store> = Arc::new(foretell_disk::store::Store::open(&directory)?);
    append(log.as_ref(), generated::logins(1), events).await?;
    let records = read(&log, events).await?;
    decode(&records);
    drop(records);
    let took = fold(log, store.clone(), Config::default(), events).await?;
    figure("fold", events as f64 / took.as_secs_f64(), "events/s");
    Ok(())
}

/// Folds logins with the usual distribution and with hot keys, alternating, because the load of the machine varies.
pub(crate) async fn hot(directory: &Path, events: usize) -> Result<(), Failure> {
    let shapes =
        [("as usual", None), ("half on one account", Some(Hot::User)), ("half from one address", Some(Hot::Address))];
    for round in 1..=3 {
        let mut usual = None;
        for (name, hot) in shapes {
            let rate = rate(&directory.join(format!("{round}-{name}")), hot, events).await?;
            figure(&format!("fold, logins {name}"), rate, "events/s");
            figure("ratio to the usual", rate / *usual.get_or_insert(rate), "");
        }
    }
    Ok(())
}

async fn rate(directory: &Path, hot: Option<Hot>, events: usize) -> Result<f64, Failure> {
    std::fs::create_dir(directory)?;
    let locked = foretell_disk::log::lock(directory)?;
    let log = foretell_disk::log::Log::open(
        &locked,
        |_| PARTITIONS,
        foretell_disk::log::Config::default(),
        Arc::new(System),
    )?;
    let (log, store): (Arc<dyn Log>, Arc<dyn Store>) =
        (Arc::new(log), Arc::new(foretell_disk::store::Store::open(&locked)?));
    let shape = GeneratorParams { hot: hot.map(|hot| (hot, 0.5)), ..GeneratorParams::default() };
    append(log.as_ref(), GeneratedLogins::new(shape), events).await?;
    let took = fold(log, store.clone(), Config::default(), events).await?;
    figure("largest row", largest(store.as_ref()).await? as f64, "bytes");
    drop((store, locked));
    std::fs::remove_dir_all(directory)?;
    Ok(events as f64 / took.as_secs_f64())
}

async fn largest(store: &dyn Store) -> Result<usize, Failure> {
    let generation = Generation { family: Family::Logins, number: 1, epoch: 0 };
    let mut largest = 0;
    for view in [View::User, View::Feature] {
        for bucket in store.buckets(generation, view).await? {
            let rows = store.scan(generation, view, bucket, None, usize::MAX).await?;
            largest = rows.iter().map(|(_, row)| row.cell.len()).fold(largest, usize::max);
        }
    }
    Ok(largest)
}

/// Appends logins in large calls.
pub(crate) async fn append(log: &dyn Log, logins: GeneratedLogins, events: usize) -> Result<(), Failure> {
    let mut left = events;
    let mut logins = logins.map(generated::record);
    let mut took = Duration::ZERO;
    while left > 0 {
        let chunk: Vec<_> = logins.by_ref().take(CHUNK.min(left)).collect();
        left -= chunk.len();
        let began = Instant::now();
        log.append(chunk).await?;
        took += began.elapsed();
    }
    figure("append in thousands", events as f64 / took.as_secs_f64(), "events/s");
    Ok(())
}

/// Reads all partitions concurrently, as the pipelines do, and discards the records.
async fn read(log: &Arc<dyn Log>, events: usize) -> Result<Vec<Record>, Failure> {
    let began = Instant::now();
    let mut readers = JoinSet::new();
    for partition in 0..PARTITIONS {
        let log = Arc::clone(log);
        readers.spawn(async move { read_partition(log.as_ref(), partition).await });
    }
    let mut kept = Vec::new();
    let mut count = 0;
    while let Some(read) = readers.join_next().await {
        let (read, some) = read??;
        count += read;
        kept.extend(some);
    }
    figure("only reading the log", count as f64 / began.elapsed().as_secs_f64(), "events/s");
    if count == events { Ok(kept) } else { Err(format!("read {count} of {events} events").into()) }
}

async fn read_partition(log: &dyn Log, partition: u32) -> Result<(usize, Vec<Record>), foretell_ports::Error> {
    let end = log.extent(Topic::Logins, partition).await?.end;
    let mut reader = log.read(Topic::Logins, partition, 0).await?;
    let (mut count, mut kept) = (0, Vec::new());
    loop {
        match reader.next().await? {
            Next::Records(records) => {
                count += records.len();
                if kept.len() < DECODED / PARTITIONS as usize {
                    kept.extend(records);
                }
            }
            Next::End(next) if next < end => {}
            Next::End(_) | Next::Revoked(_) => return Ok((count, kept)),
        }
    }
}

fn decode(records: &[Record]) {
    let began = Instant::now();
    let good = records.iter().filter(|record| codec::decode(record).is_ok()).count();
    figure("only decoding, one thread", good as f64 / began.elapsed().as_secs_f64(), "events/s");
}

/// Starts to fold logins and waits until its checkpoints have reached the end of the log.
pub(crate) async fn fold(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    pipeline: Config,
    events: usize,
) -> Result<Duration, Failure> {
    let (partitions, shutdown) = (log.partitions(Topic::Logins), CancellationToken::new());
    let generation = Generation { family: Family::Logins, number: 1, epoch: 0 };
    let before = process::seconds("self")?;
    let began = Instant::now();
    let ports = Ports::new(log.clone(), store.clone(), Arc::new(System));
    let instance = Instance::new(instance::Config { pipeline, ..instance::Config::default() }, ports);
    instance.ensure_pointer(Family::Logins).await?;
    let folding = tokio::spawn(instance.fold(Family::Logins, task::none(), shutdown.clone()));
    for partition in 0..partitions {
        let end = log.extent(Topic::Logins, partition).await?.end;
        while store.checkpoint(generation, partition).await?.is_none_or(|checkpoint| checkpoint.next < end) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let took = began.elapsed();
    figure("processor time of the fold", (process::seconds("self")? - before) * 1e6 / events as f64, "us/event");
    shutdown.cancel();
    folding.await??;
    Ok(took)
}
