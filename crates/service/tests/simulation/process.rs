//! A process: a task, and the switch that its own crashes press.

use foretell_ports::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::conditions::ProcessFaults;

pub struct Process {
    task: JoinHandle<Result<(), Error>>,
    killed: CancellationToken,
    faults: ProcessFaults,
}

impl Process {
    /// Starts it; its pending call is dropped at a crash, wherever it is.
    pub fn start(faults: ProcessFaults, run: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        let killed = faults.killed.clone();
        let end = killed.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => Ok(()),
                ended = run => ended,
            }
        });
        Self { task, killed, faults }
    }

    /// Ends it, and returns how it had ended if it had by itself.
    pub async fn kill(self) -> Option<String> {
        self.killed.cancel();
        match self.task.await {
            Ok(Err(error)) => Some(format!("a process ended: {error}")),
            Err(panic) => Some(format!("a process panicked: {panic}")),
            Ok(Ok(())) => None,
        }
    }

    pub fn number(&self) -> usize {
        self.faults.number
    }

    pub fn freeze(&self, ms: u64) {
        self.faults.freeze(ms);
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}
