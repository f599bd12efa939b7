//! The command line: commands, their flags, and the code that runs them.
//!
//! Data goes to stdout, messages to stderr. The exit code is 0 for success, 1 for a failure and 2 for wrong usage.

mod bar;
mod calibrate;
mod dead_letters;
pub mod ending;
mod help;
mod keys;
mod policy;
mod report;
mod run;
mod serve;
mod settings;
mod train;

pub use help::parse;
pub use run::run;

use crate::version::VERSION_LONG;
use clap::builder::{PossibleValuesParser, TypedValueParser, UnknownArgumentValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use foretell_domain::address::{Family, View};
use foretell_engine::repartition::RepartitionQuery;
use foretell_events::codec::parse_rfc3339;
use settings::{Flags, Geo, Instance, Listen, Output};
use std::path::PathBuf;

/// Real-time risk scores for logins and appointments
///
/// Foretell folds two streams of events, logins and appointments, into views, and answers over HTTP: how risky is this
/// login, how likely is this visit to be missed, and why. It announces reminders on a topic.
#[derive(Debug, Parser)]
#[command(name = "foretell", version = VERSION_LONG, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    file: settings::File,
    #[command(subcommand)]
    command: Command,
}

// Descriptions are one line, as they also form the list of commands; a second paragraph is for the page of one command.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: answer requests, fold views, announce reminders
    Serve(serve::Serve),
    /// Run a service with sample events, and show typical requests
    ///
    /// The output fits a terminal of 50 lines and 100 columns. With --json, each question is one JSON object on one
    /// line, with `question`, `request` (method, url, body) and `answer`.
    Demo(Demo),
    /// Check whether a service is ready
    ///
    /// Prints the response of /readyz?verbose. Exits with 0 if the service is ready.
    Health {
        /// URL of the service, as in http://127.0.0.1:8080
        url: String,
    },
    /// Append the events of a file to the log, each once
    ///
    /// Events are appended in order of time. Run an interrupted import again to resume it.
    Import(Import),
    /// Create missing topics and tables, or change a partition count
    Migrate(Migrate),
    /// Copy the embedded log, even while it is in use
    ///
    /// To restore a backup, serve the copy.
    Backup {
        /// Destination: a directory that does not exist yet
        directory: PathBuf,
        #[command(flatten)]
        instance: Instance,
    },
    /// Show topics, positions and rows
    Inspect {
        #[command(subcommand)]
        what: Inspect,
        #[command(flatten)]
        instance: Instance,
    },
    /// Fold the log again, and compare the result with the rows
    ///
    /// Exits with 1 if they differ.
    Verify {
        /// View to verify; default: all views
        #[arg(value_parser = views())]
        view: Option<String>,
        #[command(flatten)]
        instance: Instance,
    },
    /// Rebuild the rows of a family from the log, and switch to them
    ///
    /// The old rows serve until the new ones are complete and verified. Run an interrupted rebuild again to resume it.
    /// On Kafka, all processes with the roles that fold the family take part.
    Rebuild {
        /// Family to rebuild
        #[arg(value_parser = families())]
        family: Family,
        /// Cancel the rebuild in progress
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        instance: Instance,
    },
    /// List, show, redrive or drop records that could not be folded
    DeadLetters {
        #[command(subcommand)]
        what: dead_letters::DeadLetters,
        #[command(flatten)]
        instance: Instance,
    },
    /// Score the events of a file, each with the history before it
    ///
    /// Runs in memory, without a log or a store. Prints a line per event, and a summary to stderr.
    Evaluate(Evaluate),
    /// Generate labelled logins of a simulated service, with attacks
    Simulate(calibrate::Simulate),
    /// Find thresholds of login scores that catch a given share of attacks
    ///
    /// Replays labelled logins, and shows how often each threshold challenges users, compared with a simple rule.
    Calibrate(calibrate::Calibrate),
    /// Check a policy, or test it with the events of a file
    Policy {
        #[command(subcommand)]
        what: policy::Policies,
        #[command(flatten)]
        output: Output,
    },
    /// Train a model on a tenant's own history
    Train {
        #[command(subcommand)]
        what: train::Train,
        #[command(flatten)]
        instance: Instance,
    },
    /// Compare past scores with actual outcomes
    Report {
        #[command(subcommand)]
        what: report::Report,
        #[command(flatten)]
        instance: Instance,
    },
    /// Check or print the settings
    Config(Settings),
    /// Print the OpenAPI document
    Openapi,
    /// Print the completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one per command
    Man {
        /// Destination directory; created if it is missing
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

impl Command {
    fn flags(&self) -> Flags<'_> {
        let flags = Flags::default();
        match self {
            Self::Serve(serve::Serve { data, listen, geo, .. }) => flags.data(data).listen(listen).geo(geo),
            Self::Demo(Demo { listen, geo, output, .. }) => flags.listen(listen).geo(geo).output(output),
            Self::Import(Import { instance, geo, .. }) => flags.instance(instance).geo(geo),
            Self::Evaluate(Evaluate { geo, output, .. }) => flags.geo(geo).output(output),
            Self::Calibrate(calibrate::Calibrate { output, .. }) | Self::Policy { output, .. } => flags.output(output),
            Self::Config(Settings { instance, listen, geo, .. }) => flags.instance(instance).listen(listen).geo(geo),
            Self::Migrate(Migrate { instance, .. })
            | Self::Backup { instance, .. }
            | Self::Inspect { instance, .. }
            | Self::Verify { instance, .. }
            | Self::Rebuild { instance, .. }
            | Self::DeadLetters { instance, .. }
            | Self::Train { instance, .. }
            | Self::Report { instance, .. } => flags.instance(instance),
            Self::Health { .. } | Self::Simulate(_) | Self::Openapi | Self::Completions { .. } | Self::Man { .. } => {
                flags
            }
        }
    }
}

