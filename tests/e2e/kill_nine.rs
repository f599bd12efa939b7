//! Kill -9 of the process that folds and announces, again and again, each time in the middle of a fold.

use crate::deployment::Deployment;
use crate::process::{Service, WORKER};
use crate::story::Story;
use crate::stream::{Stream, report};
use foretell_ports::clock::{Clock, System};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_twenty_times_in_the_middle_of_a_fold_loses_and_repeats_nothing() {
    const KILLS: u64 = 20;
    let deployment = Deployment::cluster();
    let mut worker = Service::ready(&deployment, &WORKER).await;
    let stream = Stream::open(&deployment, Story::new(System.now_ms(), 12_000, 2_000), 1).await;
    let mut torn = 0;
    for kill in 0..KILLS {
        // Stopped for the read that determines its position, so that it is killed exactly there.
        let at = stream.halt(&worker.process, (kill, KILLS), &stream.places()).await;
        worker.process.kill();
        torn += u64::from(!stream.ahead(&at).await.is_empty());
        worker = Service::start(&deployment, &WORKER);
    }
    // A fold could lose or repeat something between a row and its checkpoint: some of the kills must have hit there.
    assert!(torn > 0, "none of {KILLS} kills left rows ahead of their checkpoint");
    let came = stream.end(&deployment, vec![worker.process]).await;
    report(&format!("kill -9 in mid-fold {KILLS} times, {torn} of them between rows and checkpoint; {came}"));
}
