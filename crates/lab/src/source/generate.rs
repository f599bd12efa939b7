//! Generated logins for measurements: any number, from a seed, the same on every machine.
//!
//! A few accounts log in often and most rarely. Each has one to four devices and prefers the first one, a home address,
//! and sometimes another location; people mistype their passwords. In addition, a few addresses spray passwords: they
//! try one account after another in short rounds and never succeed. All draws are XXH3 of the seed, a stream and a
//! counter, so that no library's generator can change the sequence.
//!
//! The distributions are chosen and not fitted to real data: they are suitable to measure speed, but not the quality of
//! scores.

use super::draw::Draw;
use foretell_events::login::{Attempt, Login, LoginFact};
use foretell_events::{DEFAULT_TENANT, Envelope, Event};
use std::net::{IpAddr, Ipv4Addr};

/// The `source` of the events.
pub const SOURCE: &str = "urn:foretell:generated";

/// Maximum number of devices per account.
const DEVICES_MAX: u64 = 4;
/// Accounts that a sprayer tries in one round.
const ROUND: u64 = 50;

/// Names of browsers with a prefix of their versions, and of systems with their device type.
const BROWSERS: [&str; 5] = ["Chrome", "Safari", "Firefox", "Edge", "Chrome Mobile"];
const SYSTEMS: [(&str, &str); 5] = [
    ("Windows 11", "desktop"),
    ("Mac OS X 14.5", "desktop"),
    ("Linux", "desktop"),
    ("iOS 17.5", "mobile"),
    ("Android 14", "mobile"),
];
const COUNTRIES: [&str; 6] = ["IE", "NO", "DE", "BR", "IN", "US"];

/// What a large share of all attempts have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hot {
    /// One account, which is attacked from everywhere without success.
    User,
    /// One address, which tries every account without success.
    Address,
}

/// The parameters of generated logins.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorParams {
    /// The seed; each results in different logins.
    pub seed: u64,
    /// The tenant of the logins.
    pub tenant: String,
    /// Accounts, at least 1.
    pub users: u32,
    /// Share of an account's own attempts that fail, 0 to 1.
    pub failure_share: f64,
    /// Addresses that spray passwords; 0: none.
    pub sprayers: u32,
    /// Share of all attempts that come from them, 0 to 1.
    pub spray_share: f64,
    /// The hot user or address, and its share of all attempts, 0 to 1.
    pub hot: Option<(Hot, f64)>,
    /// The time of the first login.
    pub start_ms: i64,
    /// Average time between two logins.
    pub gap_ms: u32,
}

impl Default for GeneratorParams {
    fn default() -> Self {
        Self {
            seed: 1,
            tenant: DEFAULT_TENANT.into(),
            users: 50_000,
            failure_share: 0.15,
            sprayers: 5,
            spray_share: 0.02,
            hot: None,
            start_ms: 1_767_225_600_000, // 2026-01-01T00:00:00Z
            gap_ms: 200,
        }
    }
}

/// Generated logins, without end, in order of time.
#[derive(Debug, Clone)]
pub struct GeneratedLogins {
    shape: GeneratorParams,
    count: u64,
    time_ms: i64,
}

impl GeneratedLogins {
    /// Starts with the first login.
    pub fn new(shape: GeneratorParams) -> Self {
        Self { count: 0, time_ms: shape.start_ms, shape }
    }

    /// See [`Draw::bits`].
    fn bits(&self, stream: Stream, index: u64) -> u64 {
        Draw::new(self.shape.seed).bits(stream as u8, index)
    }

    /// See [`Draw::share`].
    fn share(&self, stream: Stream, index: u64) -> f64 {
        Draw::new(self.shape.seed).share(stream as u8, index)
    }

    fn people(&self, at: u64) -> Login {
        // The third power: a tenth of the accounts makes nearly half of the logins.
        let user = (self.share(Stream::User, at).powi(3) * f64::from(self.shape.users)) as u64;
        let devices = 1 + self.bits(Stream::Devices, user) % DEVICES_MAX;
        let device = (self.share(Stream::Device, at).powi(2) * devices as f64) as u64;
        let is_away = self.share(Stream::Away, at) < 0.1;
        let succeeded = self.share(Stream::Failure, at) >= self.shape.failure_share;
        let origin = if is_away { self.bits(Stream::Origin, at) } else { self.bits(Stream::Home, user) };
        login(user, succeeded, self.attempt(origin, user * DEVICES_MAX + device))
    }

