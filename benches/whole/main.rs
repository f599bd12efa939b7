//! The parts of `scripts/bench` that a shell cannot do: folds in one process, load over HTTP, baselines.
//!
//! Each subcommand measures one thing, and often the simplest program that does the same work on the same machine. It
//! prints one figure per line: a name, a number, a unit. `docs/BENCHMARKS.md` explains them.
#![allow(clippy::print_stdout, reason = "figures are what this program is for")]

mod batches;
mod fold;
mod generated;
mod load;
mod process;
mod reminders;
mod synced;
mod visible;
mod watch;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Measures one thing and prints its figures")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Append generated logins to a disk log; read, decode and fold them.
    Fold {
        /// An empty directory.
        directory: PathBuf,
        #[arg(long, default_value_t = 400_000)]
        events: usize,
    },
    /// Fold generated logins: usual ones, half of them of one account, and half of them from one address.
    Hot {
        /// An empty directory.
        directory: PathBuf,
        #[arg(long, default_value_t = 200_000)]
        events: usize,
    },
    /// Write generated logins as JSON Lines.
    Write {
        file: PathBuf,
        #[arg(long, default_value_t = 200_000)]
        events: usize,
    },
    /// Serve a plain JSON echo until it is killed.
    Echo {
        /// Host and port.
        listen: String,
    },
    /// Request one score after another from one address.
    Scores {
        /// Host and port.
        host: String,
        /// `/v1/risk/logins`, or anything for the echo.
        path: String,
        #[arg(long, default_value_t = 32)]
        connections: usize,
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Post events in batches.
    Ingest {
        /// Host and port.
        host: String,
        #[arg(long, default_value_t = 200_000)]
        events: usize,
        #[arg(long, default_value_t = 100)]
        batch: usize,
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Post at a steady rate and measure the time until single events are visible.
    Visible {
        /// Host and port.
        host: String,
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Wait until a service has folded a number of records; measure rows and the processor time of processes.
    Watch {
        /// Host and port of its operators.
        host: String,
        #[arg(long)]
        events: u64,
        #[arg(long, default_value = "logins")]
        family: String,
        /// `NAME=ID` of processes whose time is measured.
        #[arg(long)]
        process: Vec<String>,
    },
    /// Write the flushes of a fold directly into Cassandra.
    Batches {
        /// Host and port.
        node: String,
        #[arg(long, default_value_t = 40_000)]
        events: usize,
    },
    /// Fill a directory with bookings whose reminders are due at an even rate.
    Book {
        /// An empty directory.
        directory: PathBuf,
        #[arg(long, default_value_t = 100_000)]
        visits: usize,
        /// Minutes over which they are due.
        #[arg(long, default_value_t = 6)]
        minutes: u32,
        /// When the first one is due, in seconds from now; negative: in the past.
        #[arg(long, default_value_t = 60, allow_negative_numbers = true)]
        delay_seconds: i64,
    },
    /// Append the announcements of a number of visits without planning them.
    Announce {
        /// An empty directory.
        directory: PathBuf,
        #[arg(long, default_value_t = 100_000)]
        visits: usize,
    },
    /// Wait until a service has announced a number of reminders; measure the processor time of its process.
    Announced {
        /// Host and port of its operators.
        host: String,
        #[arg(long, default_value_t = 100_000)]
        visits: usize,
        /// The id of its process.
        #[arg(long)]
        process: String,
    },
    /// Read how soon reminders were on the topic, from a directory that is not being served.
    Reminders {
        directory: PathBuf,
        #[arg(long, default_value_t = 100_000)]
        visits: usize,
    },
    /// One synced append after another, to a plain file and through the log.
    Synced {
        /// An empty directory.
        directory: PathBuf,
        #[arg(long, default_value_t = 2_000)]
        appends: usize,
    },
}

/// Prints one figure.
fn figure(name: &str, value: f64, unit: &str) {
    let digits = if value >= 100.0 { 0 } else { 2 };
    println!("{name:<44} {value:>12.digits$} {unit}");
}

/// Prints median, 99th percentile and maximum of durations in microseconds.
fn percentiles(name: &str, micros: &hdrhistogram::Histogram<u64>) {
    for (quantile, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        figure(&format!("{name} {quantile}"), micros.value_at_quantile(at) as f64 / 1_000.0, "ms");
    }
}

/// The allocator of the program, so that folding costs the same here.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<(), Failure> {
    let what = Arguments::parse().what;
    // The load generator uses one thread, so that the measured service has the rest of the machine.
    let mut runtime = match what {
        What::Scores { .. }
        | What::Ingest { .. }
        | What::Visible { .. }
        | What::Watch { .. }
        | What::Announced { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    let done = runtime.block_on(measure(what));
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

async fn measure(what: What) -> Result<(), Failure> {
    match what {
        What::Fold { directory, events } => fold::run(&directory, events).await,
        What::Hot { directory, events } => fold::hot(&directory, events).await,
        What::Write { file, events } => generated::write(&file, events),
        What::Echo { listen } => load::echo(&listen).await,
        What::Scores { host, path, connections, seconds } => {
            load::scores(&host, &path, connections, Duration::from_secs(seconds)).await
        }
        What::Ingest { host, events, batch, connections } => load::ingest(&host, events, batch, connections).await,
        What::Visible { host, rate, seconds } => visible::run(&host, rate, Duration::from_secs(seconds)).await,
        What::Watch { host, events, family, process } => watch::run(&host, &family, events, &process).await,
        What::Batches { node, events } => batches::run(&node, events).await,
        What::Book { directory, visits, minutes, delay_seconds } => {
            reminders::book(&directory, reminders::Due::now(visits, minutes, delay_seconds)).await
        }
        What::Announce { directory, visits } => reminders::bare(&directory, visits).await,
        What::Announced { host, visits, process } => reminders::wait(&host, visits, &process).await,
        What::Reminders { directory, visits } => reminders::read(&directory, visits).await,
        What::Synced { directory, appends } => synced::run(&directory, appends).await,
    }
}
