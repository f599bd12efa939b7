//! `dead-letters`: lists, shows, redrives and drops records that could not be folded.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use super::jobs::{self, Console};
use foretell_domain::dead::Id;
use foretell_domain::dead::details::{Body, DeadLetterDetails, DeadLetterEntry, LetterState};
use foretell_domain::dead::query::{
    DeadLetterAction, DeadLetterItem, DeadLetterQuery, DeadLetterSummary, LetterOutcome, Redrive, Run,
};
use foretell_domain::dead::resolution::{Resolution, ResolutionRecord};
use foretell_engine::dead_letters::DeadLetters;
use serde::Serialize;
use serde_json::json;
use std::io::Write;

/// Maximum length of a message in a table, in characters.
const MESSAGE_CHARS_MAX: usize = 100;

/// Runs the query, and prints every letter; notices for the operator go to `messages`.
///
/// It fails at the end, after all letters are processed, if one was left unchanged or does not exist.
pub async fn run(
    access: &Access,
    query: &DeadLetterQuery,
    console: &mut Console<'_>,
    messages: &mut dyn Write,
) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut is_first = true;
    let show = &mut |item, console: &mut Console<'_>| match item {
        DeadLetterItem::Letter { letter, outcome } => {
            if std::mem::take(&mut is_first) && console.print == Print::Table {
                heading(console.out)?;
            }
            print(&letter, &outcome, console)
        }
        DeadLetterItem::Missing(id) => {
            missing.push(id);
            Ok(())
        }
    };
    let summary = jobs::run::<DeadLetters>(access, query, console, show).await?;
    console.out.flush()?;
    conclude(query, summary, messages)?;
    complete(summary, &missing)
}

fn heading(out: &mut dyn Write) -> Result<(), Error> {
    Ok(writeln!(
        out,
        "{:<10} {:<9} {:<24} {:>7}  {:<24} {:<24} KEY",
        "ID", "STATE", "FIRST FAILURE", "ATTEMPT", "SOURCE", "CODE"
    )?)
}

fn print(letter: &DeadLetterEntry, outcome: &LetterOutcome, console: &mut Console<'_>) -> Result<(), Error> {
    let out = &mut console.out;
    if console.print == Print::Json {
        let line = match outcome {
            LetterOutcome::Listed => json!(letter),
            outcome => json!({"letter": letter, "deed": outcome}),
        };
        return Ok(writeln!(out, "{line}")?);
    }
    let DeadLetterEntry { id, state, source, attempt, code, message, first_failure, key } = letter;
    let (id, state, source) = (id.to_string(), name(*state), printable(&source.to_string()));
    let (code, key) = (printable(code), printable(key.as_deref().unwrap_or("-")));
    writeln!(out, "{id:<10} {state:<9} {first_failure:<24} {attempt:>7}  {source:<24} {code:<24} {key}")?;
    writeln!(out, "           {}", second_line(outcome, message))?;
    Ok(())
}

/// The second line of a letter: its outcome, or its validation error.
fn second_line(outcome: &LetterOutcome, message: &str) -> String {
    match outcome {
        LetterOutcome::Listed => {
            let message = printable(message);
            match message.char_indices().nth(MESSAGE_CHARS_MAX) {
                Some((cut, _)) => format!("{}…", &message[..cut]),
                None => message,
            }
        }
        LetterOutcome::WouldRedrive { topic, key, dropped } => {
            format!("would be appended to {topic} under {}{}", printable(key), left_out(*dropped))
        }
        LetterOutcome::Redriven { to, dropped } => format!("appended: {to}{}", left_out(*dropped)),
        LetterOutcome::WouldDrop => "would be dropped".into(),
        LetterOutcome::Dropped => "dropped".into(),
        LetterOutcome::Refused { detail } => format!("skipped: {}", printable(detail)),
    }
}

/// The number of fields that a new record lacks, if any.
fn left_out(dropped: usize) -> String {
    if dropped == 0 { String::new() } else { format!(", without {dropped} unknown fields") }
}

/// Letters contain input of producers: control characters must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

const fn name(state: LetterState) -> &'static str {
    match state {
        LetterState::Open => "open",
        LetterState::Redriven => "redriven",
        LetterState::Dropped => "dropped",
    }
}

