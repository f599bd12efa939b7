//! How many rejections are still the fault of records, and from when on they are the fault of something else.
//!
//! A bad record is a dead letter. A topic of nothing but bad records is a producer that was broken, or a version that
//! does not understand them: to go on would only move the topic into the dead letters. So a partition stops where too
//! many in a row are rejected, or too large a share of the latest ones, and somebody decides.

use super::Config;

/// What was rejected of late.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tolerance {
    /// Rejected records since the last good one.
    run: u32,
    /// Records, and those of them that were rejected; both are halved when there are as many as the window has.
    records: u32,
    rejected: u32,
}

impl Tolerance {
    /// Counts a record that can be folded.
    pub(crate) fn fold(&mut self, config: &Config) {
        self.run = 0;
        self.count(config);
    }

    /// Counts a record that is rejected, unless that would be one too many.
    pub(crate) fn reject(&mut self, config: &Config) -> bool {
        let (run_max, percent_max) = (config.rejected_run_max, config.rejected_percent_max);
        let share = u64::from(self.rejected + 1) * 100;
        let is_run = run_max > 0 && self.run >= run_max;
        // Of few records nothing can be said.
        let is_share = percent_max < 100
            && self.records >= config.rejected_window_records / 2
            && share > u64::from(self.records + 1) * u64::from(percent_max);
        if is_run || is_share {
            return false;
        }
        self.run += 1;
        self.rejected += 1;
        self.count(config);
        true
    }

    fn count(&mut self, config: &Config) {
        self.records += 1;
        if self.records >= config.rejected_window_records {
            self.records /= 2;
            self.rejected /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records of a history are taken before one is refused; `x` is a bad one.
    fn taken(config: &Config, history: impl Iterator<Item = char>) -> Option<usize> {
        let mut tolerance = Tolerance::default();
        history.enumerate().find_map(|(at, record)| {
            let is_taken = match record {
                'x' => tolerance.reject(config),
                _ => {
                    tolerance.fold(config);
                    true
                }
            };
            (!is_taken).then_some(at)
        })
    }

    #[test]
    fn a_run_of_bad_records_and_a_large_share_of_them_are_too_many() {
        let config =
            Config { rejected_run_max: 5, rejected_percent_max: 50, rejected_window_records: 100, ..Config::default() };
        let repeated = |pattern: &'static str| pattern.chars().cycle().take(10_000);
        assert_eq!(taken(&config, "xxxxx.xxxxx.".chars()), None, "five in a row may be");
        assert_eq!(taken(&config, ".xxxxxx".chars()), Some(6), "a sixth may not");
        assert_eq!(taken(&config, repeated(".x")), None, "half of them may be bad");
        assert_eq!(taken(&config, repeated("xx.")), Some(51), "two thirds may not, once there is half a window");
        assert_eq!(taken(&config, repeated("..........").chain(repeated("xx."))), Some(10_000 + 100), "old ones fade");
        let boundless = Config { rejected_run_max: 0, rejected_percent_max: 100, ..config };
        assert_eq!(taken(&boundless, repeated("x")), None);
    }
}
