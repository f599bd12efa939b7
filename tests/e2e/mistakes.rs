//! Common mistakes, and their messages: where the mistake is, what is allowed there, and what to do next.

use crate::deployment::Deployment;
use crate::process::{Service, until};
use reqwest::{Client, Method, header, redirect};

/// Invalid files, each with a different mistake.
const FILES: [(&str, &str); 15] = [
    ("key.toml", "[http]\nlisen = \"127.0.0.1:1\"\n"),
    ("section.toml", "[htpp]\nlisten = \"127.0.0.1:1\"\n"),
    ("type.toml", "[http]\nrequests_max = \"many\"\n"),
    ("broken.toml", "[http\n"),
    ("keys.toml", "[[keys]\nname = 1\n"),
    ("digest.toml", "[[keys]]\nname = \"a\"\nsha256 = \"xx\"\ntenant = \"default\"\nscopes = [\"admin\"]\n"),
    ("table.csv", "Login Timestamp,User ID\n2020,1\n"),
    ("array.json", "[{\"specversion\": \"1.0\"}]\n"),
    (
        "no-ip.jsonl",
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/x\",\"type\":\"foretell.login.succeeded\",\
         \"time\":\"2026-01-01T00:00:00Z\",\"data\":{\"user_id\":\"u\"}}\n",
    ),
    (
        "no-time.jsonl",
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/x\",\"type\":\"foretell.login.succeeded\",\
         \"data\":{\"user_id\":\"u\",\"ip\":\"192.0.2.1\"}}\n",
    ),
    ("policy-key.toml", "chalenge_at = 0.9\n"),
    ("policy-bound.toml", "challenge_at = 9\n"),
    ("policy-name.toml", "[[rules]]\ncode = \"OURS\"\nwhen = \"devicetype == 'x'\"\ndecision = \"deny\"\n"),
    ("policy-rule.toml", "[[rules]]\ncode = \"OURS\"\nwhen = \"device_type == \"\ndecision = \"deny\"\n"),
    ("policy-syntax.toml", "challenge_at = \n"),
];

/// Wrong usage: exit 2, and parts of the message.
const USAGE: [(&str, &[&str]); 19] = [
    ("server", &["'server'", "'serve'"]),
    ("serve --port 8080", &["'--port", "'--listen <ADDRESS:PORT>'"]),
    ("serve --prot 8080", &["'--prot'", "'--port'"]),
    ("--log disk:x serve", &["'--log'", "'serve --log'"]),
    ("demo --store disk:x", &["'--store", "foretell serve"]),
    ("import logins table.csv", &["--format <FORMAT>"]),
    ("import logins table.csv --format xml", &["'xml'", "events, rba, noshow"]),
    ("import visits table.csv --format rba", &["'visits'", "logins, appointments"]),
    ("serve --roles httpd", &["'httpd'", "'http'"]),
    ("inspect row user", &["<KEY>"]),
    ("verify users", &["'users'", "'user'"]),
    ("report decisions --since yesterday", &["--since", "RFC 3339"]),
    ("dead-letters list --limit 0", &["--limit", "1.."]),
    ("dead-letters redrive", &["<ID>"]),
    ("dead-letters show first", &["\"first\"", "PARTITION/OFFSET, such as 0/17"]),
    ("migrate --repartition logins=0", &["--repartition", "from 1 to 1000"]),
    ("migrate --repartition reminders=4", &["reminders are repartitioned together with appointments"]),
    ("calibrate logins table.csv --target-tpr 2", &["--target-tpr", "above 0, at most 1"]),
    ("completions zhs", &["'zhs'", "powershell, zsh"]),
];

