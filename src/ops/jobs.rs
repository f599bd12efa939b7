//! Runs a job, in an instance or in this process, and shows its progress as a bar.

use super::Error;
use super::access::{Access, Lines};
use super::inspect::Print;
use foretell_engine::jobs::{self, Job, JobEvent, JobEvents, JobProgress};
use indicatif::ProgressBar;
use serde_json::json;
use std::io::Write;

/// Output of a command.
pub struct Console<'a> {
    /// Progress bar, only on a terminal.
    pub bar: &'a ProgressBar,
    /// Format of results.
    pub print: Print,
    /// Destination of results.
    pub out: &'a mut dyn Write,
}

impl Console<'_> {
    /// Prints a value as a line of JSON.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Error> {
        Ok(writeln!(self.out, "{}", serde_json::to_string(value).unwrap_or_default())?)
    }
}

/// Handles an item of a job.
pub type Show<'s, I> = &'s mut (dyn FnMut(I, &mut Console<'_>) -> Result<(), Error> + Send);

/// Runs a job in an instance; returns its report.
///
/// # Errors
/// The job was rejected, failed or lost its connection, or an item cannot be printed.
pub async fn run<J: Job>(
    access: &Access,
    query: &J::Query,
    console: &mut Console<'_>,
    show: Show<'_, J::Item>,
) -> Result<J::Report, Error> {
    let lines = access.lines(&format!("/admin/jobs/{}", J::NAME), &json!(query)).await?;
    follow::<J>(Events::Lines(lines), console, show).await
}

/// Runs a job in this process; returns its report.
///
/// # Errors
/// The job failed, or an item cannot be printed.
pub async fn run_here<J: Job>(
    job: J,
    query: J::Query,
    console: &mut Console<'_>,
    show: Show<'_, J::Item>,
) -> Result<J::Report, Error> {
    follow::<J>(Events::Here(jobs::start(job, query)), console, show).await
}

enum Events<J: Job> {
    Lines(Lines),
    Here(JobEvents<J>),
}

async fn follow<J: Job>(
    mut events: Events<J>,
    console: &mut Console<'_>,
    show: Show<'_, J::Item>,
) -> Result<J::Report, Error> {
    loop {
        let event = match &mut events {
            Events::Lines(lines) => lines.next::<JobEvent<J::Item, J::Report>>().await?,
            Events::Here(events) => events.recv().await,
        };
        match event {
            Some(JobEvent::Progress(progress)) => draw(console.bar, progress),
            Some(JobEvent::Item(item)) => {
                let bar = console.bar;
                bar.suspend(|| show(item, console))?;
            }
            Some(JobEvent::Done(report)) => return Ok(report),
            Some(JobEvent::Failed { detail }) => return Err(Error::Answer(detail)),
            None => return Err(Error::Answer(format!("the connection ended during {}: {}", J::NAME, J::WHEN_CUT_OFF))),
        }
    }
}

fn draw(bar: &ProgressBar, progress: JobProgress) {
    let JobProgress { what, done, total } = progress;
    if done == 0 {
        // A new count starts here, with a rate of its own.
        bar.reset();
    }
    bar.set_length(total);
    bar.set_position(done);
    if bar.message() != what {
        bar.set_message(what);
    }
}
