//! Strings as they come, and what is read from them.

use super::*;
use crate::event::Fact;
use crate::source::{self, Format};
use proptest::prelude::*;
use std::path::Path;

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.1 Mobile/15E148 Safari/604.1";

#[test]
fn common_strings_are_read() {
    let chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome";
    for (text, browser, os, device) in [
        (IPHONE.to_owned(), "Mobile Safari 17.1", "iOS 17.1", "mobile"),
        (
            format!("Mozilla/5.0 (Linux; Android 10; K) {chrome}/146.0.0.0 Mobile Safari/537.36"),
            "Chrome Mobile 146.0.0",
            "Android 10",
            "mobile",
        ),
        (
            format!("Mozilla/5.0 (Linux; Android 13; SM-X906C) {chrome}/120.0.6099.144 Safari/537.36"),
            "Chrome 120.0.6099",
            "Android 13",
            "tablet",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 13_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1 \
             Mobile/15E148 Safari/604.1"
                .to_owned(),
            "Mobile Safari 13.1",
            "iOS 13.4",
            "tablet",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0".to_owned(),
            "Firefox 145.0",
            "Windows 10",
            "desktop",
        ),
        (
            format!("Mozilla/5.0 (Windows NT 10.0; Win64; x64) {chrome}/120.0.0.0 Safari/537.36 Edg/120.0.2210.91"),
            "Edge 120.0.2210",
            "Windows 10",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 \
             Safari/605.1.15"
                .to_owned(),
            "Safari 17.1",
            "Mac OS X 10.15.7",
            "desktop",
        ),
        (
            format!("Mozilla/5.0 (X11; Linux x86_64) {chrome}/146.0.0.0 Safari/537.36"),
            "Chrome 146.0.0",
            "Linux",
            "desktop",
        ),
        ("curl/8.5.0".to_owned(), "curl 8.5.0", "", "bot"),
        ("python-requests/2.32.3".to_owned(), "Python Requests 2.32", "", "bot"),
        ("Go-http-client/2.0".to_owned(), "Go-http-client 2.0", "", "bot"),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)".to_owned(),
            "Googlebot 2.1",
            "",
            "bot",
        ),
        ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A)".to_owned(), "Android 14", "Android 14", "mobile"),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36".to_owned(), "", "Tizen 7.0", ""),
        ("garbage".to_owned(), "", "", ""),
        (String::new(), "", "", ""),
        ("\u{0}\u{1}\u{7f}".to_owned(), "", "", ""),
    ] {
        let agent = read(&text);
        let read = (agent.browser.as_deref(), agent.os.as_deref(), agent.device.map(Device::name));
        let read = (read.0.unwrap_or_default(), read.1.unwrap_or_default(), read.2.unwrap_or_default());
        assert_eq!(read, (browser, os, device), "{text}");
    }
}

#[test]
fn programs_are_told_from_people() {
    let headless =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0 Safari/1";
    for (user_agent, scripted) in [
        (Some(""), true),
        (Some("  "), true),
        (Some("curl/8.5.0"), true),
        (Some("Wget/1.21"), true),
        (Some("python-requests/2.32.3"), true),
        (Some("Python-urllib/3.12"), true),
        (Some("Go-http-client/1.1"), true),
        (Some("Java/17.0.1"), true),
        (Some("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)"), true),
        (Some("PostmanRuntime/7.36.0"), true),
        (Some("Scrapy/2.11 (+https://scrapy.org)"), true),
        (Some(headless), true),
        (Some("okhttp/4.12.0"), false), // Apps of people send it.
        (Some("Javascriptly/1.0"), false),
        (Some(IPHONE), false),
        (Some("garbage"), false),
        (None, false),
    ] {
        let mut attempt = Attempt::from_ip([192, 0, 2, 1].into());
        attempt.user_agent = user_agent.map(str::to_owned);
        assert_eq!(is_scripted(&attempt), scripted, "{user_agent:?}");
    }
    let mut said = Attempt::from_ip([192, 0, 2, 1].into());
    said.device_type = Some("bot".into());
    assert!(is_scripted(&said), "the event's own word counts");
}

#[test]
fn what_an_event_says_itself_stays() {
    let mut attempt = Attempt::from_ip([192, 0, 2, 1].into());
    complete(&mut attempt);
    assert_eq!(attempt, Attempt::from_ip([192, 0, 2, 1].into()), "without a user agent there is nothing to read");
    attempt.user_agent = Some(IPHONE.into());
    attempt.os = Some("mine".into());
    complete(&mut attempt);
    let parts = (attempt.browser.as_deref(), attempt.os.as_deref(), attempt.device_type.as_deref());
    assert_eq!(parts, (Some("Mobile Safari 17.1"), Some("mine"), Some("mobile")));
    let before = attempt.clone();
    complete(&mut attempt);
    assert_eq!(attempt, before, "and a second time changes nothing");
}

/// The data set's levels come from the same rules, of 2021; its strings are partly invented (two systems in one), so
/// that not all can agree.
#[test]
fn most_of_the_public_data_set_is_read_as_its_authors_read_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rba-sample.csv.gz");
    let loaded = source::read(&path, Format::Rba, "default").unwrap();
    let (mut systems, mut devices) = (0, 0);
    for sourced in &loaded.events {
        let Fact::Login(login) = &sourced.event.fact else { panic!("a file of logins") };
        let agent = read(login.attempt.user_agent.as_deref().unwrap_or_default());
        systems += usize::from(agent.os == login.attempt.os);
        devices += usize::from(agent.device.map(Device::name) == login.attempt.device_type.as_deref());
    }
    assert!(systems > 1_900 && devices > 1_550, "{systems} systems and {devices} kinds of device of 2000");
}

#[test]
fn whatever_is_behind_the_first_kilobyte_is_not_read() {
    let long = format!("{}{IPHONE}", " ".repeat(USER_AGENT_KEPT_BYTES));
    assert_eq!(*read(&long), Agent::default());
    let cut_short = format!("{IPHONE}{}", "é".repeat(32 * 1024));
    assert_eq!(read(&cut_short).browser.as_deref(), Some("Mobile Safari 17.1"));
    let endless = format!("Mozilla/5.0 {}/1.0", "Robot".repeat(200));
    let label = read(&endless).browser.clone().unwrap_or_default();
    assert!(label.len() <= LABEL_BYTES_MAX, "labels are parts of keys: {} bytes", label.len());
}

#[test]
fn the_rules_have_a_name() {
    assert!(RULES_COMPILED.is_some());
    let (version, digest) = rules().split_once('.').unwrap();
    assert_eq!((version, digest.len()), (READING_VERSION.to_string().as_str(), 16));
}

proptest! {
    #[test]
    fn any_string_is_read_and_remembered_as_it_was_read(text in ".{0,300}", words in "[ -~]{0,1100}") {
        for text in [text, words] {
            let agent = parse(&text);
            prop_assert_eq!(&*read(&text), &agent);
            prop_assert_eq!(&*read(&text), &agent);
            for label in [agent.browser, agent.os].into_iter().flatten() {
                prop_assert!((1..=LABEL_BYTES_MAX).contains(&label.len()));
            }
        }
    }
}
