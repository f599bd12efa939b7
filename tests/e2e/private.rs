//! Files of an instance are accessible only to its own user, whatever the umask of the shell that started it.

use crate::deployment::{Deployment, stderr};
use crate::facts;
use crate::process::{Process, Service, free_port, until};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Everything below a directory, including the directory, as mode and path.
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

/// The lines of its messages that contain an API key.
fn keys_shown(service: &Service) -> Vec<String> {
    let messages = service.process.stderr();
    messages.lines().filter(|line| line.starts_with("fk_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_first_key_is_shown_once_and_opens_the_api_after_a_restart_too() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &["--first-key"]).await;
    let shown = keys_shown(&service);
    assert_eq!(shown.len(), 1, "{}", service.process.stderr());
    service.process.stop().await;
    let service = Service::ready(&deployment, &["--first-key"]).await;
    assert_eq!(keys_shown(&service), Vec::<String>::new());
    let user = || service.ask(reqwest::Method::GET, "/v1/users/ada");
    assert_eq!(service.answer(user()).await.status, 401, "a key is required");
    assert_eq!(service.answer(user().bearer_auth(&shown[0])).await.status, 404, "it opens, and there is no such user");
    service.process.stop().await;
}

#[test]
fn a_file_of_keys_in_the_settings_is_used_instead_of_a_first_key() {
    let mut deployment = Deployment::disk();
    let file = deployment.scratch_file("api-keys.toml");
    std::fs::write(&file, "keys = []").expect("written");
    deployment.set("HTTP__API_KEYS_FILE", file.to_str().expect("text"));
    let messages = deployment.failure(1, &["serve", "--listen", "127.0.0.1:0", "--ops-listen", "none", "--first-key"]);
    assert!(messages.contains("http.api_keys_file") && messages.contains("must contain 1 to 10000"), "{messages}");
    assert!(!deployment.scratch().join("data/api-keys.toml").exists(), "no key was made");
}

#[test]
fn a_first_key_is_refused_where_there_is_no_data_directory() {
    let deployment = Deployment::disk();
    let address = ["--listen", "127.0.0.1:0", "--ops-listen", "none"];
    let mut serve = deployment.command(&[&["serve", "--log", "kafka://127.0.0.1:1"], &address[..]].concat());
    let refused = serve.env("FORETELL_FIRST_KEY", "1").output().expect("the binary runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--first-key keeps its key in a data directory"), "{}", stderr(&refused));
}

/// The protection against pages of other sites depends on the listening address, and not on how it was written.
#[tokio::test]
async fn loopback_is_guarded_from_pages_however_it_is_written() {
    let deployment = Deployment::disk();
    for host in ["127.1", "localhost", "0x7f000001"] {
        let port = free_port();
        let listen = format!("{host}:{port}");
        let serve = deployment.command(&["serve", "--listen", &listen, "--ops-listen", "none"]);
        let mut process = Process::start(&deployment, serve);
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let get = |host: &str| client.get(format!("http://127.0.0.1:{port}/v1/agenda")).header("host", host.to_owned());
        until("it answers", async || {
            assert_eq!(process.ended(), None, "{}", process.stderr());
            (get("localhost").send().await.ok()?.status() == 200).then_some(())
        })
        .await;
        let rebound = get("evil.example").send().await.expect("an answer");
        assert_eq!(rebound.status(), 403, "{listen}");
        let page = get("localhost").header("origin", "https://evil.example").send().await.expect("an answer");
        assert_eq!(page.status(), 403, "{listen}");
        process.stop().await;
    }
}

/// A command that names a different log than the process that serves the directory of its store must not use that
/// process's log.
#[tokio::test]
async fn a_command_does_not_work_with_a_log_that_it_did_not_name() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("logins.jsonl");
    facts::write_logins(&file, 5);
    let service = Service::ready(&deployment, &[]).await;
    let import = ["import", "logins", file.to_str().expect("text"), "--format", "events"];
    let served = deployment.scratch().join("data");
    for log in ["kafka://127.0.0.1:1", "disk:./elsewhere"] {
        for command in [&import[..], &["inspect", "topics"], &["verify"], &["dead-letters", "list"]] {
            let messages = deployment.failure(1, &[command, &["--log", log]].concat());
            let served = served.to_str().expect("text");
            assert!(
                messages.contains(served) || messages.contains("no directory") || messages.contains("in use"),
                "{log}: {messages}"
            );
        }
    }
    let own = deployment.output(&import);
    assert!(own.contains("5 events appended, 0 already present"), "none of them was appended before: {own}");
    service.process.stop().await;
}
