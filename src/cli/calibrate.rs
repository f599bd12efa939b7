//! `simulate` and `calibrate`: generated histories, and thresholds that are derived from labelled ones.

use super::bar::progress;
use super::ending::Failure;
use super::settings::Output;
use crate::config::Config;
use crate::ops::Error;
use crate::ops::inspect::Print;
use clap::{Args, ValueEnum};
use foretell_events::DEFAULT_TENANT;
use foretell_lab::calibrate::{self, CalibrationResult, PolicyFile, Replayed};
use foretell_lab::simulate::{self, HistorySize, SimulatedHistory};
use foretell_lab::source::{self, SourceFormat};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// What can be simulated and calibrated.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Facts {
    Logins,
}

/// What to simulate.
#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Kind of events
    #[arg(value_enum)]
    kind: Facts,
    /// Number of accounts, at most 100000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    users: u32,
    /// Number of days, at most 731
    #[arg(long, value_name = "COUNT", default_value_t = 365)]
    days: u32,
    /// Seed of the simulation; equal seeds give equal events
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What to calibrate with.
#[derive(Debug, Args)]
pub(super) struct Calibrate {
    /// Kind of events in the files
    #[arg(value_enum)]
    kind: Facts,
    /// Labelled logins as written by `simulate`, gzipped or not; each file is replayed separately
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Share of attacks of each kind to challenge
    #[arg(long, value_name = "SHARE", default_value_t = 0.98, value_parser = share)]
    target_tpr: f64,
    /// Write the curves to this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Score with this policy instead of the one in the settings, and write the thresholds into it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share above 0, at most 1".into())
}

/// Writes a history to stdout or a file; the summary is a message.
pub(super) fn simulate(args: &Simulate, out: &mut dyn Write) -> Result<(), Failure> {
    let Simulate { kind: Facts::Logins, users, days, seed, output } = args;
    let history = SimulatedHistory::new(HistorySize { users: *users, days: *days, seed: *seed }).map_err(failed)?;
    let bar = progress("days", u64::from(*days));
    let on_progress = &mut |day| bar.set_position(day);
    let events = match output {
        None => simulate::write(history, out, on_progress)?,
        Some(path) => {
            let cannot = |cause| Failure::Other(format!("cannot write {}: {cause}", path.display()));
            let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
            let events = simulate::write(history, &mut file, on_progress).map_err(cannot)?;
            file.flush().map_err(cannot)?;
            events
        }
    };
    bar.finish_and_clear();
    writeln!(std::io::stderr(), "{events} events")?;
    Ok(())
}

/// Prints the thresholds and what they cost.
pub(super) fn calibrate(config: &Config, args: &Calibrate, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let Calibrate { kind: Facts::Logins, files, target_tpr, plot, policy, output: _ } = args;
    let mut policy =
        policy.as_ref().map(|path| Ok::<_, Failure>((path, PolicyFile::read(path).map_err(failed)?))).transpose()?;
    let score = match &policy {
        Some((path, file)) => {
            file.policy(&config.score.login).map_err(|cause| failed(format!("policy {}: {cause}", path.display())))?
        }
        None => config.score.login.clone(),
    };
    let mut replayed = Replayed::default();
    for path in files {
        let loaded = source::read(path, SourceFormat::Events, DEFAULT_TENANT).map_err(Error::from)?;
        let bar = progress("events", loaded.events.len() as u64);
        let name = path.display().to_string();
        let added = replayed.add(&name, &loaded, &score, &config.fold, &mut |done| bar.set_position(done));
        bar.finish_and_clear();
        added.map_err(failed)?;
    }
    let calibration = CalibrationResult::new(&replayed, *target_tpr).map_err(failed)?;
    if let Some(path) = plot {
        let picture = calibrate::svg(&calibration).map_err(failed)?;
        std::fs::write(path, picture).map_err(|cause| failed(format!("cannot write {}: {cause}", path.display())))?;
    }
    if let Some((path, file)) = &mut policy {
        file.set(calibration.thresholds);
        file.write(path).map_err(failed)?;
    }
    match print {
        Print::Json => writeln!(out, "{}", serde_json::to_string(&calibration).unwrap_or_default())?,
        Print::Table => write!(out, "{calibration}")?,
    }
    Ok(())
}

fn failed(cause: impl std::fmt::Display) -> Failure {
    Failure::Other(cause.to_string())
}
