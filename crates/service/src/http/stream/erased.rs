//! Reminders that a stream leaves out: those of clients who have been erased.
//!
//! The topic keeps what was announced, so a stream that starts at the oldest reminder would still name clients whose
//! data was erased since. Just before a reminder is sent, the row of its client is read, for several reminders at once.
//!
//! A withdrawal is left out if its reminder was left out of the same stream. Any other one is sent, because the
//! subscriber may hold the reminder and would act on it.

use super::tail::{About, StreamedReminder};
use foretell_domain::view::client::Client;
use foretell_engine::rows::Rows;
use foretell_ports::Error;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Clients whose rows are read at once.
const CLIENTS_MAX: usize = 50;
/// How long the result of reading a client's row is used.
const FRESH_MAX: Duration = Duration::from_secs(1);
/// Omitted reminders that a stream remembers, 8 bytes each; the withdrawals of further ones are sent.
const LEFT_OUT_MAX: usize = 10_000;

/// Decides for one stream which reminders are omitted.
pub(super) struct Erased {
    rows: Arc<Rows>,
    tenant: String,
    /// Clients that were read; none for a client who was not erased.
    clients: BTreeMap<String, Option<Erasure>>,
    read_at: Instant,
    /// Hashes of the ids of omitted reminders.
    left_out: HashSet<u64>,
}

/// What the row of an erased client still contains.
struct Erasure {
    at_ms: i64,
    /// Appointments booked after it.
    appointments: BTreeSet<String>,
}

impl Erasure {
    fn of(client: &Client) -> Option<Self> {
        let appointments = || client.appointments.keys().cloned().collect();
        client.erased_at_ms.map(|at_ms| Self { at_ms, appointments: appointments() })
    }

    fn covers(&self, about: &About) -> bool {
        about.at_ms <= self.at_ms || !self.appointments.contains(&about.appointment_id)
    }
}

impl Erased {
    pub(super) fn new(rows: Arc<Rows>, tenant: String) -> Self {
        Self { rows, tenant, clients: BTreeMap::new(), read_at: Instant::now(), left_out: HashSet::new() }
    }

    /// Whether a reminder is omitted; `following` are those that are likely to be checked next.
    pub(super) async fn leaves_out<'a>(
        &mut self,
        reminder: &StreamedReminder,
        following: impl Iterator<Item = &'a StreamedReminder>,
    ) -> Result<bool, Error> {
        let Some(about) = &reminder.about else { return Ok(false) };
        let id = xxh3_64(about.reminder_id.as_bytes());
        if reminder.is_withdrawal() {
            return Ok(self.left_out.contains(&id));
        }
        if self.read_at.elapsed() > FRESH_MAX || !self.clients.contains_key(&about.client_id) {
            let following = following.filter_map(|reminder| reminder.about.as_ref());
            self.read(std::iter::once(about).chain(following)).await?;
        }
        let erasure = self.clients.get(&about.client_id).and_then(Option::as_ref);
        let is_left_out = erasure.is_some_and(|erasure| erasure.covers(about));
        if is_left_out && self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.insert(id);
        }
        Ok(is_left_out)
    }

    async fn read<'a>(&mut self, abouts: impl Iterator<Item = &'a About>) -> Result<(), Error> {
        let mut ids = BTreeSet::new();
        for about in abouts {
            if ids.len() >= CLIENTS_MAX {
                break;
            }
            ids.insert(about.client_id.clone());
        }
        self.read_at = Instant::now();
        let rows = self.rows.clients_of(&self.tenant, ids.clone()).await?;
        self.clients = ids.into_iter().map(|id| (id, None)).collect();
        self.clients.extend(rows.into_iter().map(|(id, client)| (id, Erasure::of(&client))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reminder_is_left_out_unless_its_appointment_came_again_after_the_erasure() {
        let about = |appointment_id: &str, at_ms| About {
            reminder_id: "r".into(),
            client_id: "c".into(),
            appointment_id: appointment_id.into(),
            at_ms,
        };
        assert!(Erasure::of(&Client::default()).is_none());
        let client = Client { erased_at_ms: Some(100), ..Client::default() };
        let erasure = Erasure { appointments: ["again".to_owned()].into(), ..Erasure::of(&client).unwrap() };
        for (appointment_id, at_ms, is_covered) in
            [("again", 100, true), ("again", 101, false), ("gone", 100, true), ("gone", 101, true)]
        {
            assert_eq!(erasure.covers(&about(appointment_id, at_ms)), is_covered, "{appointment_id} at {at_ms}");
        }
    }
}
