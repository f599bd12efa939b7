//! Retries: the pauses between attempts, and the loop that makes them.
//!
//! A port reports a transient failure as [`Kind::Retry`], and its caller waits and tries again. [`retry`] is that loop
//! for one operation. A loop that does more than repeat one operation, such as a planner's, takes its pauses from
//! [`Backoff::pauses`]. The pauses are exact and without jitter, so that a simulation with virtual time is
//! deterministic.

use crate::{Error, Kind};
use std::time::Duration;
use tokio::time::sleep;

/// The pauses between attempts: each is twice as long as the previous one, up to a maximum.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    retries_max: usize,
}

impl Backoff {
    /// Pauses that double from `first` to `longest`, for any number of retries.
    pub const fn doubling(first: Duration, longest: Duration) -> Self {
        Self { first, longest, retries_max: usize::MAX }
    }

    /// Equal pauses, for any number of retries.
    pub const fn constant(pause: Duration) -> Self {
        Self::doubling(pause, pause)
    }

    /// Ends [`retry`] after this many retries: with the first attempt, one attempt more.
    #[must_use]
    pub const fn at_most(self, retries_max: usize) -> Self {
        Self { retries_max, ..self }
    }

    /// The pauses of a loop that counts its own attempts. They never end.
    pub const fn pauses(self) -> Pauses {
        Pauses { backoff: self, next: self.first }
    }
}

/// The pauses of one loop.
#[derive(Debug)]
pub struct Pauses {
    backoff: Backoff,
    next: Duration,
}

impl Pauses {
    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.backoff.longest);
        pause
    }

    /// Starts again with the first pause, after an attempt that succeeded.
    pub const fn reset(&mut self) {
        self.next = self.backoff.first;
    }
}

/// Runs an operation until it succeeds, fails with an error of another kind than Retry, or has used up its retries;
/// then returns its last result. Before each pause `notify` receives the error and the pause.
pub async fn retry<T, Fut>(
    backoff: Backoff,
    notify: impl FnMut(&Error, Duration),
    operation: impl FnMut() -> Fut,
) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    retry_if(backoff, |error: &Error| error.kind == Kind::Retry, notify, operation).await
}

/// The same for any error: `is_transient` decides which errors are retried.
pub async fn retry_if<T, E, Fut>(
    backoff: Backoff,
    is_transient: impl Fn(&E) -> bool,
    mut notify: impl FnMut(&E, Duration),
    mut operation: impl FnMut() -> Fut,
) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let (mut pauses, mut retries) = (backoff.pauses(), 0);
    loop {
        match operation().await {
            Err(error) if retries < backoff.retries_max && is_transient(&error) => {
                retries += 1;
                let pause = pauses.pause();
                notify(&error, pause);
                sleep(pause).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::time::Instant;

    const TEN: Duration = Duration::from_millis(10);
    const TO_FIFTY: Backoff = Backoff::doubling(TEN, Duration::from_millis(50));

    /// Fails with `kind` so often, then succeeds. Returns the result, the attempts, and the pauses in milliseconds.
    async fn attempts(backoff: Backoff, kind: Kind, failures: u32) -> (Result<u32, Kind>, u32, Vec<u128>) {
        let (attempts, mut pauses) = (Cell::new(0), Vec::new());
        let began = Instant::now();
        let operation = || {
            attempts.set(attempts.get() + 1);
            let attempt = attempts.get();
            async move {
                match attempt > failures {
                    true => Ok(attempt),
                    false => Err(Error { kind, operation: "test", detail: attempt.to_string() }),
                }
            }
        };
        let result = retry(backoff, |_, pause| pauses.push(pause.as_millis()), operation).await;
        assert_eq!(began.elapsed().as_millis(), pauses.iter().sum::<u128>(), "it waits as long as it reports");
        (result.map_err(|error| error.kind), attempts.get(), pauses)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_never_end() {
        let (result, attempts, pauses) = attempts(TO_FIFTY, Kind::Retry, 100).await;
        assert_eq!((result, attempts, pauses.len()), (Ok(101), 101, 100));
        assert_eq!(pauses[..5], [10, 20, 40, 50, 50]);
        assert_eq!(pauses[5..], [50; 95]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_transient_errors_are_retried() {
        for kind in [Kind::Reject, Kind::Fatal] {
            assert_eq!(attempts(TO_FIFTY, kind, 1).await, (Err(kind), 1, vec![]));
        }
        assert_eq!(attempts(TO_FIFTY, Kind::Retry, 0).await, (Ok(1), 1, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limited_number_of_retries_ends_with_the_last_error() {
        let limited = Backoff::constant(TEN).at_most(3);
        assert_eq!(attempts(limited, Kind::Retry, 9).await, (Err(Kind::Retry), 4, vec![10; 3]));
        assert_eq!(attempts(limited, Kind::Retry, 3).await, (Ok(4), 4, vec![10; 3]));
        assert_eq!(attempts(limited.at_most(0), Kind::Retry, 9).await, (Err(Kind::Retry), 1, vec![]));
    }

    #[test]
    fn the_pauses_of_a_loop_start_again_after_a_success() {
        let mut pauses = TO_FIFTY.at_most(1).pauses();
        let mut next = || pauses.pause().as_millis();
        assert_eq!([next(), next(), next(), next(), next()], [10, 20, 40, 50, 50]);
        pauses.reset();
        assert_eq!(pauses.pause(), TEN);
    }

    /// A maximum below the first pause, as a small `pipeline.retry_ms_max` is, shortens the later pauses.
    #[test]
    fn the_longest_pause_may_be_shorter_than_the_first() {
        let mut pauses = Backoff::doubling(TEN, Duration::from_millis(1)).pauses();
        let next: Vec<_> = (0..3).map(|_| pauses.pause().as_millis()).collect();
        assert_eq!(next, [10, 1, 1]);
    }
}
