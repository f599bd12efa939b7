//! Bounds how many rejections count as faulty records, before a partition stops because something else is wrong.
//!
//! A bad record becomes a dead letter. If a topic contains nothing but bad records, its producer is broken, or this
//! version does not understand them: continuing would only move the topic into the dead letters. So a partition stops
//! when too many of its records in a row are rejected, or too large a share of the family's latest ones, until an
//! operator decides.
//!
//! A faulty producer affects every partition, so [`Shares`] are counted over all partitions of a family that a process
//! folds. Rejections with one code have one cause, and few of them are enough to detect it.

use super::Config;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The shares of rejected records among the latest ones of a family; each partition has a clone.
#[derive(Debug, Clone, Default)]
pub struct Shares(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// Of all codes, over `rejected_window_records`.
    all: Window,
    /// By code, over `rejected_code_window_records`.
    coded: Window,
}

/// The latest records, and how many of them were rejected; both numbers are halved when the window is full.
#[derive(Debug, Default)]
struct Window {
    records: u32,
    rejected: BTreeMap<&'static str, u32>,
}

/// Why a record is one rejection too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// This many records of the partition were rejected in a row.
    Run(u32),
    /// Too large a share of the family's latest records was rejected.
    Share { rejected: u32, records: u32 },
    /// The same, by one code.
    Code { code: &'static str, rejected: u32, records: u32 },
}

/// Recent rejections, as one partition counts them.
#[derive(Debug, Default)]
pub(crate) struct Tolerance {
    /// Rejected records since the last good one.
    run: u32,
    /// Good records that are not in the shares yet: they are added in groups, because partitions wait for each other.
    good: u32,
    shares: Shares,
}

impl Tolerance {
    /// The tolerance of one partition of several.
    pub(crate) fn of(shares: Shares) -> Self {
        Self { run: 0, good: 0, shares }
    }

    /// Counts a record that can be folded.
    pub(crate) fn fold(&mut self) {
        self.run = 0;
        self.good += 1;
    }

    /// Adds the good records to the shares.
    pub(crate) fn commit_good(&mut self, config: &Config) {
        if self.good > 0 {
            self.shares.lock().fold(std::mem::take(&mut self.good), config);
        }
    }

    /// Counts a rejected record, by the code of its first fault; an error if it is one too many.
    pub(crate) fn reject(&mut self, code: &'static str, config: &Config) -> Result<(), Excess> {
        let mut counts = self.shares.lock();
        counts.fold(std::mem::take(&mut self.good), config);
        if config.rejected_run_max > 0 && self.run >= config.rejected_run_max {
            return Err(Excess::Run(self.run));
        }
        counts.reject(code, config)?;
        self.run += 1;
        Ok(())
    }
}

impl Shares {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn fold(&mut self, records: u32, config: &Config) {
        self.all.count(records, config.rejected_window_records);
        self.coded.count(records, config.rejected_code_window_records);
    }

    fn reject(&mut self, code: &'static str, config: &Config) -> Result<(), Excess> {
        let percent_max = config.rejected_percent_max;
        let all = self.all.rejected.values().sum();
        if self.all.is_exceeded(all, percent_max, config.rejected_window_records) {
            return Err(Excess::Share { rejected: all, records: self.all.records });
        }
        let rejected = self.coded.rejected.get(code).copied().unwrap_or(0);
        if self.coded.is_exceeded(rejected, percent_max, config.rejected_code_window_records) {
            return Err(Excess::Code { code, rejected, records: self.coded.records });
        }
        self.all.reject(code, config.rejected_window_records);
        self.coded.reject(code, config.rejected_code_window_records);
        Ok(())
    }
}

impl Window {
    /// Whether one more rejected record would be too large a share. Too few records allow no conclusion.
    fn is_exceeded(&self, rejected: u32, percent_max: u32, window: u32) -> bool {
        let share = u64::from(rejected + 1) * 100;
        let records = u64::from(self.records + 1);
        percent_max < 100 && window > 0 && self.records >= window / 2 && share > records * u64::from(percent_max)
    }

    fn reject(&mut self, code: &'static str, window: u32) {
        *self.rejected.entry(code).or_default() += 1;
        self.count(1, window);
    }

