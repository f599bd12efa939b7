//! Runs a command: reads the settings, calls the module that does the work, prints its result.

use super::bar::progress;
use super::calibrate;
use super::ending::{Failure, check_tenant, unless_signalled};
use super::policy;
use super::{At, Cli, Command, Evaluate, Facts, Format, Import, Inspect, Migrate, Settings, SettingsCommand, help};
use crate::app;
use crate::config::{self, Config};
use crate::demo;
use crate::ops::access::{Access, RemoteService};
use crate::ops::inspect::{self, Print, What};
use crate::ops::jobs::Console;
use crate::ops::{self, Error, backup, import, rebuild, verify};
use crate::telemetry;
use foretell_engine::rebuild::{RebuildAction, RebuildQuery};
use foretell_engine::repartition::RepartitionQuery;
use foretell_engine::verify::VerifyQuery;
use foretell_enrich::Enricher;
use foretell_events::DEFAULT_TENANT;
use foretell_events::codec::parse_rfc3339;
use foretell_events::zone;
use foretell_lab::evaluate::{self, AppointmentOptions, LoginOptions};
use foretell_lab::source;
use foretell_ports::clock::{Clock, System};
use foretell_service::http;
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long the process waits at its end for threads that cannot be cancelled.
const BLOCKED_MAX: Duration = Duration::from_secs(3);

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let out = &mut BufWriter::new(std::io::stdout().lock());
    match cli.command {
        Command::Openapi => {
            let document = http::openapi::document().map_err(|e| Failure::Other(e.to_string()))?;
            writeln!(out, "{document}")?;
        }
        Command::Completions { shell } => {
            // Into memory first: writing to a closed stdout would panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut help::command(), "foretell", &mut script);
            out.write_all(&script)?;
        }
        Command::Man { directory } => help::man_pages(&directory)?,
        Command::Config(Settings { what: SettingsCommand::Dump { defaults: true }, .. }) => {
            match cli.command.flags().print() {
                Print::Json => writeln!(out, "{:#}", config::defaults())?,
                Print::Table => write!(out, "{}", config::DEFAULTS)?,
            }
        }
        Command::Health { url } => block_on(health(&url, out))?,
        Command::Simulate(args) => calibrate::simulate(&args, out)?,
        command => {
            let flags = command.flags();
            let print = flags.print();
            let mut config = flags.load(cli.file.config.as_deref())?;
            install_zone_rules(&config)?;
            let own = crate::telemetry::Config::default().log_filter;
            if !matches!(command, Command::Serve(_)) && config.telemetry.log_filter == own {
                // The user reads the command's output; log lines of a service would be noise in it.
                config.telemetry.log_filter = format!("warn,{}", crate::telemetry::QUIET);
                if matches!(command, Command::Demo(_)) {
                    // The directory is removed while the store closes, and errors about its missing files are expected.
                    config.telemetry.log_filter.push_str(",lsm_tree=error");
                }
            }
            let installed = telemetry::install(&config.telemetry, &config.components());
            let _telemetry = installed.map_err(|error| Failure::Other(error.to_string()))?;
            config.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
            block_on(configured(command, config, print, out))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Sets the rules of time zones of this process, which folds and plans read, before anything is computed with them.
fn install_zone_rules(config: &Config) -> Result<(), Failure> {
    zone::install(config.zone_rules()?)
        .map_err(|has| Failure::Other(format!("this process already uses the zone rules {has}")))
}

async fn configured(command: Command, config: Config, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => Box::pin(super::serve::run(config, clock(), args)).await,
        Command::Demo(_) => demo::run(config, print, out).await,
        Command::Import(args) => import_file(config, args, print, out).await,
        Command::Evaluate(args) => evaluate_file(&config, &args, print, out),
        Command::Policy { what, .. } => policy::run(&config, &what, print, out),
        Command::Calibrate(args) => calibrate::calibrate(&config, &args, print, out),
        Command::Migrate(Migrate { repartition: Some(args), .. }) => repartition(config, args, print, out).await,
        Command::Migrate(Migrate { repartition: None, .. }) => migrate(&config, print, out).await,
        Command::Inspect { what, .. } => {
            let access = Access::look(&config, clock()).await?;
            let what = match what {
                Inspect::Topics => What::Topics,
                Inspect::Positions => What::Positions,
                Inspect::Row { view, key, bucket } => What::Row { view, key, bucket },
            };
            Ok(inspect::inspect(&access, &what, print, out).await?)
        }
        Command::Backup { directory, .. } => {
            let access = Access::look(&config, clock()).await?;
            let bar = progress("bytes", 0);
            let console = &mut Console { bar: &bar, print, out };
            let backed_up = unless_signalled(backup::back_up(&access, &directory, console)).await;
            bar.finish_and_clear();
            backed_up
        }
        Command::Verify { view, .. } => {
            let access = Access::look(&config, clock()).await?;
            let bar = progress("offsets", 0);
            let console = &mut Console { bar: &bar, print, out };
            let verified = unless_signalled(verify::verify(&access, &VerifyQuery { view }, console)).await;
            bar.finish_and_clear();
            verified
        }
        Command::DeadLetters { what, .. } => super::dead_letters::run(&config, what, print, out).await,
        Command::Rebuild { family, cancel, .. } => {
            let access = Access::look(&config, clock()).await?;
            let bar = progress("offsets", 0);
            let order = if cancel { RebuildAction::Cancel } else { RebuildAction::Build };
            let console = &mut Console { bar: &bar, print, out };
            let built = unless_signalled(rebuild::rebuild(&access, &RebuildQuery { family, order }, console)).await;
            bar.finish_and_clear();
            built
        }
        Command::Train { what, .. } => super::train::run(&config, what, print, out).await,
        Command::Report { what, .. } => super::report::run(&config, what, print, out).await,
        Command::Config(Settings { what, .. }) => config_command(&config, &what, print, out),
        // Commands without settings.
        Command::Openapi
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Health { .. }
        | Command::Simulate(_) => Ok(()),
    }
}

fn config_command(config: &Config, what: &SettingsCommand, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    match (what, print) {
        (SettingsCommand::Check, _) => {
            config.http.api_keys_file.as_deref().map(super::keys::of_settings).transpose()?;
            let troubles = config.enrich.check(clock());
            if !troubles.is_empty() {
                return Err(Failure::Other(troubles.join("\n")));
            }
            match print {
                Print::Json => writeln!(out, "{}", json!({"usable": true}))?,
                Print::Table => writeln!(out, "the settings are valid")?,
            }
        }
        (SettingsCommand::Dump { .. }, Print::Json) => {
            writeln!(out, "{:#}", serde_json::to_value(config).unwrap_or_default())?;
        }
        (SettingsCommand::Dump { .. }, Print::Table) => write!(out, "{}", config.dump())?,
    }
    Ok(())
}

async fn migrate(config: &Config, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let done = app::migrate(config).await?;
    match print {
        Print::Json => writeln!(out, "{}", json!({"messages": done}))?,
        Print::Table if done.is_empty() => writeln!(out, "nothing is missing")?,
        Print::Table => done.iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(())
}

async fn repartition(
    config: Config,
    query: RepartitionQuery,
    print: Print,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let bar = progress("offsets", 0);
    let console = &mut Console { bar: &bar, print, out };
    let moved = Box::pin(ops::repartition::repartition(config, clock(), query, console));
    let moved = unless_signalled(moved).await;
    bar.finish_and_clear();
    moved
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // A library call that waits for a cluster cannot be cancelled, so the wait for it is bounded.
    runtime.shutdown_timeout(BLOCKED_MAX);
    ended
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(System)
}

async fn import_file(config: Config, args: Import, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let kind = match args.kind {
        Facts::Logins => import::Kind::Logins,
        Facts::Appointments => import::Kind::Appointments,
    };
    let tenant = args.tenant.as_deref();
    let of_silent = tenant.unwrap_or(DEFAULT_TENANT);
    check_tenant(of_silent)?;
    let loaded = source::read(&args.file, args.format.into(), of_silent).map_err(Error::from)?;
    let (journals, place) = match (app::disk_directory(&config.log), &args.to.to) {
        (_, Some(url)) => {
            (state_directory()?, url::Url::parse(url).map_or_else(|_| url.clone(), |url| url.to_string()))
        }
        // Journals inside the directory describe its own log, even after it is moved or restored elsewhere.
        (Some(directory), None) => (directory.join("imports"), "this directory".to_owned()),
        (None, None) => (state_directory()?, format!("{} {}", config.log, config.topics.prefix)),
    };
    let name = format!("{place} {of_silent}");
    let remote = RemoteService { url: args.to.to, key: args.to.api_key };
    let access = Access::find(&config, remote, clock()).await?;
    let bar = progress("events", loaded.events.len() as u64);
    let target = import::ImportTarget { access: &access, name, journals, tenant, now_ms: clock().now_ms() };
    let imported = import::import(&loaded, kind, &target, &mut |done| bar.set_position(done as u64)).await;
    bar.finish_and_clear();
    let imported = imported?;
    match print {
        Print::Json => writeln!(out, "{}", serde_json::to_string(&imported).unwrap_or_default())?,
        Print::Table => {
            let import::Imported { events, before, skipped, dropped, without_country, journal } = &imported;
            let new = events - before;
            writeln!(out, "{new} events appended, {before} already present, {skipped} rows skipped")?;
            if *dropped > 0 {
                writeln!(out, "{dropped} unknown fields dropped: an event may have 4 KiB of them")?;
            }
            if *without_country > 0 {
                writeln!(out, "{without_country} rows have a country code that is not a country; it was dropped")?;
            }
            if *before > 0 {
                writeln!(out, "earlier progress was read from {}", journal.display())?;
            }
        }
    }
    Ok(())
}

/// The directory for journals of imports into clusters and services.
fn state_directory() -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let state = state.ok_or_else(|| Failure::Other("set XDG_STATE_HOME: imports keep a journal there".into()))?;
    Ok(state.join("foretell").join("imports"))
}

fn evaluate_file(config: &Config, args: &Evaluate, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let until = args.train_until.as_deref().map(parse_rfc3339).transpose();
    let train_until_ms = until.map_err(|fault| Failure::Other(format!("--train-until: {}", fault.detail)))?;
    let tenant = DEFAULT_TENANT;
    let mut loaded = source::read(&args.file, args.format.into(), tenant).map_err(Error::from)?;
    loaded.enrich(&Enricher::loaded(&config.enrich, clock()));
    let bar = progress("events", loaded.events.len() as u64);
    let on_progress = &mut |done, _| bar.set_position(done);
    let limits = config.fold.clone();
    let summary = match args.kind {
        Facts::Logins => {
            let options = LoginOptions { score: config.score.login.clone(), limits, train_until_ms };
            evaluate::logins(&loaded, &options, out, on_progress)?
        }
        Facts::Appointments => {
            let at = match args.at {
                At::Booking => evaluate::At::Booking,
                At::DayBefore => evaluate::At::DayBefore,
            };
            let (score, topics) = (config.score.no_show.clone(), &config.topics);
            let embedded = app::disk_directory(&config.log).map(|_| topics.embedded_partitions);
            let partitions = embedded.unwrap_or(topics.partitions);
            let options = AppointmentOptions { score, limits, partitions, at, train_until_ms };
            evaluate::appointments(&loaded, &options, out, on_progress)?
        }
    };
    out.flush()?;
    bar.finish_and_clear();
    let mut messages = std::io::stderr().lock();
    match print {
        Print::Json => writeln!(messages, "{}", serde_json::to_string(&summary).unwrap_or_default())?,
        Print::Table => write!(messages, "{summary}")?,
    }
    Ok(())
}

async fn health(url: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let remote = RemoteService { url: Some(url.to_owned()), key: None };
    let answer = ops::access::Access::remote(remote)?.get("/readyz?verbose").await?;
    Ok(writeln!(out, "{answer:#}")?)
}

impl From<Format> for source::SourceFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Rba => Self::Rba,
            Format::Noshow => Self::Noshow,
            Format::Events => Self::Events,
        }
    }
}
