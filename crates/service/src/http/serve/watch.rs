//! How long a connection may be idle.
//!
//! A connection is busy while one of its requests is being answered, until the answer is handed over, and idle
//! otherwise, whatever it sends meanwhile: nothing, half a head, pings, settings. It may be idle for
//! [`Patience::head`] until its first request, and for [`Patience::idle`] between two requests. Only the complete head
//! of a request ends an idle period, so the rule does not depend on the state of a protocol. How long a connection may
//! be busy is bounded by the time limits of a request, its body, and writing its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a connection may be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// From the start of the connection to the end of the first head of a request.
    pub(super) head: Duration,
    /// From an answer to the end of the next head of a request.
    pub(super) idle: Duration,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It was idle for too long.
    Quiet,
    /// Another connection needs its slot.
    Evicted,
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    state: Mutex<State>,
    evicted: Notify,
}

#[derive(Debug)]
struct State {
    /// Requests whose answers have not been handed over.
    open: usize,
    /// Since when it is idle, if it is.
    since: Instant,
    /// Whether it has sent a request.
    is_used: bool,
}

/// A request that is being answered; dropped when its answer has been handed over.
#[derive(Debug)]
pub(super) struct Open(Arc<Watch>);

impl Watch {
    /// A connection that starts now.
    pub(super) fn new(patience: Patience) -> Arc<Self> {
        let state = Mutex::new(State { open: 0, since: Instant::now(), is_used: false });
        Arc::new(Self { patience, state, evicted: Notify::new() })
    }

    /// A request has been received.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        let mut state = self.state();
        state.open += 1;
        state.is_used = true;
        Open(self.clone())
    }

    /// Until when it may be idle; none while it is busy.
    pub(super) fn quiet_until(&self) -> Option<Instant> {
        let state = self.state();
        let patience = if state.is_used { self.patience.idle } else { self.patience.head };
        (state.open == 0).then(|| state.since + patience)
    }

    /// Whether it has never sent a request.
    pub(super) fn is_new(&self) -> bool {
        !self.state().is_used
    }

    /// Ends it, because another connection needs its slot.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Waits until the connection has to be closed.
    pub(super) async fn over(&self) -> Over {
        tokio::select! {
            () = self.quiet() => Over::Quiet,
            () = self.evicted() => Over::Evicted,
        }
    }

    /// Waits until another connection needs its slot.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Waits until no request has been open for this long, counted from now at the earliest.
    pub(super) async fn at_rest(&self, rest: Duration) {
        let begun = Instant::now();
        let until = || {
            let state = self.state();
            (state.open == 0).then(|| state.since.max(begun) + rest)
        };
        passed(until, rest).await;
    }

    async fn quiet(&self) {
        passed(|| self.quiet_until(), self.patience.idle).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a time has passed that may change, and that is unknown while a request is open; it is at least
/// `shortest` after the end of that request.
async fn passed(instant: impl Fn() -> Option<Instant>, shortest: Duration) {
    loop {
        let now = Instant::now();
        match instant() {
            Some(until) if until <= now => return,
            Some(until) => sleep_until(until).await,
            None => sleep_until(now + shortest.max(Duration::from_millis(1))).await,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0 {
            state.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    async fn over_after(watch: &Watch) -> (Over, Duration) {
        let begun = Instant::now();
        (watch.over().await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_over_after_the_time_of_a_head() {
        let watch = Watch::new(PATIENCE);
        assert_eq!(over_after(&watch).await, (Over::Quiet, PATIENCE.head));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_the_idle_time_and_a_busy_connection_has_none() {
        let watch = Watch::new(PATIENCE);
        let (first, second) = (watch.open(), watch.open());
        advance(Duration::from_secs(1_000)).await;
        assert_eq!(watch.quiet_until(), None);
        drop(first);
        assert_eq!(watch.quiet_until(), None, "the other one is not answered yet");
        let answered = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(second);
            Instant::now()
        };
        let (over, answered_at) = tokio::join!(watch.over(), answered);
        assert_eq!((over, Instant::now()), (Over::Quiet, answered_at + PATIENCE.idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_at_rest_when_no_request_was_open_for_so_long() {
        let watch = Watch::new(PATIENCE);
        advance(PATIENCE.idle).await;
        let (begun, rest) = (Instant::now(), Duration::from_secs(1));
        watch.at_rest(rest).await;
        assert_eq!(begun.elapsed(), rest, "the quiet time before does not count");
        let open = watch.open();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(open);
            Instant::now()
        };
        let ((), answered_at) = tokio::join!(watch.at_rest(rest), answered);
        assert_eq!(answered_at.elapsed(), rest, "a request that came in between has its own time");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evicted_connection_is_over_at_once() {
        let watch = Watch::new(PATIENCE);
        watch.evict();
        assert_eq!(over_after(&watch).await, (Over::Evicted, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_idle_time_the_first_answer_is_the_last() {
        let watch = Watch::new(Patience { idle: Duration::ZERO, ..PATIENCE });
        drop(watch.open());
        assert_eq!(over_after(&watch).await, (Over::Quiet, Duration::ZERO));
    }
}
