//! The arguments of `dead-letters`, and the query that they form.

use super::bar::progress;
use super::ending::{Failure, unless_signalled};
use super::time;
use crate::config::Config;
use crate::ops::access::Access;
use crate::ops::dead_letters;
use crate::ops::inspect::Print;
use crate::ops::jobs::Console;
use clap::{Args, Subcommand};
use foretell_domain::dead::Id;
use foretell_domain::dead::filter::Filter;
use foretell_domain::dead::query::{DeadLetterAction, DeadLetterQuery, DeadLetterScope, RATE_MAX, Redrive, Run};
use foretell_domain::dead::resolution::REASON_BYTES_MAX;
use foretell_events::codec::json;
use foretell_events::record::RECORD_BYTES_MAX;
use foretell_ports::clock::System;
use foretell_ports::file;
use json_patch::Patch;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A letter is identified by PARTITION/OFFSET in the topic of dead letters, as printed by `list`.
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// List open letters
    List {
        #[command(flatten)]
        conditions: Conditions,
        /// Include letters that were redriven or dropped
        #[arg(long)]
        all: bool,
        /// Maximum number of letters to list
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Print a letter: its validation errors, headers, event and value
    Show {
        /// PARTITION/OFFSET, as printed by `list`
        id: Id,
    },
    /// Append records again; a dry run without --execute
    ///
    /// The records are appended as new ones, with the key of their event.
    Redrive {
        #[command(flatten)]
        which: Which,
        /// JSON Patch (RFC 6902) to apply to each event, in the structured form that `show` prints
        #[arg(long, value_name = "FILE")]
        patch: Option<PathBuf>,
        /// Skip records that were rejected this many times
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        attempts_max: u32,
        /// Maximum records per second
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
        rate: u32,
        /// Why; kept with the letter
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
    /// Close letters permanently; a dry run without --execute
    ///
    /// Dropped letters are no longer listed, and their records are not appended.
    Drop {
        #[command(flatten)]
        which: Which,
        /// Why; kept with the letter
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

/// Conditions that a letter must meet, all of them.
#[derive(Debug, Args)]
pub(super) struct Conditions {
    /// Source topic, with or without its prefix
    #[arg(long)]
    topic: Option<String>,
    /// Code of the first validation error, as in MISSING_FIELD
    #[arg(long)]
    code: Option<String>,
    /// Key of the record, as in default:ada
    #[arg(long)]
    key: Option<String>,
    /// First failure at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// First failure before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
}

/// The letters to process. A selection is required, so that a typing error cannot select all of them.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// PARTITION/OFFSET, as printed by `list`; with filters, only matching letters
    #[arg(value_name = "ID", required_unless_present_any = ["topic", "code", "key", "since", "until"])]
    ids: Vec<Id>,
    #[command(flatten)]
    conditions: Conditions,
    /// Maximum number of letters to process; run the command again for the rest
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Carry out the changes instead of only printing them
    #[arg(long)]
    execute: bool,
}

fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("must not be empty".into()),
        text if text.len() > REASON_BYTES_MAX => Err(format!("longer than {REASON_BYTES_MAX} bytes")),
        text => Ok(text.to_owned()),
    }
}

impl Conditions {
    fn filter(self, ids: Vec<Id>) -> Filter {
        let Self { topic, code, key, since, until } = self;
        Filter { ids: ids.into_iter().collect(), topic, code, key, since_ms: since, until_ms: until }
    }
}

impl Which {
    fn query(self, action: DeadLetterAction) -> DeadLetterQuery {
        DeadLetterQuery { filter: self.conditions.filter(self.ids), limit: count(self.limit), action }
    }

    fn run(&self) -> Run {
        if self.execute { Run::Real } else { Run::Dry }
    }
}

/// Largest patch, in bytes: the limit of a record.
const PATCH_BYTES_MAX: usize = RECORD_BYTES_MAX;

fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Runs the command; its arguments and files are validated before log and store are opened.
pub(super) async fn run(config: &Config, what: DeadLetters, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let open = || Access::look(config, Arc::new(System));
    let query = match what {
        DeadLetters::Show { id } => return Ok(dead_letters::show(&open().await?, id, print, out).await?),
        DeadLetters::List { conditions, all, limit } => {
            let scope = if all { DeadLetterScope::All } else { DeadLetterScope::Open };
            DeadLetterQuery {
                filter: conditions.filter(Vec::new()),
                limit: count(limit),
                action: DeadLetterAction::List(scope),
            }
        }
        DeadLetters::Redrive { which, patch, attempts_max, rate, reason } => {
            let patch = patch.as_deref().map(read).transpose()?;
            let redrive = Redrive { run: which.run(), patch, attempts_max, rate, reason };
            which.query(DeadLetterAction::Redrive(redrive))
        }
        DeadLetters::Drop { which, reason } => {
            let run = which.run();
            which.query(DeadLetterAction::Drop { run, reason })
        }
    };
    let access = open().await?;
    let bar = progress("offsets of dead letters", 0);
    let console = &mut Console { bar: &bar, print, out };
    let done = unless_signalled(dead_letters::run(&access, &query, console, &mut std::io::stderr())).await;
    bar.finish_and_clear();
    done
}

fn read(path: &Path) -> Result<Patch, Failure> {
    let named = |cause: &dyn std::fmt::Display| Failure::Other(format!("{}: {cause}", path.display()));
    let text = file::text(path, PATCH_BYTES_MAX).map_err(|cause| named(&cause))?;
    let value = json::parse(text.as_bytes(), "").map_err(|faults| named(&faults))?;
    serde_json::from_value(value).map_err(|error| named(&format!("not a JSON Patch (RFC 6902): {error}")))
}
