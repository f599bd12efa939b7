//! `policy`: checks a document, and shows what it would do.

use super::Format;
use super::bar::progress;
use super::ending::Failure;
use crate::config::Config;
use crate::ops::Error;
use crate::ops::inspect::Print;
use clap::{Args, Subcommand, ValueEnum};
use foretell_domain::score::login::variables::{VARIABLES, Variable};
use foretell_events::DEFAULT_TENANT;
use foretell_events::catalog::{LOGIN_POLICY, REMINDERS_POLICY};
use foretell_events::codec::rfc3339;
use foretell_events::document::{self, Syntax};
use foretell_events::policy::TEXT_BYTES_MAX;
use foretell_lab::evaluate;
use foretell_lab::evaluate::policies::{Changed, PolicyChange};
use foretell_lab::evaluate::reminders::{Happened, ReminderOptions};
use foretell_lab::source::{self, SourceData};
use foretell_ports::file;
use foretell_service::policies::PolicyDocument;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Operations on a policy.
#[derive(Debug, Subcommand)]
pub(super) enum Policies {
    /// Print the JSON Schema of a policy
    Schema {
        /// Kind of policy
        #[arg(long, value_enum, default_value = "login")]
        kind: About,
    },
    /// List the variables that rules for logins can use
    Variables,
    /// Check whether a policy is valid; exit with 1 if it is not
    Check {
        /// Policy file, in TOML, or in JSON if its name ends in .json
        file: PathBuf,
        /// Kind of policy
        #[arg(long, value_enum, default_value = "login")]
        kind: About,
    },
    /// Show what a policy would do with the events of a file
    ///
    /// For logins: decisions that differ from those of the settings. For reminders: what it would announce, withdraw,
    /// defer and suppress, when, and why.
    Test(Box<Test>),
}

/// A policy, and the events to test it with.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// Policy file, in TOML, or in JSON if its name ends in .json
    file: PathBuf,
    /// Kind of policy
    #[arg(long, value_enum, default_value = "login")]
    kind: About,
    /// Events to test the policy with, gzipped or not
    #[arg(long, value_name = "EVENTS")]
    against: PathBuf,
    /// Format of the events
    #[arg(long, value_enum, default_value = "events")]
    format: Format,
    /// For logins: compare with this policy instead of the settings
    #[arg(long, value_name = "FILE")]
    instead_of: Option<PathBuf>,
    /// Maximum number of lines to print; --json prints all of them
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u64,
}

/// Kinds of policies.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum About {
    /// Scores of logins
    Login,
    /// Times and channels of reminders
    Reminders,
}

/// Runs the operation; an invalid policy is a failure that contains the reason.
pub(super) fn run(config: &Config, args: &Policies, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    match args {
        Policies::Schema { kind: About::Login } => Ok(write!(out, "{LOGIN_POLICY}")?),
        Policies::Schema { kind: About::Reminders } => Ok(write!(out, "{REMINDERS_POLICY}")?),
        Policies::Variables => Ok(variables(print, out)?),
        Policies::Check { file, kind } => check(config, file, *kind, print, out),
        Policies::Test(test) => {
            let loaded = source::read(&test.against, test.format.into(), DEFAULT_TENANT).map_err(Error::from)?;
            match test.kind {
                About::Login => logins(config, test, &loaded, print, out),
                About::Reminders => reminders(config, test, &loaded, print, out),
            }
        }
    }
}

fn check(config: &Config, file: &Path, kind: About, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let (what, count) = match kind {
        About::Login => ("rules", read(file, &config.score.login)?.rules.len()),
        About::Reminders => ("steps", read(file, &config.reminders.policy)?.steps.len()),
    };
    match print {
        Print::Json => writeln!(out, "{}", json!({"usable": true, what: count}))?,
        Print::Table => writeln!(out, "{} is valid; it has {count} {what}", file.display())?,
    }
    Ok(())
}

