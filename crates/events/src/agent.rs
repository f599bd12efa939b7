//! Browser, system and kind of device of a user agent, by the rules of uap-core.
//!
//! ```text
//!   user_agent ─► memo ─► uap-core's rules ─► browser "Chrome Mobile 46.0.2490"   filled in where the
//!                  └ known              └──► system  "iOS 13.4"                   event has none; what
//!                                       └──► device  mobile|tablet|desktop|bot    it has, wins
//! ```
//!
//! The rules are data that many people maintain (`uap-core/README.md` documents the compiled version and its licence),
//! and the parser of the same project applies them. [`programs`] determines which user agents are programs instead of
//! people. The parsed parts are never written to the log: they follow from the string, so a record is
//! [completed](complete) when it is read for a fold, and a request when it is scored. Newer rules result in different
//! rows from the same log; [`rules`] is therefore part of the views' fingerprint.
//!
//! Parsing takes tens of microseconds and the same few thousand strings come again and again, so the results are
//! cached. The cache has no visible effect: the result is the same with it and without it.

mod programs;

use super::codec::bounds::{LABEL_BYTES_MAX, USER_AGENT_KEPT_BYTES};
use super::login::Attempt;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::{Arc, LazyLock};
use ua_parser::{Extractor, Regexes, os, user_agent};

/// Bytes of the strings whose parts are cached; about ten thousand strings of browsers.
const MEMO_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of a cache entry in addition to its string.
const MEMO_ENTRY_BYTES: usize = 256;
/// How many strings are expected.
const MEMO_ENTRIES: usize = 10_000;
/// Raised whenever the same rules read the same string differently.
const READING_VERSION: u32 = 2;
/// The rules of uap-core, as JSON.
const RULES: &str = include_str!("agent/uap-core/regexes.json");

/// The parts of a user agent; unrecognised parts are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// Family and up to three numbers of its version, as in `Chrome Mobile 46.0.2490`.
    pub browser: Option<String>,
    /// Family and up to three numbers of its version, as in `iOS 13.4`.
    pub os: Option<String>,
    /// See [`DeviceType`].
    pub device: Option<DeviceType>,
    /// Whether it names a program that people do not log in with: a library, a tool, a crawler, an automated browser.
    pub scripted: bool,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// A phone.
    Mobile,
    /// A tablet, if the user agent identifies it as one.
    Tablet,
    /// A computer.
    Desktop,
    /// Not a person's device.
    Bot,
}

impl DeviceType {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
            Self::Bot => "bot",
        }
    }
}

/// The name of the rules: equal names mean equal parts for equal strings.
pub fn rules() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        [RULES, programs::PATTERNS, programs::NAMES].iter().for_each(|rules| hash.update(rules.as_bytes()));
        format!("{READING_VERSION}.{:016x}", hash.digest())
    });
    &NAME
}

/// Fills in the missing parts of an attempt from its user agent; existing values stay.
pub fn complete(attempt: &mut Attempt) {
    let Some(user_agent) = attempt.user_agent.as_deref() else { return };
    let is_complete = attempt.browser.is_some() && attempt.os.is_some() && attempt.device_type.is_some();
    if is_complete || user_agent.is_empty() {
        return;
    }
    let agent = read(user_agent);
    fill(&mut attempt.browser, agent.browser.as_deref());
    fill(&mut attempt.os, agent.os.as_deref());
    fill(&mut attempt.device_type, agent.device.map(DeviceType::name));
}

fn fill(field: &mut Option<String>, text: Option<&str>) {
    if field.is_none() {
        *field = text.map(str::to_owned);
    }
}

/// Whether a program made an attempt: its user agent is empty or names a program, or its device type is a bot.
///
/// An attempt without a user agent is not considered a program's.
pub fn is_scripted(attempt: &Attempt) -> bool {
    let says_so = attempt.user_agent.as_deref().is_some_and(|text| text.trim().is_empty() || read(text).scripted);
    says_so || attempt.device_type.as_deref() == Some(DeviceType::Bot.name())
}

/// Weighs the entries of the cache by their memory.
#[derive(Debug, Clone)]
struct EntryBytes;

impl Weighter<Box<str>, Arc<Agent>> for EntryBytes {
    fn weight(&self, text: &Box<str>, _: &Arc<Agent>) -> u64 {
        (text.len() + MEMO_ENTRY_BYTES) as u64
    }
}