    fn sprayer(&self, at: u64) -> Login {
        let sprayer = at / ROUND % u64::from(self.shape.sprayers.max(1));
        let user = self.bits(Stream::Sprayed, at) % u64::from(self.shape.users.max(1));
        login(user, false, self.attempt(self.bits(Stream::Sprayer, sprayer), u64::MAX - sprayer))
    }

    fn hot(&self, hot: Hot, at: u64) -> Login {
        match hot {
            Hot::User => login(0, false, self.attempt(self.bits(Stream::Origin, at), u64::MAX - at)),
            Hot::Address => {
                let user = self.bits(Stream::Sprayed, at) % u64::from(self.shape.users.max(1));
                login(user, false, self.attempt(self.bits(Stream::Sprayer, 0), u64::MAX))
            }
        }
    }

    /// An attempt with a device and an origin, which determines the network, the country and the address.
    fn attempt(&self, origin: u64, device: u64) -> Attempt {
        let network = origin % 2_000;
        let looks = self.bits(Stream::Looks, device);
        let browser = BROWSERS[(looks % 5) as usize];
        let (os, device_type) = SYSTEMS[(looks >> 8) as usize % SYSTEMS.len()];
        let version = 100 + (looks >> 16) % 30;
        let address = (10_u32 << 24) | ((network as u32) << 12) | (origin >> 32) as u32 & 0xfff;
        Attempt {
            user_agent: Some(format!("Mozilla/5.0 ({os}; build {}) {browser}/{version}.0", (looks >> 32) % 500)),
            device_id: (looks >> 24).is_multiple_of(2).then(|| format!("device-{looks:016x}")),
            country: Some(COUNTRIES[network as usize % COUNTRIES.len()].to_owned()),
            asn: Some(64_512 + (network / 4) as u32),
            browser: Some(format!("{browser} {version}")),
            os: Some(os.to_owned()),
            device_type: Some(device_type.to_owned()),
            ..Attempt::from_ip(IpAddr::V4(Ipv4Addr::from_bits(address)))
        }
    }
}

/// The purpose of a draw: draws of different streams are independent.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Kind,
    Gap,
    User,
    Devices,
    Device,
    Looks,
    Home,
    Away,
    Origin,
    Failure,
    Sprayer,
    Sprayed,
    Hot,
}

fn login(user: u64, succeeded: bool, attempt: Attempt) -> Login {
    Login {
        user_id: format!("user-{user}"),
        succeeded,
        attempt,
        decision_id: None,
        session_id: None,
        method: Some("password".into()),
        failure_reason: (!succeeded).then(|| "bad_password".into()),
    }
}