fn logins(config: &Config, test: &Test, loaded: &SourceData, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let settings = &config.score.login;
    let after = read(&test.file, settings)?;
    let before = test.instead_of.as_deref().map(|file| read(file, settings)).transpose()?;
    let before = before.unwrap_or_else(|| settings.clone());
    let mut list = List { print, left: test.limit, out };
    let bar = progress("events", loaded.events.len() as u64);
    let on_progress = &mut |done, _| bar.set_position(done);
    let change = PolicyChange { before: &before, after: &after };
    let compared =
        evaluate::policies::policies(loaded, change, &config.fold, &mut |one| list.changed(&one), on_progress);
    bar.finish_and_clear();
    summary(&compared?, print, out)
}

fn reminders(
    config: &Config,
    test: &Test,
    loaded: &SourceData,
    print: Print,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if test.instead_of.is_some() {
        return Err(Failure::Other(
            "--instead-of is only for policies of logins: test policies of reminders one after the other".into(),
        ));
    }
    let options = ReminderOptions {
        policy: read(&test.file, &config.reminders.policy)?,
        score: config.score.no_show.clone(),
        limits: config.fold.clone(),
    };
    let mut list = List { print, left: test.limit, out };
    let bar = progress("events", loaded.events.len() as u64);
    let on_progress = &mut |done, _| bar.set_position(done);
    let told = evaluate::reminders::reminders(loaded, &options, &mut |one| list.happened(&one), on_progress);
    bar.finish_and_clear();
    summary(&told?, print, out)
}

/// Prints the totals, to stderr if the output is JSON Lines.
fn summary(sums: &(impl Serialize + Display), print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    match print {
        Print::Json => writeln!(io::stderr(), "{}", serde_json::to_string(sums).unwrap_or_default())?,
        Print::Table => write!(out, "{sums}")?,
    }
    Ok(())
}

fn variables(print: Print, out: &mut dyn Write) -> io::Result<()> {
    if matches!(print, Print::Json) {
        let table = VARIABLES.iter().map(|v| json!({"name": v.name, "type": v.kind, "about": v.about}));
        return writeln!(out, "{}", Value::Array(table.collect()));
    }
    for Variable { name, kind, about } in VARIABLES {
        writeln!(out, "{name:<19} {kind:<7} {about}")?;
    }
    Ok(())
}

struct List<'a> {
    print: Print,
    left: u64,
    out: &'a mut dyn Write,
}

impl List<'_> {
    fn changed(&mut self, changed: &Changed) -> io::Result<()> {
        self.show(changed, |Changed { event_id, user_id, time_ms, before, after }| {
            let (time, codes) = (rfc3339(*time_ms), after.reasons.join(" "));
            let (before, after) = (before.decision.name(), after.decision.name());
            format!("{time}  {user_id}  {event_id}  {before} -> {after}  {codes}")
        })
    }

    fn happened(&mut self, happened: &Happened) -> io::Result<()> {
        self.show(happened, |Happened { time, status, client_id, appointment_id, step, channels, reason, .. }| {
            let channels: Vec<_> = channels.iter().map(|channel| channel.name()).collect();
            let step = step.as_deref().unwrap_or("-");
            let why = reason.clone().unwrap_or_else(|| channels.join(","));
            format!("{time}  {client_id}  {appointment_id}  {status} {step}  {why}")
        })
    }

    fn show<T: Serialize>(&mut self, one: &T, line: impl Fn(&T) -> String) -> io::Result<()> {
        match self.print {
            Print::Json => writeln!(self.out, "{}", serde_json::to_string(one).unwrap_or_default()),
            Print::Table if self.left == 0 => Ok(()),
            Print::Table => {
                self.left -= 1;
                writeln!(self.out, "{}", line(one))
            }
        }
    }
}

/// The policy of a file, on top of the policy in the settings.
fn read<D: PolicyDocument>(path: &Path, settings: &D) -> Result<D, Failure> {
    let name = path.display();
    let failed = |detail: String| Failure::Other(format!("{name}: {detail}"));
    let bytes = file::bytes(path, TEXT_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let syntax = if is_json { Syntax::Json } else { Syntax::Toml };
    let document = document::parse(&bytes, syntax, TEXT_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    D::read(&document, settings).map_err(|invalid| failed(invalid.to_string()))
}
