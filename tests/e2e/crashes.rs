//! Kill -9 at any moment: of the service that folds, and of the process that imports. Afterwards the rows are those of
//! an undisturbed run.
//!
//! The moments are drawn from a seed, as a share of the file that must be in the log; a few additional milliseconds,
//! drawn as well, move them away from the boundary of a batch.

use crate::deployment::{Deployment, Rows, assert_same};
use crate::facts;
use crate::process::{Process, Service, free_port, until};
use foretell_events::Topic;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOGINS: u64 = 10_000;
const VISITS: u64 = 4_000;

/// The files of every test here: kind, path, and events.
struct Files {
    of: [(&'static str, PathBuf, u64); 2],
}

impl Files {
    fn new(deployment: &Deployment) -> Self {
        let (logins, visits) = (deployment.scratch_file("logins.jsonl"), deployment.scratch_file("visits.jsonl"));
        facts::write_logins(&logins, LOGINS);
        facts::write_visits(&visits, VISITS);
        let events = |path: &Path| std::fs::read_to_string(path).expect("written").lines().count() as u64;
        Self { of: [("logins", logins.clone(), events(&logins)), ("appointments", visits.clone(), events(&visits))] }
    }

    fn import<'a>(kind: &'a str, path: &'a Path) -> [&'a str; 5] {
        ["import", kind, path.to_str().expect("text"), "--format", "events"]
    }

    /// The rows of an undisturbed run.
    async fn undisturbed(&self) -> Rows {
        let deployment = Deployment::disk();
        for (kind, path, _) in &self.of {
            deployment.output(&Self::import(kind, path));
        }
        folded(&deployment).await
    }
}

/// The rows after everything is folded.
async fn folded(deployment: &Deployment) -> Rows {
    Service::ready(deployment, &[]).await.process.stop().await;
    assert_eq!(deployment.records(Topic::DeadLetters).await, 0, "every event was folded");
    deployment.rows().await
}

/// The events that are in the log according to the only unfinished journal in a directory; 0 if there is no journal.
fn journalled(directory: &Path, total: u64) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten();
    let journals = files.filter_map(|file| {
        let path = file.ok()?.path();
        let text = std::fs::read(path.extension()?.eq("json").then_some(&path)?).ok()?;
        let journal: Value = serde_json::from_slice(&text).expect("a journal is whole at any time");
        (journal["total"] == total).then(|| journal["done"].as_u64().expect("a number"))
    });
    journals.max().unwrap_or(0)
}

/// Waits until a drawn share of the file is in the log, `round` of `rounds`, and a few milliseconds more. On a busy
/// machine the import may have ended before.
async fn moment(directory: &Path, import: &mut Process, total: u64, (round, rounds): (u64, u64)) {
    let share = total * 8 / 10 / rounds;
    let at = share * round + facts::drawn(total, round, share);
    until("a part of the file is in the log", async || {
        (import.ended().is_some() || journalled(directory, total) > at).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(facts::drawn(total + 1, round, 8))).await;
}

async fn survives_kills_of_the_service(deployment: Deployment) {
    const KILLS: u64 = 2;
    let files = Files::new(&deployment);
    let port = free_port();
    let mut service = Service::at(&deployment, port, &[]);
    service.until_ready().await;
    for (kind, path, total) in &files.of {
        let url = service.url.clone();
        let arguments = [&Files::import(kind, path)[..], &["--to", &url]].concat();
        let mut import = Process::start(&deployment, deployment.command(&arguments));
        let journals = deployment.scratch().join(".local/state/foretell/imports");
        for round in 0..KILLS {
            moment(&journals, &mut import, *total, (round, KILLS)).await;
            service.process.kill();
            service = Service::at(&deployment, port, &[]);
        }
        assert_eq!(import.end().await.code(), Some(0), "{}", import.stderr());
        assert!(import.stdout().starts_with(&format!("{total} events appended")), "{}", import.stdout());
    }
    service.until_ready().await;
    service.process.stop().await;
    for (topic, (_, _, total)) in [Topic::Logins, Topic::Appointments].into_iter().zip(&files.of) {
        let records = deployment.records(topic).await as u64;
        assert!((*total..=total + KILLS * 1_000).contains(&records), "{records}: a batch a kill may be there twice");
    }
    assert_same(&files.undisturbed().await, &folded(&deployment).await);
    let output = deployment.output(&["verify"]);
    assert!(output.ends_with("; 0 differ\n"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_again_and_again_has_the_rows_of_one_that_was_not() {
    survives_kills_of_the_service(Deployment::disk()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_again_and_again_on_the_clusters_has_the_rows_of_one_that_was_not() {
    survives_kills_of_the_service(Deployment::cluster()).await;
}

async fn survives_kills_of_the_import(deployment: Deployment, journals: PathBuf) {
    const KILLS: u64 = 3;
    let files = Files::new(&deployment);
    for ((kind, path, total), topic) in files.of.iter().zip([Topic::Logins, Topic::Appointments]) {
        let arguments = Files::import(kind, path);
        let mut interruptions = 0;
        for round in 0..KILLS {
            let mut import = Process::start(&deployment, deployment.command(&arguments));
            moment(&journals, &mut import, *total, (round, KILLS)).await;
            let killed = import.kill_if_running();
            interruptions += u64::from(killed && (1..*total).contains(&journalled(&journals, *total)));
        }
        let before = journalled(&journals, *total);
        assert!(interruptions > 0, "{before} of {total}: it was interrupted in between");
        let output = deployment.output(&arguments);
        let resumed = format!("{} events appended, {before} already present", total - before);
        assert!(output.starts_with(&resumed), "{output}: {resumed}");
        let records = deployment.records(topic).await;
        assert!((*total..=total + KILLS * 1_000).contains(&(records as u64)), "{records} of {total}");
        let output = deployment.output(&arguments);
        assert!(output.starts_with(&format!("0 events appended, {total} already present")), "{output}");
        assert_eq!(deployment.records(topic).await, records, "a finished file is not appended again");
    }
    assert_same(&files.undisturbed().await, &folded(&deployment).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let deployment = Deployment::disk();
    let journals = deployment.scratch().join("data/imports");
    survives_kills_of_the_import(deployment, journals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_the_clusters_that_is_killed_goes_on_where_it_was() {
    let deployment = Deployment::cluster();
    let journals = deployment.scratch().join(".local/state/foretell/imports");
    survives_kills_of_the_import(deployment, journals).await;
}