/// The parts of a user agent; only its first [`USER_AGENT_KEPT_BYTES`] are read.
pub fn read(user_agent: &str) -> Arc<Agent> {
    static MEMO: LazyLock<Cache<Box<str>, Arc<Agent>, EntryBytes, hashbrown::DefaultHashBuilder>> =
        LazyLock::new(|| {
            let hasher = hashbrown::DefaultHashBuilder::default();
            Cache::with(MEMO_ENTRIES, MEMO_BYTES_MAX, EntryBytes, hasher, DefaultLifecycle::default())
        });
    let kept = cut(user_agent, USER_AGENT_KEPT_BYTES);
    MEMO.get(kept).unwrap_or_else(|| {
        let agent = Arc::new(parse(kept));
        MEMO.insert(kept.into(), Arc::clone(&agent));
        agent
    })
}

/// The parts of a user agent, parsed without the cache, for measurements of the parser.
pub fn parse(user_agent: &str) -> Agent {
    let Some(rules) = RULES_COMPILED.as_ref() else { return Agent::default() };
    let user_agent = cut(user_agent, USER_AGENT_KEPT_BYTES);
    let (browser, os, device) = rules.extract(user_agent);
    let family = browser.as_ref().map_or("", |browser| browser.family.as_ref());
    let system = os.as_ref().map_or("", |os| os.os.as_ref());
    let parsed =
        ParsedAgent { text: user_agent, browser: family, system, device: device.as_ref().map_or("", |d| &d.device) };
    Agent {
        device: parsed.device(),
        scripted: parsed.is_scripted(),
        browser: browser.as_ref().and_then(browser_label),
        os: os.as_ref().and_then(os_label),
    }
}

/// Compiles the rules, which takes some tenths of a second; otherwise the first request with a user agent waits for it.
pub fn warm() {
    LazyLock::force(&RULES_COMPILED);
    programs::warm();
}

/// None only if the rules cannot be compiled, which a test would have found: then nothing is recognised.
static RULES_COMPILED: LazyLock<Option<Extractor<'static>>> = LazyLock::new(|| {
    let rules: Regexes<'static> = serde_json::from_str(RULES).ok()?;
    rules.try_into().ok()
});

fn browser_label(found: &user_agent::ValueRef<'_>) -> Option<String> {
    label(&found.family, [found.major, found.minor, found.patch])
}

fn os_label(found: &os::ValueRef<'_>) -> Option<String> {
    label(&found.os, [found.major.as_deref(), found.minor.as_deref(), found.patch.as_deref()])
}

/// A family and its version: up to three numbers, as in the public data set, because the fourth changes with every
/// update and would make each update a browser that was never seen before.
fn label(family: &str, version: [Option<&str>; 3]) -> Option<String> {
    let numbers: Vec<_> = version.into_iter().map_while(|part| part.filter(|part| !part.is_empty())).collect();
    let whole = if numbers.is_empty() { family.to_owned() } else { format!("{family} {}", numbers.join(".")) };
    let label = cut(whole.trim(), LABEL_BYTES_MAX);
    (!label.is_empty()).then(|| label.to_owned())
}

/// The result of the rules, from which the kind of device is determined.
struct ParsedAgent<'a> {
    text: &'a str,
    browser: &'a str,
    system: &'a str,
    device: &'a str,
}

impl ParsedAgent<'_> {
    /// In this order: programs; tablets, which otherwise look like phones; phones; computers. Anything else, such as
    /// televisions and consoles, has no kind, and that level of the likelihood is not used.
    fn device(&self) -> Option<DeviceType> {
        if self.is_scripted() {
            return Some(DeviceType::Bot);
        }
        let contains = |words: &[&str]| words.iter().any(|word| self.text.contains(word));
        let system = |names: &[&str]| names.iter().any(|name| self.system.starts_with(name));
        if contains(&["TV", "BRAVIA", "CrKey", "PlayStation", "Xbox", "Nintendo"]) {
            return None;
        }
        // Browsers on Android mark tablets by omitting "Mobile"; apps always omit it.
        let is_bare_android = self.system == "Android" && self.text.starts_with("Mozilla/") && !contains(&["Mobi"]);
        if self.device.starts_with("iPad")
            || contains(&["iPad", "Tablet", "PlayBook", "Kindle", "Silk/"])
            || is_bare_android
        {
            return Some(DeviceType::Tablet);
        }
        let phones =
            ["iOS", "Android", "Windows Phone", "Windows Mobile", "BlackBerry", "KaiOS", "Symbian", "Firefox OS"];
        if system(&phones) || contains(&["Mobi", "Phone"]) {
            return Some(DeviceType::Mobile);
        }
        let is_computer =
            system(&["Windows", "Mac OS", "Linux", "Chrome OS", "FreeBSD", "OpenBSD", "NetBSD", "Solaris"])
                || contains(&["X11;"]);
        is_computer.then_some(DeviceType::Desktop)
    }

    fn is_scripted(&self) -> bool {
        self.device == "Spider" || self.browser == "Spider" || programs::has(self.text)
    }
}

/// The beginning of a text, cut at a character boundary.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests;
