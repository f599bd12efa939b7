//! The command line: commands, their flags, and what runs them.
//!
//! Data goes to stdout, messages to stderr. Exit 0 when it worked, 1 when it did not, 2 for wrong usage.

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
use foretell_engine::repartition::Asked;
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
    /// Run the service: answer requests, keep views, announce reminders
    Serve(serve::Serve),
    /// Run a service with made-up events, and show what to ask it
    ///
    /// It fits a terminal of 50 lines and 100 columns. With --json it prints one object for each question, on a line of
    /// its own, with `question`, `request` (method, url, body) and `answer`.
    Demo(Demo),
    /// Check whether a service is ready
    ///
    /// Prints what the service says at /readyz?verbose. Exit 0 when it is ready.
    Health {
        /// Where the service listens, as in http://127.0.0.1:8080
        url: String,
    },
    /// Append the events of a file, each once
    ///
    /// In order of time. An interrupted import goes on where it was when it is run again.
    Import(Import),
    /// Create missing topics and tables, or change a partition count
    Migrate(Migrate),
    /// Copy the embedded log, also while it is served
    ///
    /// To restore it, serve the copy.
    Backup {
        /// Where to: a directory that does not exist yet
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
    /// Fold the log again and compare the rows with it
    ///
    /// Exit 1 where they differ.
    Verify {
        /// The view; default: all of them
        #[arg(value_parser = views())]
        view: Option<String>,
        #[command(flatten)]
        instance: Instance,
    },
    /// Fold a family of views again, and switch to the new rows
    ///
    /// The old rows serve until the new ones are complete and verified. An interrupted rebuild goes on when it is run
    /// again. On Kafka, all processes with the roles that keep the family take part.
    Rebuild {
        /// The family
        #[arg(value_parser = families())]
        family: Family,
        /// Give up the rebuild that was begun
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
    /// Score the events of a file by what was known before each
    ///
    /// In memory, without a log or a store. Prints a line for each event, and a summary to stderr.
    Evaluate(Evaluate),
    /// Make up labelled logins of a service, with attacks on it
    Simulate(calibrate::Simulate),
    /// Find thresholds of login scores that catch a share of attacks
    ///
    /// Replays labelled logins, and shows what each threshold costs users, compared with a plain rule.
    Calibrate(calibrate::Calibrate),
    /// Check a policy, or test it with the events of a file
    Policy {
        #[command(subcommand)]
        what: policy::Policies,
        #[command(flatten)]
        output: Output,
    },
    /// Train a model with a tenant's own history
    Train {
        #[command(subcommand)]
        what: train::Train,
        #[command(flatten)]
        instance: Instance,
    },
    /// Compare past scores with what they predicted
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
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where to: a directory, which is made if it is missing
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
    // Refused with a hint, as people want to keep what they have seen.
    #[arg(long, hide = true, action = ArgAction::Set, value_parser = no_data())]
    log: Option<String>,
    #[arg(long, hide = true, action = ArgAction::Set, value_parser = no_data())]
    store: Option<String>,
}

fn no_data() -> UnknownArgumentValueParser {
    UnknownArgumentValueParser::suggest("the demo has a directory of its own; to keep one, run `foretell serve`")
}

#[derive(Debug, Args)]
struct Migrate {
    /// Give a family another partition count, as in logins=16
    ///
    /// Copies the topic of logins, or those of appointments and reminders, into one of so many partitions, and folds the
    /// rows again. Nothing may serve or append meanwhile. An interrupted one goes on when it is run again.
    #[arg(long, value_name = "FAMILY=COUNT")]
    repartition: Option<Asked>,
    #[command(flatten)]
    instance: Instance,
}

#[derive(Debug, Args)]
struct Import {
    /// What the file holds
    #[arg(value_enum)]
    kind: Facts,
    /// The file, gzipped or not
    file: PathBuf,
    /// Format of the file
    #[arg(long, value_enum)]
    format: Format,
    /// The tenant of all events
    ///
    /// An event that names another tenant is refused. Default: the tenant that an event names, else "default".
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
    /// Send to a running service instead, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// API key of that service; other users of this machine do not see it in FORETELL_API_KEY
    #[arg(long, env = "FORETELL_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

#[derive(Debug, Args)]
struct Evaluate {
    /// What the file holds
    #[arg(value_enum)]
    kind: Facts,
    /// The file, gzipped or not
    file: PathBuf,
    /// Format of the file
    #[arg(long, value_enum)]
    format: Format,
    /// When an appointment is scored
    #[arg(long, value_enum, default_value = "booking")]
    at: At,
    /// Summarise only what came after this time, RFC 3339
    ///
    /// Of appointments, a model is learnt from what was known by then, and later outcomes recalibrate it.
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
    /// Structured CloudEvents, one JSON object a line
    Events,
    /// CSV of the RBA data set: logins
    Rba,
    /// CSV of the data set "Medical Appointment No Shows": appointments
    Noshow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum At {
    /// When it is booked
    Booking,
    /// 24 hours before it begins
    #[value(name = "24h")]
    DayBefore,
}

#[derive(Debug, Subcommand)]
enum Inspect {
    /// The partitions of every topic, with the offsets that they hold
    Topics,
    /// The checkpoints of every family, and how far they are behind the log
    Positions,
    /// A row, decoded, by the partitions that it was folded from
    Row {
        /// The view
        #[arg(value_parser = views())]
        view: String,
        /// The key, with its tenant, as in default:ada
        key: String,
        /// The bucket, for the views agenda and announced
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
    /// Check whether the settings can be used
    Check,
    /// Print the settings that apply, from all sources, without secrets
    Dump {
        /// Print the defaults instead, with comments
        #[arg(long)]
        defaults: bool,
    },
}
