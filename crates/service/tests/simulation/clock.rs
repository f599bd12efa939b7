//! Virtual time: a paused runtime, and the clock that runs with it.

use foretell_ports::clock::Clock;
use tokio::time::Instant;

/// 1 June 2026, 09:00 UTC.
pub const BEGIN_MS: i64 = 1_780_304_400_000;

/// A clock that does not move while any task is runnable.
pub struct Virtual(Instant);

impl Virtual {
    pub fn begin() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Virtual {
    fn now_ms(&self) -> i64 {
        BEGIN_MS + self.0.elapsed().as_millis() as i64
    }
}

/// Runs on a paused runtime of its own: one thread, no time but the virtual one.
pub fn paused<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run)
}
