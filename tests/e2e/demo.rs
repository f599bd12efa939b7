//! The demo is the first thing that anybody sees of it.

use crate::deployment::Deployment;
use crate::process::{Process, until};
use serde_json::Value;

/// The JSON that follows the question in what the demo printed.
fn answer(printed: &str, question: &str) -> Value {
    let (_, rest) = printed.split_once(question).unwrap_or_else(|| panic!("{question:?} in {printed}"));
    let json = &rest[rest.find("\n{").expect("an answer")..];
    let mut values = serde_json::Deserializer::from_str(json).into_iter();
    values.next().expect("an answer").expect("JSON")
}

/// Directories of demos that are there.
fn directories(deployment: &Deployment) -> usize {
    std::fs::read_dir(deployment.scratch().join("tmp")).expect("a directory").count()
}

#[tokio::test]
async fn the_demo_asks_and_answers_and_leaves_nothing_behind() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&["demo", "--listen", "127.0.0.1:0"]));
    until("the demo has told its story", async || {
        assert_eq!(demo.ended(), None, "it ended: {}", demo.stderr());
        demo.stdout().contains("Ctrl-C ends the demo").then_some(())
    })
    .await;
    let printed = demo.stdout();

    let usual = answer(&printed, "Ada, as always");
    assert_eq!((&usual["decision"], &usual["level"]), (&"allow".into(), &"low".into()), "{usual}");
    let stolen = answer(&printed, "Ada's password, used by the attacker");
    assert_eq!(stolen["decision"], "deny", "{stolen}");
    let reasons: Vec<_> = stolen["reasons"].as_array().expect("reasons").iter().map(|r| &r["code"]).collect();
    for code in ["IP_FAN_OUT", "NEW_COUNTRY", "NEW_DEVICE"] {
        assert!(reasons.contains(&&Value::from(code)), "{code} in {reasons:?}");
    }
    let george = answer(&printed, "Will George come?");
    assert_eq!((&george["history"]["attended"], &george["history"]["missed"]), (&2.into(), &5.into()), "{george}");
    let fatima = answer(&printed, "What was Fatima told");
    assert!(fatima["reminders"].as_array().expect("reminders").iter().any(|r| r["status"] == "sent"), "{fatima}");

    assert_eq!(directories(&deployment), 1);
    demo.signal("TERM");
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.stderr());
    assert_eq!(directories(&deployment), 0, "the demo removes its directory");
}

#[tokio::test]
async fn a_demo_that_is_interrupted_early_leaves_nothing_behind_either() {
    let deployment = Deployment::disk();
    let mut demo = Process::start(&deployment, deployment.command(&["demo", "--listen", "127.0.0.1:0"]));
    until("the demo listens", async || demo.stdout().contains("An instance serves").then_some(())).await;
    demo.signal("TERM");
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.stderr());
    assert_eq!(directories(&deployment), 0, "the demo removes its directory");
}
