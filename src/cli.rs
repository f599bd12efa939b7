//! The command line: what can be asked, and what answers.
//!
//! Data goes to stdout, messages to stderr. Exit 0 when it worked, 1 when it did not, 2 when it was asked wrongly.

mod bar;
mod calibrate;
mod dead_letters;
pub mod ending;
mod first_key;
mod policy;
mod run;
mod train;

pub use run::run;

use crate::app::Role;
use crate::event::codec::parse_rfc3339;
use crate::repartition::Asked;
use crate::store::{Family, View};
use clap::builder::{FalseyValueParser, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Real-time risk scores for logins and appointments, from views that are the fold of a log.
#[derive(Debug, Parser)]
#[command(name = "foretell", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Global {
    /// Settings in TOML, over the defaults; `foretell config dump` shows all of them.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where facts are: disk:DIR or kafka://host:port,...
    #[arg(long, global = true, value_name = "URL")]
    log: Option<String>,
    /// Where rows are: disk:DIR or cassandra://host:port,.../keyspace
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Address and port to serve HTTP on.
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and port to serve probes and metrics on, or "none".
    #[arg(long, global = true, value_name = "ADDRESS")]
    ops_listen: Option<String>,
    /// Autonomous systems of addresses: an MMDB file.
    #[arg(long, global = true, value_name = "FILE")]
    geo_asn: Option<String>,
    /// Countries and cities of addresses: an MMDB file.
    #[arg(long, global = true, value_name = "FILE")]
    geo_city: Option<String>,
    /// Print JSON where there would be a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: answer requests, keep the views, announce reminders.
    Serve {
        /// What this process does; the default is everything.
        #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Role::Http, Role::Views, Role::Reminders])]
        roles: Vec<Role>,
        /// Accept that everybody who can connect may do everything.
        #[arg(long)]
        insecure: bool,
        /// Make an API key where there is none, for an embedded instance. It is printed to stderr once; the data
        /// directory keeps its digest for every later start. A file in http.api_keys_file is used instead.
        #[arg(long, env = "FORETELL_FIRST_KEY", value_parser = FalseyValueParser::new())]
        first_key: bool,
        /// Rebuild views that were folded by older rules than this build and its settings have.
        #[arg(long)]
        auto_rebuild: bool,
    },
    /// Serve a story in an empty temporary directory, and show what to try.
    Demo,
    /// Append the events of a file, in order of time, each once.
    Import(Import),
    /// Replay a file in memory and score each row by what was known just before it.
    Evaluate(Evaluate),
    /// Make up the logins of a service, and attacks on it, each labelled with who made it.
    Simulate(calibrate::Simulate),
    /// Replay labelled logins, and find the thresholds that catch a share of the attacks: what they cost, beside a
    /// plain rule.
    Calibrate(calibrate::Calibrate),
    /// Create topics, keyspace and tables where they are missing; or give a family another partition count.
    Migrate {
        /// Copy the topic of logins, or those of appointments and reminders, into one of so many partitions, as in
        /// logins=16, and fold the rows anew. Nobody may serve or append meanwhile; an interrupted one goes on when
        /// it is run again.
        #[arg(long, value_name = "FAMILY=COUNT")]
        repartition: Option<Asked>,
    },
    /// Look at the log and the rows.
    Inspect {
        #[command(subcommand)]
        what: Inspect,
    },
    /// Fold the log again from its beginning, and hold the rows against it; exit 1 where they differ.
    Verify {
        /// The view; without one, all of them.
        #[arg(value_parser = views())]
        view: Option<String>,
    },
    /// Fold a family of views anew, beside the one that serves; verify it, and let it serve instead.
    ///
    /// An interrupted one goes on when it is run again. On Kafka, processes with the roles that keep the family help.
    Rebuild {
        /// The family.
        #[arg(value_enum)]
        family: Family,
        /// Give up what is being built.
        #[arg(long)]
        cancel: bool,
    },
    /// Copy the embedded log, while it is served or not; to restore it, serve the copy.
    Backup {
        /// Where to: a directory that does not exist yet.
        directory: PathBuf,
    },
    /// Look at records that could not be folded; send them again, or let them go.
    DeadLetters {
        #[command(subcommand)]
        what: dead_letters::DeadLetters,
    },
    /// Check a policy for logins or reminders, or see what it would do.
    Policy {
        #[command(subcommand)]
        what: policy::Policies,
    },
    /// Learn a model of a tenant's own history.
    Train {
        #[command(subcommand)]
        what: train::Train,
    },
    /// Say how good the scores were that were given, by what became known of them.
    Report {
        #[command(subcommand)]
        what: Report,
    },
    /// Check or print the settings.
    Config {
        #[command(subcommand)]
        what: Settings,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Ask a service whether it is ready.
    Health {
        /// Where it listens, as in http://127.0.0.1:8080
        url: String,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Import {
    /// What the file holds.
    #[arg(value_enum)]
    kind: Facts,
    /// The file, gzipped or not.
    file: PathBuf,
    /// rba: logins of the RBA data set; noshow: appointments of "Medical Appointment No Shows"; events: JSON Lines
    /// of structured CloudEvents.
    #[arg(long, value_enum)]
    format: Format,
    /// Whose events they all are; an event that names another tenant is refused. Without it they are of the tenants that
    /// they name, and of "default" where they name none.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    to: Destination,
}

#[derive(Debug, Args)]
struct Destination {
    /// Send to a running service instead, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Its API key; better in FORETELL_API_KEY.
    #[arg(long, env = "FORETELL_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
}

#[derive(Debug, Args)]
struct Evaluate {
    /// What the file holds.
    #[arg(value_enum)]
    kind: Facts,
    /// The file, gzipped or not.
    file: PathBuf,
    /// See `import`.
    #[arg(long, value_enum)]
    format: Format,
    /// When an appointment is scored.
    #[arg(long, value_enum, default_value = "booking")]
    at: At,
    /// RFC 3339; only what came later is in the summary. Of appointments a model is learnt from what was known by then,
    /// and later outcomes recalibrate it.
    #[arg(long, value_name = "TIME")]
    train_until: Option<String>,
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
    Rba,
    Noshow,
    Events,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum At {
    Booking,
    #[value(name = "24h")]
    DayBefore,
}

#[derive(Debug, Subcommand)]
enum Inspect {
    /// Partitions of every topic, and the offsets that they hold.
    Topics,
    /// Checkpoints of every family, and how far behind the log they are.
    Positions,
    /// A row: its partials by source partition, decoded.
    Row {
        /// The view.
        #[arg(value_parser = views())]
        view: String,
        /// tenant:key, as in default:ada
        key: String,
        /// The bucket, of agenda and announced.
        #[arg(long)]
        bucket: Option<i64>,
    },
}

#[derive(Debug, Subcommand)]
enum Report {
    /// Decisions about logins, by what was decided and by reason: how many were given, how many of them somebody has
    /// confirmed or reported, and the share of fraud among those.
    Decisions {
        /// Those that were made at this time or later, RFC 3339; default: all that are kept.
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Those of one tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Visits, by lead, by level and by the reminders that they got: how many were missed, called off or are unknown;
    /// and whether the scores that they were given before they began have come true.
    NoShow {
        /// Those that began at this time or later, RFC 3339; default: all that are kept.
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Those that began before this time, RFC 3339; default: now.
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<i64>,
        /// Those of one tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Draw the calibration to this file, as SVG.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).map_err(|fault| fault.detail)
}

#[derive(Debug, Subcommand)]
enum Settings {
    /// Say whether the settings can be used.
    Check,
    /// Print all of them, as they are after all layers, without secrets.
    Dump {
        /// The annotated defaults instead.
        #[arg(long)]
        defaults: bool,
    },
}