    fn count(&mut self, mut records: u32, window: u32) {
        // A window of fewer than two records cannot be halved.
        let window = window.max(2);
        while records > 0 {
            let counted = records.min(window - self.records);
            self.records += counted;
            records -= counted;
            if self.records >= window {
                self.records /= 2;
                self.rejected.values_mut().for_each(|rejected| *rejected /= 2);
            }
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(records) => write!(f, "{records} records of the partition in a row were rejected"),
            Self::Share { rejected, records } => {
                write!(f, "{rejected} of the latest {records} records of the family were rejected")
            }
            Self::Code { code, rejected, records } => {
                write!(f, "{rejected} of the latest {records} records of the family were rejected with {code}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::codec::{INVALID_VALUE, MISSING_FIELD, WRONG_PARTITION};

    /// How many records of a history are accepted before one stops the partition, and why; `.` is a good record, and a
    /// letter is the code of a bad one. Consecutive records are in consecutive ones of `partitions` partitions.
    fn taken(config: &Config, partitions: usize, history: impl Iterator<Item = char>) -> Option<(usize, Excess)> {
        let shares = Shares::default();
        let mut tolerances: Vec<_> = (0..partitions).map(|_| Tolerance::of(shares.clone())).collect();
        history.enumerate().find_map(|(at, record)| {
            let tolerance = &mut tolerances[at % partitions];
            let code = match record {
                'w' => WRONG_PARTITION,
                'm' => MISSING_FIELD,
                'i' => INVALID_VALUE,
                _ => {
                    tolerance.fold();
                    tolerance.commit_good(config);
                    return None;
                }
            };
            tolerance.reject(code, config).err().map(|excess| (at, excess))
        })
    }

    fn repeated(pattern: &'static str, records: usize) -> impl Iterator<Item = char> {
        pattern.chars().cycle().take(records)
    }

    #[test]
    fn a_run_of_bad_records_and_a_large_share_of_them_are_too_many() {
        let config = Config {
            rejected_run_max: 5,
            rejected_percent_max: 50,
            rejected_window_records: 100,
            rejected_code_window_records: 0,
            ..Config::default()
        };
        let taken = |history: &mut dyn Iterator<Item = char>| super::tests::taken(&config, 1, history);
        assert_eq!(taken(&mut "wwwww.wwwww.".chars()), None, "five in a row may be");
        assert_eq!(taken(&mut ".wmwmwm".chars()), Some((6, Excess::Run(5))), "a sixth may not");
        assert_eq!(taken(&mut repeated(".w", 10_000)), None, "half of them may be bad");
        let share = Excess::Share { rejected: 34, records: 51 };
        assert_eq!(taken(&mut repeated("ww.", 10_000)), Some((51, share)), "two thirds may not, from half a window on");
        let faded = taken(&mut repeated(".", 10_000).chain(repeated("ww.", 10_000)));
        assert_eq!(faded.map(|(at, _)| at), Some(10_000 + 100), "old ones fade");
        let boundless = Config { rejected_run_max: 0, rejected_percent_max: 100, ..config.clone() };
        assert_eq!(super::tests::taken(&boundless, 1, repeated("w", 10_000)), None);
    }

    #[test]
    fn a_wrong_partitioner_stops_early_over_all_partitions() {
        // One of eight is right by chance.
        let wrong = || repeated("wwww.www", 20_000);
        let (at, excess) = taken(&Config::default(), 8, wrong()).expect("it stops");
        assert!(
            (500..520).contains(&at) && matches!(excess, Excess::Code { code: WRONG_PARTITION, .. }),
            "{at} {excess}"
        );
        let (at, _) = taken(&Config::default(), 8, repeated(".", 100_000).chain(wrong())).expect("it stops");
        assert!(at < 101_000, "{at}: also behind a long good history");
        let boundless = Config { rejected_run_max: 0, rejected_percent_max: 100, ..Config::default() };
        assert_eq!(taken(&boundless, 8, wrong()), None, "an operator has decided");
    }

    #[test]
    fn occasional_bad_records_and_a_mixed_stream_do_not_stop() {
        for mixed in ["w.........", "wm...", "w.m.i..", "..........wwwwwwwwww", "wmi...."] {
            assert_eq!(taken(&Config::default(), 8, repeated(mixed, 100_000)), None, "{mixed}");
        }
        let burst = repeated(".", 5_000).chain(repeated("w", 400)).chain(repeated(".", 5_000));
        assert_eq!(taken(&Config::default(), 8, burst), None, "a burst");
        let (at, excess) =
            taken(&Config::default(), 8, repeated("wmiwmi.", 100_000)).expect("the large share stops it");
        assert!((5_000..5_010).contains(&at) && matches!(excess, Excess::Share { .. }), "{at} {excess}");
    }
}
