//! Wakes a poll thread. The thread waits for nothing else.
//!
//! librdkafka raises the signal when a queue gets its first message, readers when they have free capacity, and the
//! answer to a request when it arrives. A signal that is raised while the thread does not wait is kept, so none is lost
//! between checking and waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A flag that a thread can wait for.
#[derive(Default)]
pub(super) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Wakes the thread, now or at its next wait.
    pub(super) fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until the signal is raised, for at most the given time, and resets it.
    pub(super) fn wait(&self, at_most: Duration) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(raised, at_most, |raised| !*raised);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// The answer, if it has arrived or can no longer arrive in time; otherwise it will raise the signal.
    pub(super) fn poll<T>(
        self: &Arc<Self>,
        receiver: &mut oneshot::Receiver<T>,
        deadline: Instant,
    ) -> Option<QueryOutcome<T>> {
        let waker = Waker::from(Arc::clone(self));
        match Pin::new(receiver).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(value)) => Some(QueryOutcome::Given(value)),
            Poll::Ready(Err(_)) => Some(QueryOutcome::Refused),
            Poll::Pending => (Instant::now() >= deadline).then_some(QueryOutcome::Late),
        }
    }

    /// Waits for an answer until `deadline`, and calls `meanwhile` at each wake-up.
    pub(super) fn answer<T>(
        self: &Arc<Self>,
        receiver: &mut oneshot::Receiver<T>,
        deadline: Instant,
        mut meanwhile: impl FnMut(),
    ) -> QueryOutcome<T> {
        loop {
            if let Some(answer) = self.poll(receiver, deadline) {
                return answer;
            }
            meanwhile();
            self.wait(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueryOutcome<T> {
    /// The answer.
    Given(T),
    /// The sender was dropped.
    Refused,
    /// The deadline has passed.
    Late,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_before_the_wait_is_kept_and_used_up() {
        let signal = Signal::default();
        signal.raise();
        let start = Instant::now();
        signal.wait(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30), "the signal was lost");
        signal.wait(Duration::from_millis(1));
    }

    #[test]
    fn answers_come_from_other_threads_or_not_at_all() {
        let signal = Arc::new(Signal::default());
        let far = Instant::now() + Duration::from_secs(60);

        let (sender, mut receiver) = oneshot::channel();
        let thread = std::thread::spawn(move || sender.send(7));
        assert_eq!(signal.answer(&mut receiver, far, || ()), QueryOutcome::Given(7));
        assert!(thread.join().is_ok_and(|sent| sent.is_ok()));

        let (sender, mut receiver) = oneshot::channel::<i64>();
        drop(sender);
        assert_eq!(signal.answer(&mut receiver, far, || ()), QueryOutcome::Refused);

        let (sender, mut receiver) = oneshot::channel::<i64>();
        assert_eq!(signal.answer(&mut receiver, Instant::now(), || ()), QueryOutcome::Late);
        drop(sender);
    }
}