/// Failures: exit 1, and parts of the last line of the message.
const FAILURES: [(&str, &[&str]); 39] = [
    ("serve --config key.toml", &["http.lisen", "Did you mean `listen`?"]),
    ("serve --config section.toml", &["setting htpp", "Did you mean `http`?"]),
    ("serve --config type.toml", &["http.requests_max", "\"many\"", "a whole number"]),
    ("serve --config broken.toml", &["broken.toml", "line 1, column 6", "`]`"]),
    ("serve --config nowhere.toml", &["cannot read nowhere.toml", "No such file"]),
    ("serve --listen localhost", &["http.listen", "\"localhost\"", "ADDRESS:PORT, such as localhost:8080"]),
    ("serve --listen 8080", &["http.listen", "such as 127.0.0.1:8080"]),
    ("serve --listen ::1", &["http.listen", "such as [::1]:8080"]),
    ("serve --listen :99999", &["http.listen", "\":99999\""]),
    ("serve --ops-listen off", &["ops.listen", "\"none\" turns the listener off"]),
    ("serve --log ./data", &["setting log", "disk: nor kafka://", "disk:./data"]),
    ("config check --store pg://x", &["setting store", "\"pg://x\"", "disk: nor cassandra://"]),
    ("serve --store cassandra://node:9042", &["setting store", "no keyspace", "cassandra://node:9042/foretell"]),
    ("config check --log kafka://a:b:c", &["setting log", "\"a:b:c\" is not host:port"]),
    ("serve --listen :0 --ops-listen none", &["no API keys", "--first-key", "127.0.0.1", "--insecure"]),
    (
        "serve --listen 127.0.0.1:0 --ops-listen none --log kafka://127.0.0.1:1 --first-key",
        &["--first-key", "kafka://127.0.0.1:1", "http.api_keys_file"],
    ),
    (
        "inspect topics --log kafka://127.0.0.1:1 --store cassandra://127.0.0.1:1/foretell",
        &["cannot reach kafka", "nothing listens at 127.0.0.1:1"],
    ),
    ("migrate --store cassandra://127.0.0.1:1/foretell", &["cannot reach cassandra", "nothing listens at 127.0.0.1:1"]),
    ("import logins nowhere.jsonl --format events", &["cannot open nowhere.jsonl"]),
    ("import logins table.csv --format events", &["table.csv, line 1", "a CSV file? --format rba", "--format noshow"]),
    ("import logins array.json --format events", &["array.json, line 1", "an array?", "one event per line"]),
    ("import logins table.csv --format rba", &["no column \"index\"", "Login Timestamp, User ID", "another format?"]),
    ("import logins no-ip.jsonl --format events", &["no-ip.jsonl, line 1, /data/ip", "ip is required"]),
    ("import logins no-time.jsonl --format events", &["no-time.jsonl, line 1, /time", "time is required"]),
    ("import logins no-ip.jsonl --format events --tenant A", &["\"A\" is not a tenant", "a-z, 0-9 and -"]),
    ("policy check policy-key.toml", &["/chalenge_at", "Did you mean `challenge_at`?"]),
    ("policy check policy-bound.toml", &["/challenge_at", "from 0 to 1"]),
    ("policy check policy-name.toml", &["/rules/0", "did you mean device_type?"]),
    ("policy check policy-rule.toml", &["/rules/0", "OURS", "line 1, column"]),
    ("policy check policy-syntax.toml", &["policy-syntax.toml", "line 1, column 16"]),
    ("policy check nowhere.toml", &["nowhere.toml", "No such file"]),
    ("inspect positions", &["there is no directory", "`foretell serve` creates it"]),
    ("train no-show", &["there is no directory", "`foretell serve` creates it"]),
    ("backup copy", &["there is no directory", "`foretell serve` creates it"]),
    ("health http://127.0.0.1:1", &["http://127.0.0.1:1", "connection refused", "`foretell serve`"]),
    ("health 127.0.0.1:8080", &["\"127.0.0.1:8080\"", "http://127.0.0.1:8080"]),
    ("simulate logins --users 0", &["0 users", "1 to 100000"]),
    ("calibrate logins no-time.jsonl", &["no-time.jsonl, line 1, /time", "time is required"]),
    ("man table.csv", &["table.csv", "exists"]),
];