fn conclude(query: &DeadLetterQuery, summary: DeadLetterSummary, messages: &mut dyn Write) -> Result<(), Error> {
    let DeadLetterSummary { letters, refused, more } = summary;
    let done = letters - refused;
    match &query.action {
        _ if letters == 0 => writeln!(messages, "no matching dead letters")?,
        DeadLetterAction::List(_) => {}
        action if is_dry(action) => writeln!(messages, "{done} letters would be processed; add --execute")?,
        _ => writeln!(messages, "{done} letters processed")?,
    }
    if more {
        writeln!(messages, "there are more than {}; see --limit", query.limit)?;
    }
    Ok(())
}

fn is_dry(action: &DeadLetterAction) -> bool {
    matches!(
        action,
        DeadLetterAction::Redrive(Redrive { run: Run::Dry, .. }) | DeadLetterAction::Drop { run: Run::Dry, .. }
    )
}

fn complete(summary: DeadLetterSummary, missing: &[Id]) -> Result<(), Error> {
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(Id::to_string).collect();
        return Err(Error::Answer(format!("there is no dead letter {}", missing.join(", "))));
    }
    if summary.refused > 0 {
        let DeadLetterSummary { letters, refused, .. } = summary;
        return Err(Error::Answer(format!("{refused} of {letters} letters were left unchanged")));
    }
    Ok(())
}

/// Prints a complete letter.
pub async fn show(access: &Access, id: Id, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    let answer = access.get(&format!("/admin/dead-letters/{id}")).await?;
    if print == Print::Json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let shown: DeadLetterDetails =
        serde_json::from_value(answer).map_err(|error| Error::Answer(format!("the answer cannot be read: {error}")))?;
    letter(&shown, out)
}

fn letter(shown: &DeadLetterDetails, out: &mut dyn Write) -> Result<(), Error> {
    let listed = &shown.listed;
    let DeadLetterEntry { id, state, source, attempt, code, .. } = listed;
    writeln!(out, "letter         {id}, {}, written {}", name(*state), shown.written_at)?;
    if let Some(record) = &shown.resolution {
        writeln!(out, "closed         {}", closed(record))?;
    }
    writeln!(out, "source         {}", printable(&source.to_string()))?;
    writeln!(out, "attempt        {attempt}, first failure {}", listed.first_failure)?;
    writeln!(out, "rejected       {} ({})", printable(code), printable(&shown.stage))?;
    writeln!(out, "               {}", printable(&listed.message))?;
    writeln!(out, "key            {}", printable(listed.key.as_deref().unwrap_or("-")))?;
    writeln!(out, "\nvalidation errors found by this version")?;
    if shown.faults.is_empty() {
        writeln!(out, "  none")?;
    }
    for fault in &shown.faults {
        let at = if fault.pointer.is_empty() { "the event" } else { fault.pointer.as_str() };
        writeln!(out, "  {} at {}: {}", fault.code, printable(at), printable(&fault.detail))?;
    }
    writeln!(out, "\nheaders")?;
    for (name, value) in &shown.headers {
        writeln!(out, "  {}: {}", printable(name), printable(value))?;
    }
    if let Some(event) = &shown.event {
        writeln!(out, "\nevent, in the form that a patch is applied to\n{}", pretty(event))?;
    }
    value(shown, out)
}

fn closed(record: &ResolutionRecord) -> String {
    let done = match &record.resolution {
        Resolution::Redriven { to } => format!("redriven to {to}"),
        Resolution::Dropped => "dropped".into(),
    };
    let why = record.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    format!("{done} at {}{why}", record.at)
}

fn value(shown: &DeadLetterDetails, out: &mut dyn Write) -> Result<(), Error> {
    match shown.omitted_bytes {
        Some(bytes) => writeln!(out, "\nvalue ({bytes} bytes, kept only at the source)")?,
        None => writeln!(out, "\nvalue")?,
    }
    match &shown.value {
        Body::Json(json) => writeln!(out, "{}", pretty(json))?,
        Body::Text(text) => text.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))?,
        Body::Hex(hex) => writeln!(out, "0x{hex}")?,
    }
    Ok(())
}

fn pretty(value: &impl Serialize) -> String {
    // C0 controls are escaped in JSON; other control characters are not.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
