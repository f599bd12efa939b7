//! A simulated history and the thresholds that follow from it, from the command line: files, tables, exit codes.

use crate::deployment::Deployment;
use crate::process::Service;
use serde_json::Value;

const SMALL: [&str; 8] = ["simulate", "logins", "--users", "120", "--days", "150", "--seed", "5"];

/// The file of [`SMALL`].
fn simulated(deployment: &Deployment) -> String {
    let file = deployment.scratch_file("simulated.jsonl");
    let file = file.to_str().expect("text").to_owned();
    assert_eq!(deployment.output(&[&SMALL[..], &["--output", &file]].concat()), "", "the file has it");
    file
}

#[test]
fn a_seed_is_a_file_and_thresholds_go_into_a_policy() {
    let deployment = Deployment::disk();
    let file = simulated(&deployment);
    let written = std::fs::read_to_string(&file).expect("written");
    assert_eq!(deployment.output(&SMALL), written, "the same on stdout");
    for label in ["legitimate", "naive", "vpn", "targeted"] {
        assert!(written.contains(&format!("\"label\":\"{label}\"")), "{label}");
    }

    let (policy, plot) = (deployment.scratch_file("policy.toml"), deployment.scratch_file("curves.svg"));
    std::fs::write(&policy, "# Ours.\nchallenge_at = 0.5 # to be replaced\n").expect("written");
    let (policy_text, plot_text) = (policy.to_str().expect("text"), plot.to_str().expect("text"));
    let calibration =
        ["calibrate", "logins", &file, "--target-tpr", "0.9", "--policy", policy_text, "--plot", plot_text];
    let table = deployment.output(&calibration);
    assert!(table.contains("thresholds that catch 90.00 % of the attacks"), "{table}");
    assert!(std::fs::read_to_string(&plot).expect("drawn").starts_with("<svg"));
    let policy = std::fs::read_to_string(&policy).expect("written");
    assert!(policy.starts_with("# Ours.\nchallenge_at = ") && policy.contains(" # to be replaced\n"), "{policy}");

    let json: Value =
        serde_json::from_str(&deployment.output(&[&calibration[..], &["--json"]].concat())).expect("JSON");
    let threshold = json["thresholds"]["challenge_at"].as_f64().expect("a threshold");
    assert!(policy.contains(&format!("challenge_at = {threshold} #")), "{threshold}: {policy}");
    for curve in json["curves"].as_array().expect("curves") {
        assert!(curve["at_target"]["caught"].as_f64().expect("a share") >= 0.9, "{curve}");
        let sizes: Vec<_> = curve["paid"].as_array().expect("sizes").iter().map(|paid| &paid["logins"]).collect();
        assert_eq!(sizes, [4, 12, 20, 39]);
    }
    assert!(!deployment.scratch().join("data").exists(), "nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_history_has_no_attack_in_it() {
    let deployment = Deployment::disk();
    let file = simulated(&deployment);
    deployment.output(&["import", "logins", &file, "--format", "events"]);
    let lines = std::fs::read_to_string(&file).expect("written");
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let service = Service::ready(&deployment, &[]).await;
    for user_id in ["user-1", "user-50", "user-119"] {
        let of_user = events.iter().filter(|event| event["data"]["user_id"] == user_id);
        let own = of_user.filter(|event| event["type"] == "foretell.login.succeeded");
        let own: Vec<_> = own.map(|event| event["data"]["label"].as_str()).collect();
        assert!(own.iter().all(|label| *label == Some("legitimate")), "{user_id}: {own:?}");
        let user = service.get(&format!("/v1/users/{user_id}")).await.good();
        assert_eq!(user["history"]["successes"], own.len(), "{user}");
    }
    service.process.stop().await;
}

#[test]
fn what_cannot_be_simulated_or_calibrated_is_reported() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("unlabelled.jsonl");
    let file = file.to_str().expect("text");
    let data = serde_json::json!({"user_id": "u", "ip": "192.0.2.1"});
    let event = crate::facts::event("login-1", "login.succeeded", 1_767_225_600_000, &data);
    std::fs::write(file, format!("{event}\n")).expect("written");
    let policy = deployment.scratch_file("bad.toml");
    std::fs::write(&policy, "challenge_at = \"low\"\n").expect("written");
    let policy = policy.to_str().expect("text");
    let nowhere = "/nowhere/simulated.jsonl";
    for (arguments, expected) in [
        (&["simulate", "logins", "--users", "0"][..], "0 users: 1 to 100000"),
        (&["simulate", "logins", "--users", "1", "--days", "9999"], "9999 days: 1 to 731"),
        (&["simulate", "logins", "--users", "1", "--days", "1", "--output", nowhere], "cannot write /nowhere/"),
        (&["calibrate", "logins", file], "\"login-1\" has no label"),
        (&["calibrate", "logins", nowhere], "cannot open /nowhere/"),
        (&["calibrate", "logins", file, "--policy", policy], "challenge_at"),
    ] {
        let messages = deployment.failure(1, arguments);
        assert!(messages.starts_with("foretell: ") && messages.contains(expected), "{arguments:?}: {messages}");
    }
    let empty = deployment.scratch_file("empty.jsonl");
    std::fs::write(&empty, "").expect("written");
    let messages = deployment.failure(1, &["calibrate", "logins", empty.to_str().expect("text")]);
    assert!(messages.contains("no legitimate login has a score"), "{messages}");
    for arguments in [&["calibrate", "logins"][..], &["calibrate", "logins", file, "--target-tpr", "2"], &["simulate"]]
    {
        let messages = deployment.failure(2, arguments);
        assert!(messages.contains("--help"), "{arguments:?}: {messages}");
    }
}
