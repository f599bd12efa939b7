//! The cost of one durable append, to a plain file and to the log.

use crate::{Failure, figure, generated, percentiles};
use foretell_ports::clock::System;
use foretell_ports::log::Log;
use hdrhistogram::Histogram;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Appends one record after another, each synced before the next.
pub(crate) async fn run(directory: &Path, appends: usize) -> Result<(), Failure> {
    let records: Vec<_> = generated::logins(1).take(appends).map(generated::record).collect();
    let mut file = std::fs::File::create(directory.join("bare"))?;
    let mut times = Histogram::new(3)?;
    let all = Instant::now();
    for record in &records {
        let began = Instant::now();
        file.write_all(&record.value)?;
        file.sync_data()?;
        times.record(began.elapsed().as_micros() as u64)?;
    }
    figure("plain write and fdatasync", appends as f64 / all.elapsed().as_secs_f64(), "/s");
    percentiles("bare write and fdatasync", &times);

    let directory = foretell_disk::log::lock(&directory.join("log"))?;
    let log =
        foretell_disk::log::Log::open(&directory, |_| 4, foretell_disk::log::Config::default(), Arc::new(System))?;
    times.reset();
    let all = Instant::now();
    for record in records {
        let began = Instant::now();
        log.append(vec![record]).await?;
        times.record(began.elapsed().as_micros() as u64)?;
    }
    figure("append to the log, one by one", appends as f64 / all.elapsed().as_secs_f64(), "/s");
    percentiles("append to the log, one by one", &times);
    Ok(())
}
