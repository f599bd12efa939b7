//! Commands, as people and scripts use them: their output, messages and exit codes.

use crate::deployment::{Deployment, stderr, stdout};
use crate::facts::{self, SAMPLE, SAMPLE_ROWS};
use crate::process::{Service, free_port};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn settings_are_checked_and_printed() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("settings.toml");
    let with = |text: &str, arguments: &[&str]| {
        std::fs::write(&file, text).expect("written");
        let all = [&["--config", file.to_str().expect("text")], arguments].concat();
        deployment.run(&all)
    };
    let checked = with("[http]\nlisten = \"127.0.0.1:1\"\n", &["config", "check"]);
    assert_eq!((checked.status.code(), stdout(&checked).as_str()), (Some(0), "the settings are valid\n"));

    let dumped = with("[http]\nlisten = \"127.0.0.1:1\"\n[reads]\nstale_ms_max = 7\n", &["config", "dump"]);
    let dumped: toml::Table = stdout(&dumped).parse().expect("TOML");
    assert_eq!(dumped["http"]["listen"].as_str(), Some("127.0.0.1:1"), "the file takes precedence over the defaults");
    assert_eq!(dumped["reads"]["stale_ms_max"].as_integer(), Some(7));
    let flag = with("[http]\nlisten = \"127.0.0.1:1\"\n", &["config", "dump", "--listen", "127.0.0.1:2"]);
    let flag: toml::Table = stdout(&flag).parse().expect("TOML");
    assert_eq!(flag["http"]["listen"].as_str(), Some("127.0.0.1:2"), "flags take precedence over the file");
    assert_eq!(flag["log"].as_str(), Some(deployment.config().log.as_str()), "and so does the environment");
    let defaults: toml::Table = deployment.output(&["config", "dump", "--defaults"]).parse().expect("TOML");
    assert_eq!(defaults["log"].as_str(), Some("disk:./data"));

    for (text, expected) in [
        ("[http]\nlisen = \"127.0.0.1:1\"\n", "Did you mean `listen`?"),
        ("[htpp]\nlisten = \"127.0.0.1:1\"\n", "Did you mean `http`?"),
        ("[http]\nrequests_max = \"many\"\n", "setting http.requests_max"),
        ("[http\n", "is not valid TOML"),
    ] {
        for command in [&["config", "check"][..], &["serve"], &["migrate"]] {
            let refused = with(text, command);
            assert_eq!((refused.status.code(), stdout(&refused).as_str()), (Some(1), ""), "{command:?}");
            let messages = stderr(&refused);
            assert!(messages.starts_with("foretell: ") && messages.contains(expected), "{messages}");
        }
    }
    let missing = deployment.failure(1, &["--config", "/nowhere.toml", "config", "check"]);
    assert!(missing.contains("cannot read /nowhere.toml"), "{missing}");
}

#[test]
fn secrets_are_not_printed() {
    let deployment = Deployment::with(|_| vec![("KAFKA__PASSWORD", "tell-nobody".into())]);
    let dumped = deployment.output(&["config", "dump"]);
    assert!(dumped.contains("[kafka]") && !dumped.contains("tell-nobody"), "{dumped}");
    assert_eq!(deployment.config().kafka.password.as_deref(), Some("tell-nobody"), "but it is read");
}

#[test]
fn documents_are_printed_without_settings_or_data() {
    let deployment = Deployment::disk();
    let document = parsed(&deployment.output(&["openapi"]));
    assert!(document["openapi"].as_str().expect("a version").starts_with("3.1"), "{}", document["openapi"]);
    for path in ["/v1/events", "/v1/risk/logins", "/v1/risk/appointments", "/v1/users/{user_id}", "/readyz"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(deployment.output(&["completions", shell]).contains("foretell"), "{shell}");
    }
    assert!(deployment.output(&["--help"]).contains("Usage: foretell"));
    let version = deployment.output(&["--version"]);
    let commit = version.trim().strip_prefix(concat!("foretell ", env!("CARGO_PKG_VERSION"), " (")).expect(&version);
    assert_eq!(commit.strip_suffix(')').expect(&version), foretell::version::COMMIT, "the build is named");
    assert!(!deployment.scratch().join("data").exists(), "nothing was opened");
}

#[test]
fn a_wrong_command_line_exits_2_and_prints_the_usage() {
    let deployment = Deployment::disk();
    for arguments in [
        &["server"][..],
        &["import"],
        &["import", "logins", SAMPLE],
        &["import", "logins", SAMPLE, "--format", "xml"],
        &["serve", "--roles", "httpd"],
        &["health"],
        &["inspect", "row", "user"],
    ] {
        let messages = deployment.failure(2, arguments);
        assert!(messages.starts_with("error: ") && messages.contains("--help"), "{arguments:?}: {messages}");
    }
}

