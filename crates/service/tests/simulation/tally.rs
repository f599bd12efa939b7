//! Counts the injected faults by kind, and whether anything was lost through them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

/// The kinds of faults of a process, a port or a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A call answers an error and has had no effect.
    Error,
    /// A call has its effect and answers an error.
    AnswerLost,
    /// A flush writes some of its rows and answers an error.
    TornFlush,
    /// A flush writes some of its rows, and the process ends.
    TornCrash,
    /// The process ends before a call has its effect.
    CrashBefore,
    /// The process ends when a call has had its effect.
    CrashAfter,
    /// The process ends wherever it is.
    Killed,
    /// A call takes up to 300 ms.
    Slow,
    /// All calls of a process wait, for up to 20 s, or up to an hour in runs over days; then it continues normally.
    Frozen,
    /// The dead-letters topic rejects everything for a while.
    LettersAway,
    /// The log rejects everything for a while.
    LogAway,
    /// The store rejects everything for a while.
    StoreAway,
    /// A connection to the log ends, and the partition is assigned again.
    Disconnected,
    /// Partitions move, and the new owner waits for the old one.
    MovedDrained,
    /// Partitions move, and the new owner does not wait.
    MovedAtOnce,
    /// Partitions move, and the old owner is not notified for a while.
    MovedUnnoticed,
    /// An event is appended again.
    Repeated,
    /// An offset has no record.
    Hole,
    /// Letters are redriven while the views are folded.
    Redrive,
    /// A redrive is interrupted.
    RedriveCut,
    /// The views are rebuilt, or a rebuild is cancelled.
    Rebuild,
    /// A rebuild is interrupted.
    RebuildCut,
    /// A flush of a process that has lost its partition.
    LateFlush,
    /// A flush whose checkpoint is above that of the new owner.
    LatePassed,
}

impl Kind {
    /// Faults of processes and ports.
    pub const INJECTED: [Self; 20] = [
        Self::Error,
        Self::AnswerLost,
        Self::TornFlush,
        Self::TornCrash,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Killed,
        Self::Slow,
        Self::Frozen,
        Self::LettersAway,
        Self::LogAway,
        Self::StoreAway,
        Self::Disconnected,
        Self::MovedDrained,
        Self::MovedAtOnce,
        Self::MovedUnnoticed,
        Self::Redrive,
        Self::RedriveCut,
        Self::Rebuild,
        Self::RebuildCut,
    ];
    /// Properties of the log, and effects of faults: reported, but not added up.
    pub const BESIDE: [Self; 4] = [Self::Repeated, Self::Hole, Self::LateFlush, Self::LatePassed];

    const fn text(self) -> &'static str {
        match self {
            Self::Error => "error, without effect",
            Self::AnswerLost => "error, with effect",
            Self::TornFlush => "error, flush torn",
            Self::TornCrash => "crash, flush torn",
            Self::CrashBefore => "crash before the effect",
            Self::CrashAfter => "crash after the effect",
            Self::Killed => "process killed",
            Self::Slow => "slow answer",
            Self::Frozen => "process frozen",
            Self::LettersAway => "dead-letters topic unavailable",
            Self::LogAway => "log unavailable",
            Self::StoreAway => "store unavailable",
            Self::Disconnected => "connection ended",
            Self::MovedDrained => "rebalance, drained",
            Self::MovedAtOnce => "rebalance, not waited for",
            Self::MovedUnnoticed => "rebalance, unnoticed",
            Self::Repeated => "event repeated",
            Self::Hole => "gap in the offsets",
            Self::Redrive => "letters redriven",
            Self::RedriveCut => "redrive interrupted",
            Self::Rebuild => "rebuild started or abandoned",
            Self::RebuildCut => "rebuild interrupted",
            Self::LateFlush => "flush of a late writer",
            Self::LatePassed => "late checkpoint passes",
        }
    }
}

/// Where a fault was injected: component and call.
type Place = (&'static str, &'static str);

/// How often each fault was injected, and what was checked afterwards.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(Kind, Place), u64>,
    lost: BTreeMap<Kind, u64>,
    checked: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn count(&mut self, kind: Kind, who: &'static str, operation: &'static str) {
        *self.counts.entry((kind, (who, operation))).or_default() += 1;
    }

    /// Counts checks.
    pub fn checked(&mut self, what: &'static str, number: usize) {
        *self.checked.entry(what).or_default() += number as u64;
    }

    /// Adds a run; a difference counts for every kind that occurred in it.
    pub fn add(&mut self, run: &Self, is_lost: bool) {
        for (at, count) in &run.counts {
            *self.counts.entry(*at).or_default() += count;
        }
        for kind in run.counts.keys().map(|(kind, _)| *kind).collect::<std::collections::BTreeSet<_>>() {
            *self.lost.entry(kind).or_default() += u64::from(is_lost);
        }
        for (what, number) in &run.checked {
            *self.checked.entry(what).or_default() += number;
        }
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.counts.iter().filter(|((k, _), _)| *k == kind).map(|(_, count)| count).sum()
    }

    /// How often a component's process ended at a call.
    pub fn crashes_at(&self, who: &str, operation: &str) -> u64 {
        let crash = |kind: Kind| matches!(kind, Kind::CrashBefore | Kind::CrashAfter | Kind::TornCrash);
        let here = |((kind, place), _): &(&(Kind, Place), &u64)| crash(*kind) && *place == (who, operation);
        self.counts.iter().filter(here).map(|(_, count)| count).sum()
    }

    pub fn seen(&self, what: &str) -> u64 {
        self.checked.get(what).copied().unwrap_or(0)
    }

    pub fn injected(&self) -> u64 {
        Kind::INJECTED.iter().map(|kind| self.of(*kind)).sum()
    }

    /// Bypasses the test's capture of its output: the figures belong in every report of a run.
    pub fn print(&self, title: &str) {
        let _ = writeln!(std::io::stderr(), "\n{title}\n{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, kind: Kind| {
            let lost = self.lost.get(&kind).copied().unwrap_or(0);
            writeln!(f, "| {:<26} | {:>8} | {:>4} |", kind.text(), self.of(kind), lost)
        };
        writeln!(f, "| {:<26} | {:>8} | {:>4} |", "fault", "injected", "lost")?;
        writeln!(f, "|{:-<28}|{:->9}:|{:->5}:|", "", "", "")?;
        for kind in Kind::INJECTED.into_iter().filter(|kind| self.of(*kind) > 0) {
            line(f, kind)?;
        }
        writeln!(
            f,
            "| {:<26} | {:>8} | {:>4} |",
            "all of them",
            self.injected(),
            self.lost.values().max().unwrap_or(&0)
        )?;
        for kind in Kind::BESIDE.into_iter().filter(|kind| self.of(*kind) > 0) {
            line(f, kind)?;
        }
        let checked: Vec<_> = self.checked.iter().map(|(what, number)| format!("{number} {what}")).collect();
        write!(f, "checked: {}", checked.join(", "))
    }
}