/// Failures of settings in the environment.
const VARIABLES: [(&str, &str, &str, &[&str]); 5] = [
    ("HTTP__REQUESTS_MAX", "0", "config check", &["http.requests_max", "0 would reject everything: set 1 or more"]),
    ("HTTP__API_KEYS_FILE", "nowhere.toml", "config check", &["http.api_keys_file: nowhere.toml", "No such file"]),
    ("HTTP__API_KEYS_FILE", "keys.toml", "serve", &["http.api_keys_file: keys.toml", "line 1, column 8"]),
    ("HTTP__API_KEYS_FILE", "digest.toml", "serve", &["digest.toml", "API key \"a\"", "64 hexadecimal digits"]),
    ("HTPP__LISTEN", "127.0.0.1:1", "config check", &["setting htpp", "Did you mean `http`?"]),
];

/// The same, with the files in its working directory.
fn with_files(deployment: Deployment) -> Deployment {
    for (name, text) in FILES {
        std::fs::write(deployment.scratch().join(name), text).expect("written");
    }
    deployment
}

fn words(arguments: &str) -> Vec<&str> {
    arguments.split(' ').collect()
}

/// The last line contains the whole message; only a few lines of the log may precede it.
fn check(arguments: &str, messages: &str, expected: &[&str]) {
    let last = messages.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("foretell: "), "{arguments}: {messages}");
    for words in expected {
        assert!(last.contains(words), "{arguments}: {words:?} in {last}");
    }
    assert!(messages.lines().count() <= 4, "{arguments}: it is not buried: {messages}");
}

#[test]
fn the_last_line_of_a_mistake_names_the_place_the_bound_and_the_next_step() {
    let deployment = with_files(Deployment::disk());
    for (arguments, expected) in USAGE {
        let messages = deployment.failure(2, &words(arguments));
        assert!(messages.starts_with("error: "), "{arguments}: {messages}");
        for words in expected {
            assert!(messages.contains(words), "{arguments}: {words:?} in {messages}");
        }
    }
    for (arguments, expected) in FAILURES {
        check(arguments, &deployment.failure(1, &words(arguments)), expected);
    }
    for (variable, value, arguments, expected) in VARIABLES {
        let mut deployment = with_files(Deployment::disk());
        deployment.set(variable, value);
        check(arguments, &deployment.failure(1, &words(arguments)), expected);
    }
}

#[tokio::test]
async fn a_service_prints_its_address_which_leads_to_its_documentation() {
    let deployment = Deployment::disk();
    let service = Service::ready(&deployment, &[]).await;
    let messages = until("it reports that it is ready", async || {
        let messages = service.process.stderr();
        messages.contains("after_ms").then_some(messages)
    })
    .await;
    let listening = messages.lines().find(|line| line.contains("listening")).expect("a line");
    for words in [&service.url, &format!("{}/docs", service.url), "/metrics", "waits_for", "disk:"] {
        assert!(listening.contains(words), "{words:?} in {listening}");
    }
    assert!(messages.lines().count() <= 10, "a start is a few lines: {messages}");

    let client = Client::builder().redirect(redirect::Policy::none()).build().expect("a client");
    let root = client.get(&service.url).send().await.expect("an answer");
    assert_eq!((root.status().as_u16(), &root.headers()[header::LOCATION]), (307, &"/docs".parse().expect("a value")));
    assert!(reqwest::get(&service.url).await.expect("an answer").status().is_success(), "people see the documentation");
    for path in ["/v1/users/x/", "/nowhere"] {
        let problem = service.get(path).await;
        assert_eq!((problem.status, &problem.body["code"]), (404, &"PATH_NOT_FOUND".into()), "{path}");
        assert!(problem.body["detail"].as_str().expect("text").contains("/docs"), "{}", problem.body);
    }
    let ops = service.ops("/").await;
    assert!(ops.body["detail"].as_str().expect("text").contains("/metrics"), "{}", ops.body);
    let untyped = service
        .answer(service.ask(Method::POST, "/v1/risk/logins").header("content-type", "text/plain").body("{}"))
        .await;
    assert!(
        untyped.status == 415 && untyped.body["detail"].to_string().contains("application/json"),
        "{}",
        untyped.body
    );

    let empty = deployment.failure(1, &["inspect", "row", "user", "nobody"]);
    assert!(empty.contains("a key begins with its tenant, as in default:nobody"), "{empty}");
    let taken = deployment.failure(1, &["backup", "."]);
    assert!(taken.contains("exists: use a new directory"), "{taken}");
    service.process.stop().await;
}
