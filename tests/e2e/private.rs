//! What an instance writes is for its own user alone, whatever the umask of the shell that started it.

use crate::deployment::{Deployment, stderr};
use crate::facts;
use crate::process::{Service, until};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Everything below a directory, itself included, as mode and path.
fn modes(at: &Path) -> Vec<(u32, String)> {
    let metadata = std::fs::symlink_metadata(at).expect("metadata");
    let mut found = vec![(metadata.mode() & 0o777, at.display().to_string())];
    if metadata.is_dir() {
        let entries = std::fs::read_dir(at).expect("a directory").map(|entry| entry.expect("an entry").path());
        found.extend(entries.flat_map(|path| modes(&path)));
    }
    found
}

#[tokio::test]
async fn files_of_a_data_directory_and_of_its_backup_are_for_their_owner_alone() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("logins.jsonl");
    facts::write_logins(&file, 100);
    deployment.output(&["import", "logins", file.to_str().expect("text"), "--format", "events"]);
    let service = Service::ready(&deployment, &[]).await;
    service
        .fold(&[facts::event(
            "1",
            "login.succeeded",
            1_767_225_600_000,
            &serde_json::json!({"user_id": "ada", "ip": "192.0.2.1"}),
        )])
        .await;
    let copy = deployment.scratch().join("copy");
    deployment.output(&["backup", copy.to_str().expect("text")]);
    let data = deployment.scratch().join("data");
    let found = [modes(&data), modes(&copy)].concat();
    let wide: Vec<_> = found.iter().filter(|(mode, _)| mode & 0o077 != 0).collect();
    assert!(found.len() > 20, "the rule looks at {} files", found.len());
    assert!(wide.is_empty(), "{wide:?}");
    service.process.stop().await;
}

#[tokio::test]
async fn a_directory_that_others_may_read_is_named_at_the_start_and_served() {
    let deployment = Deployment::disk();
    let data = deployment.scratch().join("data");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("set");
    let service = Service::ready(&deployment, &[]).await;
    let notices = service.get("/readyz?verbose").await.good()["notices"].to_string();
    assert!(notices.contains("has mode 0755"), "{notices}");
    until("the line is there", async || service.process.stderr().contains("has mode 0755").then_some(())).await;
    service.process.stop().await;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("set");
    let quiet = deployment.run(&["inspect", "topics"]);
    assert!(!stderr(&quiet).contains("mode"), "{}", stderr(&quiet));
}
