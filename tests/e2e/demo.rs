//! The demo is the first contact with Foretell, so its whole output is tested.

use crate::deployment::Deployment;
use crate::process::{Process, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DEMO: [&str; 3] = ["demo", "--listen", "127.0.0.1:0"];

/// Lines of a terminal that the whole output must fit in.
const LINES: usize = 50;
const COLUMNS: usize = 100;

const README: &str = include_str!("../../README.md");

/// The number of existing directories of demos.
fn directories(deployment: &Deployment) -> usize {
    std::fs::read_dir(deployment.scratch().join("tmp")).expect("a directory").count()
}

/// The output of a demo until `is_shown`.
async fn printed(demo: &mut Process, is_shown: impl Fn(&str) -> bool) -> String {
    until("the demo has shown everything", async || {
        assert_eq!(demo.ended(), None, "it ended: {}", demo.stderr());
        is_shown(&demo.stdout()).then_some(())
    })
    .await;
    demo.stdout()
}

/// The line of text that answers a question.
fn answer<'a>(printed: &'a str, question: &str) -> &'a str {
    let (_, rest) = printed.split_once(question).unwrap_or_else(|| panic!("{question:?} in {printed}"));
    rest.lines().find_map(|line| line.strip_prefix("  -> ")).expect("an answer")
}

async fn end(mut demo: Process, deployment: &Deployment) {
    assert_eq!(directories(deployment), 1);
    demo.signal("TERM");
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.stderr());
    assert_eq!(directories(deployment), 0, "the demo removes its directory");
    assert!(!demo.stderr().contains("cleanup"), "what is removed is no news: {}", demo.stderr());
}

#[tokio::test]
async fn the_demo_asks_and_answers_on_one_screen_and_leaves_nothing_behind() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&DEMO));
    let printed = printed(&mut demo, |printed| printed.contains("Ctrl-C ends the demo")).await;

    let rows: usize = printed.lines().map(|line| line.chars().count().div_ceil(COLUMNS).max(1)).sum();
    assert!(rows <= LINES, "{rows} rows: {printed}");
    for line in printed.lines() {
        assert!(line.chars().count() <= COLUMNS, "it wraps: {line}");
    }
    assert!(!printed.contains('\u{1b}'), "no colours without a terminal: {printed}");

    for (question, begins, reasons) in [
        ("Ada logs in at home", "allow, low risk: score 0.00", vec!["her own address"]),
        ("The same laptop, but abroad", "challenge, medium risk: score 0.89; ", vec!["new country"]),
        ("Ada's password, used by the attacker", "deny, high risk: score 0.99999", vec!["new device", "many accounts"]),
        ("Will George come", "", vec![" % likely to be missed, ", "Missed 5 of 7 days"]),
        ("Which reminders does Fatima get", "", vec!["h reminder sent ", "; visit "]),
        ("that sends her messages", "remind fatima by sms of the visit on ", vec!["announced on "]),
    ] {
        let answer = answer(&printed, question);
        assert!(answer.starts_with(begins), "{question}: {answer}");
        if question.contains("Ada") || question.contains("laptop") {
            assert!(README.contains(&format!("  -> {answer}\n")), "README.md has another answer: {answer}");
        }
        for reason in reasons {
            assert!(answer.contains(reason), "{question}: {reason}: {answer}");
        }
    }
    assert!(!printed.contains("expired") && !printed.contains("failed ("), "{printed}");
    assert!(printed.contains("From 0.354364 it is challenged, from 0.999995351 denied"), "{printed}");
    end(demo, &deployment).await;
}

/// The printed commands are the requests that were sent: a shell can run them.
#[tokio::test]
async fn the_commands_of_the_demo_run_in_a_shell_unchanged() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&DEMO));
    let printed = printed(&mut demo, |printed| printed.contains("Ctrl-C ends the demo")).await;
    let commands = printed.replace("\\\n", " ");
    let commands: Vec<_> = commands.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let (streams, commands): (Vec<_>, Vec<_>) = commands.into_iter().partition(|line| line.starts_with("curl -N "));
    assert_eq!((streams.len(), commands.len()), (1, 6), "{printed}");
    let run = |command: &str| {
        let output = std::process::Command::new("sh").args(["-c", command]).output().expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
    };
    let decisions = |answers: &[Value]| answers.iter().map(|answer| answer["decision"].clone()).collect::<Vec<_>>();
    let answers: Vec<_> = commands.iter().map(|command| run(command)).collect();
    assert_eq!(decisions(&answers[..3]), ["allow", "challenge", "deny"]);
    assert_eq!((&answers[3]["client_id"], &answers[4]["client_id"]), (&json!("george"), &json!("fatima")));
    assert_eq!(answers[5]["effective"]["rules"][0]["code"], "ABROAD");
    // As the demo describes its policy.
    assert_eq!(run(commands[1])["decision"], "deny");
    end(demo, &deployment).await;
}

#[tokio::test]
async fn the_demo_prints_a_json_object_for_each_question_on_request() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&[&DEMO[..], &["--json"]].concat()));
    let printed = printed(&mut demo, |printed| printed.lines().count() == 6 && printed.ends_with('\n')).await;
    let objects: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let answers: Vec<_> = objects.iter().map(|object| &object["answer"]).collect();
    for object in &objects {
        let url = object["request"]["url"].as_str().expect("a URL");
        assert!(object["question"].is_string() && url.starts_with("http://127.0.0.1:"), "{object}");
        assert_eq!(object["request"]["body"].is_object(), object["request"]["method"] == "POST", "{object}");
    }
    let [usual, abroad, stolen, george, fatima, announced] = answers[..] else { panic!("{objects:?}") };
    assert_eq!((&usual["decision"], &usual["level"]), (&json!("allow"), &json!("low")), "{usual}");
    assert_eq!((&abroad["decision"], &abroad["level"]), (&json!("challenge"), &json!("medium")), "{abroad}");
    assert_eq!((&stolen["decision"], &stolen["level"]), (&json!("deny"), &json!("high")), "{stolen}");
    let codes: BTreeSet<_> =
        stolen["reasons"].as_array().expect("reasons").iter().filter_map(|reason| reason["code"].as_str()).collect();
    assert!(codes.is_superset(&BTreeSet::from(["IP_FAN_OUT", "NEW_COUNTRY", "NEW_DEVICE"])), "{codes:?}");
    assert_eq!((&george["history"]["attended"], &george["history"]["missed"]), (&json!(2), &json!(5)), "{george}");
    let reminders = fatima["reminders"].as_array().expect("reminders");
    let sent = reminders.iter().find(|reminder| reminder["status"] == "sent").expect("a reminder that was sent");
    assert!(reminders.iter().all(|reminder| reminder["status"] != "failed"), "{fatima}");
    assert_eq!(announced["data"]["reminder_id"], sent["reminder_id"], "{announced}");
    assert_eq!(
        (&announced["type"], &announced["data"]["channels"]),
        (&json!("foretell.reminder.due"), &json!(["sms"]))
    );
    end(demo, &deployment).await;
}

#[tokio::test]
async fn a_demo_that_is_interrupted_early_leaves_nothing_behind_either() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&DEMO));
    until("the demo listens", async || demo.stdout().contains("Foretell demo at http://").then_some(())).await;
    demo.signal("TERM");
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.stderr());
    assert_eq!(directories(&deployment), 0, "the demo removes its directory");
}
