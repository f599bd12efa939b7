//! `policy`: whether a document can be used, and what it would change.

use super::Format;
use super::bar::progress;
use super::ending::Failure;
use crate::catalog::LOGIN_POLICY;
use crate::config::Config;
use crate::evaluate::{self, policies::Changed};
use crate::event::codec::rfc3339;
use crate::event::{DEFAULT_TENANT, policy};
use crate::ops::Error;
use crate::ops::inspect::Print;
use crate::score::login::Policy;
use crate::score::login::variables::{VARIABLES, Variable};
use crate::source;
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub(super) enum Policies {
    /// Print the JSON Schema of a policy for logins.
    Schema,
    /// Print what the rules of a policy may ask about an attempt.
    Variables,
    /// Say whether a policy for logins can be used; exit 1 where it cannot.
    Check {
        /// The document, in TOML, or in JSON where its name ends in .json
        file: PathBuf,
    },
    /// Judge the logins of a file by a policy and by the settings', and show which decisions would be others.
    Test {
        /// The document, in TOML, or in JSON where its name ends in .json
        file: PathBuf,
        /// The logins, gzipped or not.
        #[arg(long, value_name = "EVENTS")]
        against: PathBuf,
        /// See `import`.
        #[arg(long, value_enum, default_value = "events")]
        format: Format,
        /// The policy that is in use, where it is not the settings'.
        #[arg(long, value_name = "FILE")]
        instead_of: Option<PathBuf>,
        /// How many of them to list; with --json all are.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        limit: u64,
    },
}

/// Does it; a policy that cannot be used is a failure that says why.
pub(super) fn run(config: &Config, asked: &Policies, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    match asked {
        Policies::Schema => Ok(write!(out, "{LOGIN_POLICY}")?),
        Policies::Variables => Ok(variables(print, out)?),
        Policies::Check { file } => {
            let policy = read(file, config)?;
            let rules = policy.rules.len();
            match print {
                Print::Json => writeln!(out, "{}", json!({"usable": true, "rules": rules}))?,
                Print::Table => writeln!(out, "{} can be used; it has {rules} rules", file.display())?,
            }
            Ok(())
        }
        Policies::Test { file, against, format, instead_of, limit } => {
            let after = read(file, config)?;
            let before = instead_of.as_deref().map(|file| read(file, config)).transpose()?;
            let before = before.unwrap_or_else(|| config.score.login.clone());
            let loaded = source::read(against, (*format).into(), DEFAULT_TENANT).map_err(Error::from)?;
            let mut list = List { print, left: *limit, out };
            let bar = progress("events", loaded.events.len() as u64);
            let tell = &mut |done, _| bar.set_position(done);
            let compared = evaluate::policies::policies(
                &loaded,
                (&before, &after),
                &config.fold,
                &mut |one| list.show(&one),
                tell,
            );
            bar.finish_and_clear();
            let compared = compared?;
            match print {
                Print::Json => writeln!(io::stderr(), "{}", serde_json::to_string(&compared).unwrap_or_default())?,
                Print::Table => write!(out, "{compared}")?,
            }
            Ok(())
        }
    }
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
    fn show(&mut self, changed: &Changed) -> io::Result<()> {
        match self.print {
            Print::Json => writeln!(self.out, "{}", serde_json::to_string(changed).unwrap_or_default()),
            Print::Table if self.left == 0 => Ok(()),
            Print::Table => {
                self.left -= 1;
                let Changed { event_id, user_id, time_ms, before, after } = changed;
                let (time, codes) = (rfc3339(*time_ms), after.reasons.join(" "));
                let (before, after) = (before.decision.name(), after.decision.name());
                writeln!(self.out, "{time}  {user_id}  {event_id}  {before} -> {after}  {codes}")
            }
        }
    }
}

/// The policy of a file, over the settings'.
fn read(path: &Path, config: &Config) -> Result<Policy, Failure> {
    let name = path.display();
    let failed = |detail: String| Failure::Other(format!("{name}: {detail}"));
    // Beyond what the document may have as JSON there is room for comments.
    let bytes_max = 4 * policy::DOCUMENT_BYTES_MAX as u64;
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > bytes_max {
        return Err(failed(format!("longer than {bytes_max} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let document: Value = if is_json {
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?
    } else {
        toml::from_str(&text).map_err(|error| failed(error.to_string()))?
    };
    Policy::read(&document, &config.score.login).map_err(|invalid| failed(invalid.to_string()))
}
