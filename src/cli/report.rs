//! `report`: past scores compared with the outcomes that became known later.

use super::bar::progress;
use super::ending::{Failure, check_tenant, unless_signalled};
use super::time;
use crate::config::Config;
use crate::ops::access::Access;
use crate::ops::inspect::Print;
use crate::ops::jobs::Console;
use crate::ops::report;
use clap::Subcommand;
use foretell_ports::clock::System;
use foretell_service::decisions::reading::DecisionQuery;
use foretell_service::report::reading::NoShowQuery;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Kinds of reports.
#[derive(Debug, Subcommand)]
pub(super) enum Report {
    /// Report on login decisions, by decision and by reason
    ///
    /// Counts decisions, those that were confirmed or reported as fraud, and the share of fraud among the latter.
    Decisions {
        /// Include decisions from this time on, RFC 3339; default: all decisions in the log
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Include only this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Report on visits, by lead time, risk level and reminders
    ///
    /// Counts visits that were missed or cancelled or have no known outcome, and compares predicted with actual risks.
    NoShow {
        /// Include visits that started at this time or later, RFC 3339; default: all visits in the log
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Include visits that started before this time, RFC 3339; default: now
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<i64>,
        /// Include only this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Write a calibration chart to this file, as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Prints a report.
///
/// # Errors
/// Contradictory arguments, and errors of log or store.
pub(super) async fn run(config: &Config, what: Report, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let (Report::Decisions { tenant, .. } | Report::NoShow { tenant, .. }) = &what;
    tenant.as_deref().map_or(Ok(()), check_tenant)?;
    let access = Access::look(config, Arc::new(System)).await?;
    let bar = progress("offsets", 0);
    let console = &mut Console { bar: &bar, print, out };
    let reported = match what {
        Report::Decisions { since, tenant } => {
            let query = DecisionQuery { since_ms: since, tenant };
            unless_signalled(report::decisions(&access, &query, console)).await
        }
        Report::NoShow { since, until, tenant, svg } => {
            if since.zip(until).is_some_and(|(since, until)| since >= until) {
                return Err(Failure::Other("--until is not after --since".into()));
            }
            let query = NoShowQuery { since_ms: since, until_ms: until, tenant };
            unless_signalled(report::no_show::no_show(&access, &query, svg.as_deref(), console)).await
        }
    };
    bar.finish_and_clear();
    reported
}
