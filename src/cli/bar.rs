//! Progress of long work, on a terminal.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::IsTerminal;

/// A bar with rate and remaining time; only on a terminal.
pub(super) fn progress(what: &'static str, total: u64) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{bar:32} {human_pos}/{human_len} {msg}  {rate}/s  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // A whole number: the built-in key prints four decimal places.
    bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
    }));
    bar.with_message(what)
}
