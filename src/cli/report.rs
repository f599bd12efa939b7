//! `report`: how past scores compare with what became known later.

use super::bar::progress;
use super::ending::{Failure, check_tenant, unless_signalled};
use super::time;
use crate::config::Config;
use crate::ops::access::Access;
use crate::ops::inspect::Print;
use crate::ops::report;
use clap::Subcommand;
use foretell_ports::clock::System;
use foretell_service::decisions::reading::Asked;
use foretell_service::report::reading as visits;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// What to report on.
#[derive(Debug, Subcommand)]
pub(super) enum Report {
    /// Decisions about logins, by what was decided and by reason
    ///
    /// How many there were, how many of them were confirmed or reported as fraud, and the share of fraud among those.
    Decisions {
        /// Those made at this time or later, RFC 3339; default: all that are kept
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Those of one tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Visits, by lead time, risk level and reminders
    ///
    /// How many were missed, were cancelled or have no known outcome; and how often the predicted risks came true.
    NoShow {
        /// Those that began at this time or later, RFC 3339; default: all that are kept
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<i64>,
        /// Those that began before this time, RFC 3339; default: now
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<i64>,
        /// Those of one tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Draw the calibration to this file, as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

/// Prints a report.
///
/// # Errors
/// Arguments that contradict each other, and what went wrong with log or store.
pub(super) async fn run(config: &Config, what: Report, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let (Report::Decisions { tenant, .. } | Report::NoShow { tenant, .. }) = &what;
    tenant.as_deref().map_or(Ok(()), check_tenant)?;
    let access = Access::look(config, Arc::new(System)).await?;
    let bar = progress("offsets", 0);
    let reported = match what {
        Report::Decisions { since, tenant } => {
            let asked = Asked { since_ms: since, tenant };
            unless_signalled(report::decisions(&access, &asked, (&bar, print), out)).await
        }
        Report::NoShow { since, until, tenant, svg } => {
            if since.zip(until).is_some_and(|(since, until)| since >= until) {
                return Err(Failure::Other("--until is not behind --since".into()));
            }
            let asked = visits::Asked { since_ms: since, until_ms: until, tenant };
            let asked = (&asked, svg.as_deref());
            unless_signalled(report::no_show::no_show(&access, asked, (&bar, print), out)).await
        }
    };
    bar.finish_and_clear();
    reported
}
