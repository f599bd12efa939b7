//! Client software: which browsers exist, and which user agent each sends at a given time.
//!
//! User agents have the reduced form of today's browsers: a frozen system, and only the major version (Chromium's
//! "User-Agent Reduction"). All users of the same version of the same browser on the same system therefore share one
//! user agent.

use crate::source::draw::Sequence;
use foretell_events::time::DAY_MS;

/// How long after a release a device is updated, in days on average: "the majority of users within two weeks"
/// (Chromium's release cycle).
const UPDATE_DAYS: f64 = 12.0;
/// Share of devices that are never updated again; chosen.
const NEVER_UPDATED: f64 = 0.03;

/// A browser on a system.
#[derive(Debug, PartialEq)]
pub(super) struct Software {
    /// Per ten thousand devices of its class.
    share: u32,
    browser: &'static str,
    os: &'static str,
    /// The user agent, with `#` for the version.
    agent: &'static str,
    /// The version at the beginning of 2024.
    version: i64,
    /// Days between two releases.
    cycle_days: i64,
}

/// The class of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Phone,
    Computer,
}

impl Class {
    pub(super) const fn device_type(self) -> &'static str {
        match self {
            Self::Phone => "mobile",
            Self::Computer => "desktop",
        }
    }

    const fn software(self) -> &'static [Software] {
        match self {
            Self::Phone => &PHONES,
            Self::Computer => &COMPUTERS,
        }
    }
}

/// StatCounter's shares on phones, as quoted by gagadget.com in 2025 (Chrome 69.15, Safari 20.32, Samsung 3.33),
/// without the others.
const PHONES: [Software; 3] = [
    Software {
        share: 7_451,
        browser: "Chrome Mobile",
        os: "Android 10",
        agent: "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Mobile Safari/537.36",
        version: 120,
        cycle_days: 28,
    },
    Software {
        share: 2_190,
        browser: "Mobile Safari",
        os: "iOS #",
        agent: "Mozilla/5.0 (iPhone; CPU iPhone OS #_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/#.0 Mobile/15E148 Safari/604.1",
        version: 17,
        // For system and browser together; each minor release counts as a version.
        cycle_days: 60,
    },
    Software {
        share: 359,
        browser: "Samsung Internet",
        os: "Android 10",
        agent: "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/#.0 Chrome/115.0.0.0 Mobile Safari/537.36",
        version: 23,
        cycle_days: 90,
    },
];

/// StatCounter's shares on computers, from the same source (Chrome 70.25, Edge 11.8, Safari 6.34, Firefox 4.94, Opera
/// 2.06), without the others; the division of Chrome and Firefox among systems is chosen.
const COMPUTERS: [Software; 8] = [
    Software {
        share: 6_190,
        browser: "Chrome",
        os: "Windows 10",
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
        version: 120,
        cycle_days: 28,
    },
    Software {
        share: 884,
        browser: "Chrome",
        os: "Mac OS X 10.15",
        agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
        version: 120,
        cycle_days: 28,
    },
    Software {
        share: 291,
        browser: "Chrome",
        os: "Linux",
        agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36",
        version: 120,
        cycle_days: 28,
    },
    Software {
        share: 1_237,
        browser: "Edge",
        os: "Windows 10",
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/#.0.0.0 Safari/537.36 Edg/#.0.0.0",
        version: 120,
        cycle_days: 28,
    },
    Software {
        share: 664,
        browser: "Safari",
        os: "Mac OS X 10.15",
        agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/#.0 Safari/605.1.15",
        version: 17,
        cycle_days: 60,
    },
    Software {
        share: 414,
        browser: "Firefox",
        os: "Windows 10",
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:#.0) Gecko/20100101 Firefox/#.0",
        version: 121,
        cycle_days: 28,
    },
    Software {
        share: 104,
        browser: "Firefox",
        os: "Linux",
        agent: "Mozilla/5.0 (X11; Linux x86_64; rv:#.0) Gecko/20100101 Firefox/#.0",
        version: 121,
        cycle_days: 28,
    },
    Software {
        share: 216,
        browser: "Opera",
        os: "Windows 10",
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 OPR/#.0.0.0",
        version: 106,
        cycle_days: 28,
    },
];

/// A browser of a user, with the user's usual delay of updates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) class: Class,
    software: &'static Software,
    late_ms: i64,
    /// From then on it is no longer updated.
    last_ms: i64,
}

/// What a client sends about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Appearance {
    pub(super) user_agent: String,
    pub(super) browser: String,
    pub(super) os: String,
    pub(super) device_type: &'static str,
}

impl Client {
    /// A browser on a machine of this class, for the time from 0 to `end_ms`.
    pub(super) fn new(class: Class, end_ms: i64, chance: &mut Sequence) -> Self {
        let software = class.software();
        let software = &software[chance.weighted(software.iter().map(|software| software.share))];
        let late_ms = (-(1.0 - chance.share()).ln() * UPDATE_DAYS * 24.0) as i64 * (DAY_MS / 24);
        let is_given_up = chance.happens(NEVER_UPDATED);
        let last_ms = if is_given_up { chance.below(end_ms.max(1) as u64) as i64 } else { i64::MAX };
        Self { class, software, late_ms, last_ms }
    }

    /// The same browser, up to date.
    pub(super) fn latest(self) -> Self {
        Self { late_ms: 0, last_ms: i64::MAX, ..self }
    }

    /// What it sends at a time after the beginning.
    pub(super) fn at(&self, since_ms: i64) -> Appearance {
        let Software { browser, os, agent, version, cycle_days, .. } = self.software;
        let releases = (since_ms.min(self.last_ms) - self.late_ms).div_euclid(cycle_days * DAY_MS);
        let version = (version + releases).to_string();
        Appearance {
            user_agent: agent.replace('#', &version),
            browser: format!("{browser} {version}"),
            os: os.replace('#', &version),
            device_type: self.class.device_type(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::draw::Draw;
    use std::collections::BTreeSet;

    #[test]
    fn shares_are_of_ten_thousand_and_strings_have_versions() {
        for class in [Class::Phone, Class::Computer] {
            assert_eq!(class.software().iter().map(|software| software.share).sum::<u32>(), 10_000);
            assert!(class.software().iter().all(|software| software.agent.contains('#')));
        }
    }

    #[test]
    fn a_release_reaches_most_within_two_weeks_and_some_never() {
        let end_ms = 365 * DAY_MS;
        let mut chance = Draw::new(1).sequence(0, 0);
        let clients: Vec<_> = (0..2_000).map(|_| Client::new(Class::Computer, end_ms, &mut chance)).collect();
        // On day 280 everything with a cycle of 28 days has a release; two weeks later:
        let chrome: Vec<_> = clients.iter().filter(|client| client.software.cycle_days == 28).collect();
        let is_current = |client: &&&Client| client.at(294 * DAY_MS) == client.latest().at(294 * DAY_MS);
        let share = chrome.iter().filter(is_current).count() as f64 / chrome.len() as f64;
        assert!((0.6..0.75).contains(&share), "{share}");
        let versions: BTreeSet<_> = chrome.iter().map(|client| client.at(end_ms).browser).collect();
        assert!(versions.len() > 10, "some are outdated: {versions:?}");
    }
}
