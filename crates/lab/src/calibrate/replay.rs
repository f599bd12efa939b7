//! Replays a labelled history: every login is scored with what was known just before it, and only users' are folded.

use super::Error;
use crate::evaluate::logins::score;
use crate::source::{Author, SourceData, SourceLabel, Sourced};
use foretell_domain::score::ReasonCode;
use foretell_domain::score::login::{LoginPolicy, LoginScore};
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::LoginFold;
use foretell_domain::view::{Limits, RecordPosition};
use foretell_events::codec::completed;
use foretell_events::login::{Login, LoginFact};
use foretell_events::{Event, Fact};
use std::collections::HashMap;

/// Events between two calls of a progress callback.
const PROGRESS_EVENTS: u64 = 1_000;

/// The scores of one login.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The score; none if the account had no history.
    pub score: Option<f64>,
    /// The score of the baseline: 1 if device and country are new, one half if either is.
    pub baseline: f64,
}

impl Scored {
    fn of(score: &LoginScore) -> Self {
        let has = |code| f64::from(u8::from(score.reasons.iter().any(|reason| reason.code == code)));
        Self { score: score.score, baseline: (has(ReasonCode::NewDevice) + has(ReasonCode::NewCountry)) / 2.0 }
    }
}

/// The scores of one or more histories.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// Successful logins of each account, in order; accounts of different files are different accounts.
    pub people: Vec<Vec<Scored>>,
    /// Attempts of attackers.
    pub attacks: Vec<(Author, Scored)>,
}

impl Replayed {
    /// Adds a file, which errors call `file`. `progress` receives the number of completed events.
    pub fn add(
        &mut self,
        file: &str,
        loaded: &SourceData,
        policy: &LoginPolicy,
        limits: &Limits,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut replay = Replay {
            rows: Materialized::new(LoginFold { limits: limits.clone() }),
            accounts: HashMap::new(),
            policy,
            replayed: self,
        };
        for (done, sourced) in (0_u64..).zip(&loaded.events) {
            replay.take(sourced, done as i64).map_err(|id| Error::Unlabelled { file: file.to_owned(), id })?;
            if done.is_multiple_of(PROGRESS_EVENTS) {
                progress(done);
            }
        }
        Ok(())
    }
}

/// The rows of a file so far, and the scores to add to.
struct Replay<'a> {
    rows: Materialized<LoginFold>,
    /// The index of each account in [`Replayed::people`], by its key.
    accounts: HashMap<String, usize>,
    policy: &'a LoginPolicy,
    replayed: &'a mut Replayed,
}

impl Replay<'_> {
    /// Fails with the id of a login without a label.
    fn take(&mut self, sourced: &Sourced, offset: i64) -> Result<(), String> {
        let event = &completed(sourced.event.clone());
        if let Fact::Login(LoginFact::Attempted(login)) = &event.fact {
            let Some(SourceLabel::Simulated(author)) = sourced.label else { return Err(event.envelope.id.clone()) };
            if author != Author::Legitimate {
                let scored = self.score(event, login);
                self.replayed.attacks.push((author, scored));
                return Ok(());
            }
            if login.succeeded {
                let scored = self.score(event, login);
                let account = self.account(event.key());
                self.replayed.people[account].push(scored);
            }
        }
        self.rows.take(event, RecordPosition { partition: 0, offset });
        Ok(())
    }

    fn score(&self, event: &Event, login: &Login) -> Scored {
        Scored::of(&score(&self.rows, &event.envelope, login, self.policy))
    }

    fn account(&mut self, key: String) -> usize {
        let people = &mut self.replayed.people;
        *self.accounts.entry(key).or_insert_with(|| {
            people.push(Vec::new());
            people.len() - 1
        })
    }
}
