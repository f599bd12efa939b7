//! How long a connection may be idle.
//!
//! A connection is busy while one of its requests is being answered, until the answer is handed over, and idle
//! otherwise, whatever it sends meanwhile: nothing, half a head, pings, settings. It may be idle for
//! [`ConnectionTimeouts::head`] until its first request, and for [`ConnectionTimeouts::idle`] between two requests.
//! Only the complete head of a request ends an idle period, so the rule does not depend on the state of a protocol. How
//! long a connection may be busy is bounded by the time limits of a request, its body, and writing its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a connection may be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionTimeouts {
    /// From the start of the connection to the end of the first head of a request.
    pub(super) head: Duration,
    /// From an answer to the end of the next head of a request.
    pub(super) idle: Duration,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// It was idle for too long.
    Idle,
    /// Another connection needs its slot.
    Evicted,
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Watch {
    timeouts: ConnectionTimeouts,
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
pub(super) struct OpenRequest(Arc<Watch>);

impl Watch {
    /// A connection that starts now.
    pub(super) fn new(timeouts: ConnectionTimeouts) -> Arc<Self> {
        let state = Mutex::new(State { open: 0, since: Instant::now(), is_used: false });
        Arc::new(Self { timeouts, state, evicted: Notify::new() })
    }

    /// A request has been received.
    pub(super) fn open(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state();
        state.open += 1;
        state.is_used = true;
        OpenRequest(self.clone())
    }

    /// Until when it may be idle; none while it is busy.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        let state = self.state();
        let timeout = if state.is_used { self.timeouts.idle } else { self.timeouts.head };
        (state.open == 0).then(|| state.since + timeout)
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
    pub(super) async fn close_reason(&self) -> CloseReason {
        tokio::select! {
            () = self.idle() => CloseReason::Idle,
            () = self.evicted() => CloseReason::Evicted,
        }
    }

    /// Waits until another connection needs its slot.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Waits until no request has been open for this long, counted from now at the earliest.
    pub(super) async fn idle_for(&self, rest: Duration) {
        let begun = Instant::now();
        let until = || {
            let state = self.state();
            (state.open == 0).then(|| state.since.max(begun) + rest)
        };
        passed(until, rest).await;
    }

    async fn idle(&self) {
        passed(|| self.idle_until(), self.timeouts.idle).await;
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

impl Drop for OpenRequest {
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

    const TIMEOUTS: ConnectionTimeouts =
        ConnectionTimeouts { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    async fn closed_after(watch: &Watch) -> (CloseReason, Duration) {
        let begun = Instant::now();
        (watch.close_reason().await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_over_after_the_time_of_a_head() {
        let watch = Watch::new(TIMEOUTS);
        assert_eq!(closed_after(&watch).await, (CloseReason::Idle, TIMEOUTS.head));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_the_idle_time_and_a_busy_connection_has_none() {
        let watch = Watch::new(TIMEOUTS);
        let (first, second) = (watch.open(), watch.open());
        advance(Duration::from_secs(1_000)).await;
        assert_eq!(watch.idle_until(), None);
        drop(first);
        assert_eq!(watch.idle_until(), None, "the other one is not answered yet");
        let answered = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(second);
            Instant::now()
        };
        let (over, answered_at) = tokio::join!(watch.close_reason(), answered);
        assert_eq!((over, Instant::now()), (CloseReason::Idle, answered_at + TIMEOUTS.idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_at_rest_when_no_request_was_open_for_so_long() {
        let watch = Watch::new(TIMEOUTS);
        advance(TIMEOUTS.idle).await;
        let (begun, rest) = (Instant::now(), Duration::from_secs(1));
        watch.idle_for(rest).await;
        assert_eq!(begun.elapsed(), rest, "the idle time before does not count");
        let open = watch.open();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(open);
            Instant::now()
        };
        let ((), answered_at) = tokio::join!(watch.idle_for(rest), answered);
        assert_eq!(answered_at.elapsed(), rest, "a request that came in between has its own time");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evicted_connection_is_over_at_once() {
        let watch = Watch::new(TIMEOUTS);
        watch.evict();
        assert_eq!(closed_after(&watch).await, (CloseReason::Evicted, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_idle_time_the_first_answer_is_the_last() {
        let watch = Watch::new(ConnectionTimeouts { idle: Duration::ZERO, ..TIMEOUTS });
        drop(watch.open());
        assert_eq!(closed_after(&watch).await, (CloseReason::Idle, Duration::ZERO));
    }
}
