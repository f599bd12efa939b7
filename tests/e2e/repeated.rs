//! Topics that contain every event several times, in order and from the past, while the process that folds them is
//! killed: repetitions change no row and no reminder.

use crate::deployment::{Deployment, Rows, assert_same};
use crate::process::{Service, WORKER};
use crate::story::Story;
use crate::stream::{Stream, report};
use foretell_domain::address::View;
use foretell_ports::clock::{Clock, System};

const LOGINS: u64 = 4_000;
const VISITS: u64 = 600;

/// The rows of logins.
async fn logins(deployment: &Deployment) -> Rows {
    let of_logins = |view: View| view.family() == View::User.family();
    deployment.rows().await.into_iter().filter(|((view, ..), _)| of_logins(*view)).collect()
}

/// Rows, and a summary, when each batch was sent this often and the process was killed this often.
async fn folded(now_ms: i64, times: usize, kills: u64) -> (Rows, String) {
    let deployment = Deployment::cluster();
    let mut worker = Service::ready(&deployment, &WORKER).await;
    let stream = Stream::open(&deployment, Story::new(now_ms, LOGINS, VISITS), times).await;
    for kill in 0..kills {
        stream.halt(&worker.process, (kill, kills), &stream.places()).await;
        worker.process.kill();
        worker = Service::start(&deployment, &WORKER);
    }
    let came = stream.end(&deployment, vec![worker.process]).await;
    (logins(&deployment).await, came)
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_full_of_repetitions_have_the_rows_and_reminders_of_those_without() {
    const TIMES: usize = 4;
    const KILLS: u64 = 3;
    let now_ms = System.now_ms();
    let ((once, _), (repeated, came)) = tokio::join!(folded(now_ms, 1, 0), folded(now_ms, TIMES, KILLS));
    assert_same(&once, &repeated);
    report(&format!("every batch sent {TIMES} times, with kill -9 in mid-fold {KILLS} times; {came}"));
}