#[test]
fn a_file_that_cannot_be_imported_is_refused_whole() {
    let deployment = Deployment::disk();
    let file = deployment.scratch_file("bad.jsonl");
    let good = facts::event("1", "login.succeeded", 0, &json!({"user_id": "u", "ip": "192.0.2.1"}));
    let bad = facts::event("2", "login.succeeded", 0, &json!({"user_id": "u"}));
    std::fs::write(&file, format!("{good}\n{bad}\n")).expect("written");
    let messages = deployment.failure(1, &["import", "logins", file.to_str().expect("text"), "--format", "events"]);
    assert!(messages.contains("2") && messages.contains("ip"), "the line and the field: {messages}");
    let messages = deployment.failure(1, &["import", "logins", "/nowhere.csv", "--format", "rba"]);
    assert!(messages.contains("/nowhere.csv"), "{messages}");
    assert!(!deployment.scratch().join("data").exists(), "nothing was opened");
    let messages = deployment.failure(1, &["inspect", "topics"]);
    assert!(messages.contains("there is no directory") && messages.contains("foretell serve"), "{messages}");
    assert!(!deployment.scratch().join("data").exists(), "who looks makes nothing");
}

/// A path as an argument.
fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("text")
}

/// Byte order marks, CRLF, a last line without an end, gzip; UTF-16 is rejected by name.
#[test]
fn files_of_windows_tools_are_read_by_every_command() {
    let deployment = Deployment::disk();
    let written = |name: &str, content: &str| {
        let file = deployment.scratch_file(name);
        std::fs::write(&file, format!("\u{feff}{}", content.replace('\n', "\r\n"))).expect("written");
        file
    };
    let utf16 = |name: &str, content: &str| {
        let file = deployment.scratch_file(name);
        let units = format!("\u{feff}{content}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        std::fs::write(&file, units).expect("written");
        file
    };
    let login = facts::event("1", "login.succeeded", 0, &json!({"user_id": "u", "ip": "192.0.2.1"})).to_string();
    let later = facts::event("2", "login.succeeded", 1, &json!({"user_id": "u", "ip": "192.0.2.1"})).to_string();
    let (settings, policy, document) =
        ("[reads]\nstale_ms_max = 7\n", "challenge_at = 0.4\ndeny_at = 0.9", r#"{"challenge_at": 0.4}"#);
    let events = format!("{login}\n{later}");

    let dumped = deployment.output(&["--config", text(&written("settings.toml", settings)), "config", "dump"]);
    assert_eq!(dumped.parse::<toml::Table>().expect("TOML")["reads"]["stale_ms_max"].as_integer(), Some(7));
    let (toml, json) = (written("policy.toml", policy), written("policy.json", document));
    for policy in [&toml, &json] {
        assert!(deployment.output(&["policy", "check", text(policy)]).contains("is valid"));
    }
    let history = written("history.jsonl", &events);
    let gzipped = deployment.scratch_file("history.jsonl.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &std::fs::read(&history).expect("there")).expect("packed");
    std::fs::write(&gzipped, gzip.finish().expect("packed")).expect("written");
    for history in [&history, &gzipped] {
        deployment.output(&["policy", "test", text(&toml), "--against", text(history)]);
        let lines = deployment.output(&["evaluate", "logins", text(history), "--format", "events"]);
        assert_eq!(lines.lines().count(), 2, "{lines}");
    }

    for (name, arguments) in [
        ("settings", vec!["--config", text(&utf16("settings.toml", settings)), "config", "check"]),
        ("a policy", vec!["policy", "check", text(&utf16("policy.toml", policy))]),
        ("a policy in JSON", vec!["policy", "check", text(&utf16("policy.json", document))]),
        ("a history", vec!["evaluate", "logins", text(&utf16("history.jsonl", &events)), "--format", "events"]),
        ("an import", vec!["import", "logins", text(&utf16("history.jsonl", &events)), "--format", "events"]),
        ("rows", vec!["import", "logins", text(&utf16("rows.csv", "index,timestamp\n")), "--format", "rba"]),
        ("thresholds", vec!["calibrate", "logins", text(&history), "--policy", text(&utf16("policy.toml", policy))]),
        ("a patch", vec!["dead-letters", "redrive", "2/17", "--patch", text(&utf16("patch.json", "[]"))]),
    ] {
        let messages = deployment.failure(1, &arguments);
        assert!(messages.contains("UTF-16"), "{name}: {messages}");
    }
}

/// A stack overflow would end the process with a signal instead of an exit code.
#[test]
fn deep_documents_are_refused_by_every_command() {
    let deployment = Deployment::disk();
    let deep = (0..40).fold("1".to_owned(), |inner, _| format!("{{{} = {inner}}}", ["a"; 79].join(".")));
    let file = deployment.scratch_file("deep.toml");
    std::fs::write(&file, format!("a = {deep}\n")).expect("written");
    let history = deployment.scratch_file("history.jsonl");
    std::fs::write(&history, "").expect("written");
    let (file, history) = (text(&file), text(&history));
    for arguments in [
        &["--config", file, "config", "check"][..],
        &["policy", "check", file],
        &["policy", "check", file, "--kind", "reminders"],
        &["policy", "test", file, "--against", history],
        &["calibrate", "logins", history, "--policy", file],
    ] {
        let messages = deployment.failure(1, arguments);
        assert!(messages.contains("nested deeper than 32 levels"), "{arguments:?}: {messages}");
    }
    let keyed = Deployment::with(|_| vec![("HTTP__API_KEYS_FILE", file.to_owned())]);
    let messages = keyed.failure(1, &["serve"]);
    assert!(messages.contains("nested deeper than 32 levels"), "{messages}");
}

fn records(topic: &Value) -> i64 {
    let partitions = topic["partitions"].as_array().expect("partitions").iter();
    partitions.map(|extent| extent[1].as_i64().expect("an end")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_inspected_while_it_runs_and_when_it_is_stopped() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &[]).await;
    let login = |n: i64| {
        let data = json!({"user_id": "ada", "ip": "192.0.2.1", "device_id": "laptop"});
        facts::event(&format!("login-{n}"), "login.succeeded", 1_767_225_600_000 + n * 1_000, &data)
    };
    service.fold(&[login(1), login(2), login(3)]).await;
    let questions = [
        &["inspect", "topics", "--json"][..],
        &["inspect", "positions", "--json"],
        &["inspect", "row", "user", "default:ada", "--json"],
    ];
    let ask = || questions.map(|question| parsed(&deployment.output(question)));
    let running = ask();
    let [topics, positions, row] = &running;
    let logins = topics.as_array().expect("topics").iter().find(|topic| topic["topic"] == "foretell.logins");
    assert_eq!(records(logins.expect("the topic")), 3);
    let folded = positions.as_array().expect("positions").iter().filter(|at| at["family"] == "logins");
    assert_eq!(folded.filter_map(|at| at["next"].as_i64()).sum::<i64>(), 3, "{positions}");
    let [partial] = row.as_array().expect("partials").as_slice() else { panic!("one partial: {row}") };
    assert_eq!(partial["state"]["successes"], 3, "{row}");
    let table = deployment.output(&["inspect", "positions"]);
    assert!(table.lines().count() > 4 && table.starts_with("family"), "{table}");
    let unknown = deployment.failure(1, &["inspect", "row", "user", "default:nobody"]);
    assert!(unknown.contains("no row \"default:nobody\" in view user"), "{unknown}");
    let no_bucket = deployment.failure(1, &["inspect", "row", "agenda", "default:ada"]);
    assert!(no_bucket.contains("--bucket"), "{no_bucket}");
    let no_view = deployment.failure(2, &["inspect", "row", "users", "default:ada"]);
    assert!(no_view.contains("possible values: user, feature"), "{no_view}");
    let verify = || deployment.output(&["verify"]);
    let verified = verify();
    assert!(verified.contains("the fold of 3 offsets") && verified.ends_with("; 0 differ\n"), "{verified}");

    service.process.stop().await;
    let stopped = ask();
    assert_eq!((&stopped[0], &stopped[2]), (topics, row), "the same from the directory itself");
    assert_eq!(verify(), verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reports_through_its_exit_code() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &[]).await;
    assert_eq!(parsed(&deployment.output(&["health", &service.url]))["status"], "ready");
    service.process.stop().await;
    let nobody = deployment.failure(1, &["health", &format!("http://127.0.0.1:{}", free_port())]);
    assert!(nobody.contains("connection refused. Is `foretell serve` running there?"), "{nobody}");
}

#[test]
fn a_backtest_scores_every_row_and_sums_up() {
    let deployment = Deployment::disk();
    let logins = deployment.run(&["evaluate", "logins", SAMPLE, "--format", "rba", "--json"]);
    assert_eq!(logins.status.code(), Some(0), "{}", stderr(&logins));
    let rows: Vec<_> = stdout(&logins).lines().map(parsed).collect();
    assert_eq!(rows.len(), SAMPLE_ROWS);
    for row in &rows {
        let score = &row["score"];
        let scored = score.as_f64().is_some_and(|score| (0.0..=1.0).contains(&score));
        assert!(scored || score.is_null() && row["likelihood_ratio"].is_null(), "a score, or no history: {row}");
        assert!(["allow", "challenge", "deny"].contains(&row["decision"].as_str().expect("a decision")), "{row}");
    }
    let scored = rows.iter().filter(|row| row["score"].is_f64()).count();
    assert!(scored > 0, "some had a history");
    assert_eq!(parsed(stderr(&logins).trim())["scored"], scored, "the summary");

    let file = deployment.scratch_file("noshow.csv");
    let (clients, _) = facts::write_noshow(&file, 400);
    let visits: u64 = clients.values().map(|kept| kept.attended + kept.missed).sum();
    let missed: u64 = clients.values().map(|kept| kept.missed).sum();
    let file = file.to_str().expect("text");
    let rows: Vec<_> = deployment
        .output(&["evaluate", "appointments", file, "--format", "noshow", "--at", "booking"])
        .lines()
        .map(parsed)
        .collect();
    assert_eq!(rows.len() as u64, visits);
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "missed").count() as u64, missed);
    assert!(rows.iter().all(|row| (0.0..=1.0).contains(&row["score"].as_f64().expect("a score"))));
    assert!(!deployment.scratch().join("data").exists(), "a backtest leaves no data");
}
