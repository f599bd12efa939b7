//! `train`: trains a model on a file or the log, prints its quality, and publishes it on request.

use super::bar::progress;
use super::ending::{Failure, check_tenant, unless_signalled};
use super::{Destination, Format, time};
use crate::app::training::TrainingQuery;
use crate::config::Config;
use crate::ops::access::{Access, RemoteService};
use crate::ops::inspect::Print;
use crate::ops::jobs::Console;
use crate::ops::{Error, train as ops};
use clap::{Args, Subcommand};
use foretell_events::codec::rfc3339;
use foretell_lab::source;
use foretell_lab::train::{self, TrainedModel, TrainingRefusal, TrainingSet, table};
use foretell_ports::clock::{Clock, System};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The models that can be trained.
#[derive(Debug, Subcommand)]
pub(super) enum Train {
    /// Train a model of how likely visits are to be missed
    NoShow(NoShow),
}

/// Where the history comes from, and what to do with the model.
#[derive(Debug, Args)]
pub(super) struct NoShow {
    /// Past appointments, gzipped or not; default: those in the log
    file: Option<PathBuf>,
    /// Format of the file
    #[arg(long, value_enum, default_value = "events")]
    format: Format,
    /// Tenant to train for
    #[arg(long, default_value = foretell_events::DEFAULT_TENANT)]
    tenant: String,
    /// Train only on events up to this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// Write the model to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the training rows to this file, as CSV, including those after --until
    #[arg(long, value_name = "FILE", requires = "file")]
    dump_rows: Option<PathBuf>,
    /// Publish the model: the tenant's visits are scored with it from now on
    #[arg(long)]
    publish: bool,
    /// Publish the model even if it is no better than two counters
    #[arg(long, requires = "publish")]
    force: bool,
    #[command(flatten)]
    to: Destination,
}

/// Trains, prints and publishes; with `--publish`, a model that should not be published is a failure.
pub(super) async fn run(config: &Config, args: Train, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let Train::NoShow(args) = args;
    check_tenant(&args.tenant)?;
    if args.to.to.is_some() && (args.file.is_none() || !args.publish) {
        let detail = "--to needs --publish and a FILE to train on; to train on a log, name it \
                      with --log and --store";
        return Err(Failure::Other(detail.into()));
    }
    let clock: Arc<dyn Clock> = Arc::new(System);
    let access = match (&args.file, args.publish) {
        (Some(_), false) => None,
        _ => {
            let remote = RemoteService { url: args.to.to.clone(), key: args.to.api_key.clone() };
            Some(if remote.url.is_some() {
                Access::remote(remote)?
            } else {
                Access::look(config, clock.clone()).await?
            })
        }
    };
    let trained = match (&args.file, &access) {
        (Some(file), _) => tokio::task::block_in_place(|| of_file(file, config, &args, clock.as_ref()))?,
        (None, Some(access)) => of_log(access, &args, print, out).await?,
        (None, None) => return Err(Failure::Other("name a file or an instance".into())),
    };
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&trained.model).unwrap_or_default();
        std::fs::write(path, text + "\n").map_err(|cause| cannot(path, &cause))?;
    }
    match print {
        Print::Json => writeln!(out, "{}", serde_json::to_string(&trained.model).unwrap_or_default())?,
        Print::Table => write!(out, "{trained}")?,
    }
    let Some(access) = access.filter(|_| args.publish) else {
        let advice = "not published: scores are unchanged. Use --publish to score with this model from now on";
        writeln!(std::io::stderr(), "{advice}")?;
        return Ok(());
    };
    if let Some(objection) = trained.objection().filter(|_| !args.force) {
        return Err(Failure::Other(format!("not published: {objection}; publish it anyway with --force")));
    }
    let version = ops::publish(&access, &args.tenant, &trained).await?;
    writeln!(std::io::stderr(), "published as version {version} for {}", args.tenant)?;
    Ok(())
}

async fn of_log(access: &Access, args: &NoShow, print: Print, out: &mut dyn Write) -> Result<TrainedModel, Failure> {
    let bar = progress("offsets", 0);
    let query = TrainingQuery { tenant: args.tenant.clone(), until_ms: args.until };
    let mut trained = None;
    let console = &mut Console { bar: &bar, print, out };
    let training = async {
        trained = Some(ops::no_show(access, &query, console).await?);
        Ok(())
    };
    let done = unless_signalled(training).await;
    bar.finish_and_clear();
    done?;
    trained.ok_or_else(|| Failure::Other("no model was trained".into()))
}

fn of_file(file: &Path, config: &Config, args: &NoShow, clock: &dyn Clock) -> Result<TrainedModel, Failure> {
    let loaded = source::read(file, args.format.into(), &args.tenant).map_err(Error::from)?;
    let bar = progress("events", loaded.events.len() as u64);
    let settings = &config.score.no_show;
    let refused = |refused: TrainingRefusal| Failure::Other(refused.to_string());
    let events = loaded.events.iter().map(|sourced| &sourced.event);
    let history = train::replay(events, settings, &config.fold, &mut |done| {
        bar.set_position(done);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    // A history is large, and the next step needs memory of its own.
    drop(loaded);
    let (mut tenants, names) = history.map_err(refused)?.into_rows(args.until);
    let rows = tenants.remove(&args.tenant).unwrap_or_default();
    if let Some(path) = &args.dump_rows {
        let mut dump = BufWriter::new(File::create(path).map_err(|cause| cannot(path, &cause))?);
        table::write(&rows, &names, settings, args.until, &mut dump).map_err(|cause| cannot(path, &cause))?;
        dump.flush()?;
    }
    let set = TrainingSet { rows: &rows, names: &names, until_ms: args.until, config: settings };
    let bar = progress("candidates", 0);
    let trained = train::train(set, &mut |tried, of| {
        bar.set_length(of as u64);
        bar.set_position(tried as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let mut model = trained.map_err(refused)?;
    model.training.trained_at = Some(rfc3339(clock.now_ms()));
    Ok(TrainedModel { model })
}

fn cannot(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::Other(format!("cannot write {}: {cause}", path.display()))
}
