//! The kernel's statistics about a process.

use crate::Failure;

/// Clock ticks a second, as Linux shows them to every program.
const TICKS: f64 = 100.0;

/// Processor time of a process so far, in seconds; `self` is this one.
pub(crate) fn seconds(id: &str) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may contain spaces, so fields are counted after it: utime and stime are 12th and 13th.
    let (_, fields) = stat.rsplit_once(')').ok_or("a stat without a name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let mut next = || times.next().ok_or("a stat without times");
    Ok((next()?? + next()??) / TICKS)
}