impl Iterator for GeneratedLogins {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let at = self.count;
        let is_spray = self.shape.sprayers > 0 && self.share(Stream::Kind, at / ROUND) < self.shape.spray_share;
        let hot = self.shape.hot.filter(|(_, share)| self.share(Stream::Hot, at) < *share);
        let login = match hot {
            Some((hot, _)) => self.hot(hot, at),
            None if is_spray => self.sprayer(at),
            None => self.people(at),
        };
        // Uniform between nothing and twice the mean.
        let gap_ms = self.share(Stream::Gap, at) * 2.0 * f64::from(self.shape.gap_ms);
        let id = format!("{}-{at}", self.shape.seed);
        let (source, tenant) = (SOURCE.to_owned(), self.shape.tenant.clone());
        let envelope = Envelope { id, source, tenant, time_ms: self.time_ms };
        self.time_ms += gap_ms as i64;
        self.count += 1;
        Some(Event { envelope, fact: LoginFact::Attempted(Box::new(login)).into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::Fact;
    use std::collections::{BTreeMap, BTreeSet};

    const MANY: usize = 100_000;

    fn logins(shape: GeneratorParams, count: usize) -> Vec<(Event, Login)> {
        let login = |event: Event| {
            let Fact::Login(LoginFact::Attempted(login)) = event.fact.clone() else { panic!("{event:?}") };
            (event, *login)
        };
        GeneratedLogins::new(shape).take(count).map(login).collect()
    }

    #[test]
    fn a_seed_gives_the_same_logins_and_another_one_others() {
        let of = |seed| logins(GeneratorParams { seed, ..GeneratorParams::default() }, 100);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let ids: BTreeSet<_> = of(7).iter().map(|(event, _)| event.envelope.id.clone()).collect();
        assert_eq!(ids.len(), 100);
        let (first, login) = &of(1)[0];
        assert_eq!((first.envelope.id.as_str(), login.user_id.as_str()), ("1-0", "user-1760"), "as on every machine");
    }

    #[test]
    fn shares_and_skew_are_as_configured() {
        let shape = GeneratorParams { sprayers: 0, ..GeneratorParams::default() };
        let drawn = logins(shape.clone(), MANY);
        let failed = drawn.iter().filter(|(_, login)| !login.succeeded).count() as f64 / MANY as f64;
        assert!((failed - shape.failure_share).abs() < 0.01, "{failed}");
        let mut by_user = BTreeMap::<&str, usize>::new();
        drawn.iter().for_each(|(_, login)| *by_user.entry(&login.user_id).or_default() += 1);
        let mut counts: Vec<_> = by_user.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let busiest: usize = counts.iter().take(shape.users as usize / 10).sum();
        assert!((40_000..60_000).contains(&busiest), "{busiest}");
        let span_ms = drawn[MANY - 1].0.envelope.time_ms - shape.start_ms;
        let mean_ms = span_ms as f64 / MANY as f64;
        assert!((mean_ms / f64::from(shape.gap_ms) - 1.0).abs() < 0.02, "{mean_ms}");
        assert!(drawn.is_sorted_by_key(|(event, _)| event.envelope.time_ms));
    }

    #[test]
    fn the_hot_user_or_address_has_its_share_and_reaches_all() {
        let hot = |hot| {
            logins(
                GeneratorParams { hot: Some((hot, 0.5)), users: 100, sprayers: 0, ..GeneratorParams::default() },
                MANY,
            )
        };
        let one_user = hot(Hot::User);
        let failures = one_user.iter().filter(|(_, login)| login.user_id == "user-0" && !login.succeeded);
        let addresses: BTreeSet<_> = failures.clone().map(|(_, login)| login.attempt.ip).collect();
        assert!((48_000..60_000).contains(&failures.count()));
        assert!(addresses.len() > 40_000, "{}", addresses.len());
        let mut accounts = BTreeMap::<IpAddr, (usize, BTreeSet<String>)>::new();
        for (_, login) in hot(Hot::Address) {
            let (count, users) = accounts.entry(login.attempt.ip).or_default();
            *count += 1;
            users.insert(login.user_id);
        }
        let (count, users) = accounts.into_values().max_by_key(|(count, _)| *count).unwrap();
        assert!((48_000..52_000).contains(&count) && users.len() == 100, "{count} {}", users.len());
    }

    #[test]
    fn people_have_one_to_four_devices_and_sprayers_many_accounts() {
        let shape = GeneratorParams { users: 200, ..GeneratorParams::default() };
        let mut devices = BTreeMap::<String, BTreeSet<String>>::new();
        let mut accounts = BTreeMap::<IpAddr, BTreeSet<String>>::new();
        for (_, login) in logins(shape, MANY) {
            let agent = login.attempt.user_agent.unwrap();
            if login.succeeded {
                devices.entry(login.user_id).or_default().insert(agent);
            } else {
                accounts.entry(login.attempt.ip).or_default().insert(login.user_id);
            }
        }
        let counts: BTreeSet<_> = devices.values().map(BTreeSet::len).collect();
        assert_eq!(counts, BTreeSet::from([1, 2, 3, 4]));
        let sprayed = accounts.values().filter(|accounts| accounts.len() > 100).count();
        assert_eq!(sprayed, 5, "five addresses try most of the accounts");
    }

    #[test]
    fn what_is_generated_can_be_sent_and_read() {
        use foretell_events::codec;
        for event in GeneratedLogins::new(GeneratorParams::default()).take(1_000) {
            let shown = codec::structured_event(&codec::Parsed::of(event.clone()));
            let defaults = codec::Defaults { tenant: "other", time_ms: 0 };
            assert_eq!(codec::decode_structured(&shown, defaults).unwrap().event, event);
        }
    }
}