#[derive(Debug, Args)]
struct Demo {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    geo: Geo,
    // Rejected with a hint, because users may want to keep the data.
    #[arg(long, hide = true, action = ArgAction::Set, value_parser = no_data())]
    log: Option<String>,
    #[arg(long, hide = true, action = ArgAction::Set, value_parser = no_data())]
    store: Option<String>,
}

fn no_data() -> UnknownArgumentValueParser {
    UnknownArgumentValueParser::suggest("the demo uses a temporary directory; to keep data, run `foretell serve`")
}

#[derive(Debug, Args)]
struct Migrate {
    /// Change the partition count of a family, as in logins=16
    ///
    /// Copies the topic of logins, or those of appointments and reminders, into one with COUNT partitions, and rebuilds
    /// the rows. Stop all services and producers first. Run an interrupted change again to resume it.
    #[arg(long, value_name = "FAMILY=COUNT")]
    repartition: Option<RepartitionQuery>,
    #[command(flatten)]
    instance: Instance,
}

#[derive(Debug, Args)]
struct Import {
    /// Kind of events in the file
    #[arg(value_enum)]
    kind: Facts,
    /// File to read, gzipped or not
    file: PathBuf,
    /// Format of the file
    #[arg(long, value_enum)]
    format: Format,
    /// The tenant of all events
    ///
    /// Events that name another tenant are rejected. Default: the tenant of each event, else "default".
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    to: Destination,
    #[command(flatten)]
    instance: Instance,
    #[command(flatten)]
    geo: Geo,
}

#[derive(Debug, Args)]
struct Destination {
    /// URL of a running service to send to, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// API key of the service; prefer FORETELL_API_KEY, which other users of this machine cannot see
    #[arg(long, env = "FORETELL_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

#[derive(Debug, Args)]
struct Evaluate {
    /// Kind of events in the file
    #[arg(value_enum)]
    kind: Facts,
    /// File to read, gzipped or not
    file: PathBuf,
    /// Format of the file
    #[arg(long, value_enum)]
    format: Format,
    /// When to score an appointment
    #[arg(long, value_enum, default_value = "booking")]
    at: At,
    /// Summarise only events after this time, RFC 3339
    ///
    /// For appointments, a model is trained on the history up to this time, and recalibrated with later outcomes.
    #[arg(long, value_name = "TIME")]
    train_until: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    geo: Geo,
}

fn families() -> impl TypedValueParser<Value = Family> {
    let names = PossibleValuesParser::new(Family::ALL.map(Family::name));
    names.map(|name| Family::parse(&name).expect("invariant: the parser accepts names of families alone"))
}

fn views() -> PossibleValuesParser {
    View::ALL.map(View::name).into()
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Facts {
    Logins,
    Appointments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Structured CloudEvents, one JSON object per line
    Events,
    /// CSV of the RBA data set, for logins
    Rba,
    /// CSV of the data set "Medical Appointment No Shows", for appointments
    Noshow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum At {
    /// At its booking
    Booking,
    /// 24 hours before its start
    #[value(name = "24h")]
    DayBefore,
}

#[derive(Debug, Subcommand)]
enum Inspect {
    /// List the partitions of all topics, with their first and last offsets
    Topics,
    /// List the checkpoints of all families, and their lag
    Positions,
    /// Print a row, decoded, by source partition
    Row {
        /// View of the row
        #[arg(value_parser = views())]
        view: String,
        /// Key of the row, with its tenant, as in default:ada
        key: String,
        /// Bucket of the row, for the views agenda and announced
        #[arg(long)]
        bucket: Option<i64>,
    },
}

fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).map_err(|fault| fault.detail)
}

#[derive(Debug, Args)]
struct Settings {
    #[command(subcommand)]
    what: SettingsCommand,
    #[command(flatten)]
    instance: Instance,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    geo: Geo,
}

#[derive(Debug, Subcommand)]
enum SettingsCommand {
    /// Check whether the settings are valid
    Check,
    /// Print the effective settings, merged from all sources, without secrets
    Dump {
        /// Print the defaults instead, with comments
        #[arg(long)]
        defaults: bool,
    },
}
