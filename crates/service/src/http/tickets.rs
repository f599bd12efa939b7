//! `POST /v1/streams/tickets`: a ticket opens one stream, for pages whose browser cannot send a key.
//!
//! A browser's `EventSource` cannot set `Authorization`, so a page passes a ticket in the query of the stream instead.
//! Queries are stored in histories and in the logs of proxies, so a ticket permits little: it can be used once, within
//! a minute, and only for the stream, with the tenant of its key and no scope but `visits:read`.
//!
//! Only the process that issued a ticket accepts it: so "once" holds without exception, and no state has to be shared
//! (docs/adr/0014). Like a key, a ticket is stored only as its digest; its 256 bits come from the operating system.
//! Tenants share the capacity for unused tickets.

use super::Api;
use super::admission;
use super::answer::at;
use super::auth::{Caller, Hashed, Sender};
use super::problem::Problem;
use crate::limiter::{Limiter, Permit};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use url::form_urlencoded;
use utoipa::ToSchema;

/// How long a ticket is valid, in milliseconds.
const TICKET_MS: i64 = 60_000;
/// Unused tickets of a process; a tenant has at most as many as are free.
const TICKETS_MAX: u64 = 1_024;
/// Random bytes of a ticket.
const TICKET_BYTES: usize = 32;
/// The prefix of every ticket, which distinguishes it from a key.
const PREFIX: &str = "ft_";

/// A ticket for one stream.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct StreamTicket {
    /// The value of the query parameter `ticket` of the stream.
    pub ticket: String,
    /// When it expires.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// Issues a ticket that opens one stream of reminders, once and within a minute.
///
/// For pages: a browser's `EventSource` cannot send a key, and passes the ticket as the query parameter `ticket` of
/// `GET /v1/reminders/stream`. The ticket has the tenant of the key, permits nothing else, and is accepted only by the
/// process that issued it.
#[utoipa::path(
    post, path = "/v1/streams/tickets", operation_id = "createStreamTicket", tag = "reminders",
    params(("Foretell-Tenant" = Option<String>, Header)),
    responses((status = 201, description = "The ticket", body = StreamTicket))
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    _caller: Caller,
    Extension(sender): Extension<Sender>,
) -> Result<(StatusCode, Json<StreamTicket>), Problem> {
    let now_ms = api.ports.clock.now_ms();
    let ticket = api.tickets.issue(sender, now_ms)?;
    Ok((StatusCode::CREATED, Json(StreamTicket { ticket, expires_at: at(now_ms + TICKET_MS) })))
}

/// The ticket in a query.
pub(super) fn named(query: Option<&str>) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(query?.as_bytes()).find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket)
}

/// The tickets of a process that have not been used.
pub(super) struct Tickets {
    limiter: Arc<Limiter<1>>,
    unused: Mutex<HashMap<Hashed, Unused>>,
}

struct Unused {
    sender: Sender,
    issued_at_ms: i64,
    _permit: Permit<1>,
}

impl Unused {
    /// Not valid before it was issued either: a clock that was set back must not extend its validity.
    fn is_valid_at(&self, now_ms: i64) -> bool {
        (self.issued_at_ms..self.issued_at_ms + TICKET_MS).contains(&now_ms)
    }
}

impl Tickets {
    /// No tickets.
    pub(super) fn new() -> Self {
        Self { limiter: Limiter::new([TICKETS_MAX]), unused: Mutex::default() }
    }

    /// Issues a new ticket for the sender. Expired ones are removed first.
    ///
    /// # Errors 429 if the tenant has its share of unused tickets, 503 if all tenants together have as many as
    /// possible.
    fn issue(&self, sender: Sender, now_ms: i64) -> Result<String, Problem> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.retain(|_, ticket| ticket.is_valid_at(now_ms));
        let permit = self
            .limiter
            .acquire(sender.tenant(), [1])
            .map_err(|full| admission::over_capacity(full, "unused tickets"))?;
        let mut random = [0; TICKET_BYTES];
        getrandom::fill(&mut random).map_err(Problem::internal)?;
        let ticket = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        unused.insert(Hashed::of(&ticket), Unused { sender, issued_at_ms: now_ms, _permit: permit });
        Ok(ticket)
    }

    /// The sender that a valid ticket was issued to. The ticket cannot be used again.
    pub(super) fn redeem(&self, ticket: &str, now_ms: i64) -> Option<Sender> {
        let taken = self.unused.lock().unwrap_or_else(PoisonError::into_inner).remove(&Hashed::of(ticket))?;
        taken.is_valid_at(now_ms).then(|| taken.sender.by_ticket())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::ProblemCode;

    const NOW_MS: i64 = 1_772_359_200_000;

    fn given(tickets: &Tickets, tenant: &str, now_ms: i64) -> Result<String, ProblemCode> {
        tickets.issue(Sender::of_tenant(tenant), now_ms).map_err(|problem| problem.code())
    }

    #[test]
    fn a_ticket_is_taken_once_and_within_its_minute() {
        let tickets = Tickets::new();
        for (after_ms, is_taken) in [(0, true), (TICKET_MS - 1, true), (TICKET_MS, false), (-1, false)] {
            let ticket = given(&tickets, "acme", NOW_MS).unwrap();
            let taken = tickets.redeem(&ticket, NOW_MS + after_ms);
            assert_eq!(taken.map(|sender| sender.tenant().to_owned()), is_taken.then(|| "acme".to_owned()));
            assert!(tickets.redeem(&ticket, NOW_MS).is_none(), "{after_ms}: whatever became of the first use");
        }
        assert!(tickets.redeem("", NOW_MS).is_none());
        assert!(tickets.redeem(PREFIX, NOW_MS).is_none());
    }

    #[test]
    fn tickets_are_random_and_need_no_encoding_in_a_query() {
        let tickets = Tickets::new();
        let given: std::collections::BTreeSet<_> = (0..100).map(|_| given(&tickets, "acme", NOW_MS).unwrap()).collect();
        assert_eq!(given.len(), 100);
        for ticket in given {
            let random = BASE64_URL_SAFE_NO_PAD.decode(ticket.strip_prefix(PREFIX).unwrap()).unwrap();
            assert_eq!(random.len(), TICKET_BYTES);
            assert_eq!(named(Some(&format!("from=latest&ticket={ticket}"))), Some(Cow::from(&ticket)));
        }
        for (query, ticket) in [(None, None), (Some(""), None), (Some("tickets=a"), None), (Some("ticket"), Some(""))] {
            assert_eq!(named(query).as_deref(), ticket, "{query:?}");
        }
    }

    #[test]
    fn a_tenant_that_uses_no_ticket_leaves_room_and_gets_its_own_back_after_a_minute() {
        let tickets = Tickets::new();
        let mut last = String::new();
        let count = std::iter::from_fn(|| {
            last = given(&tickets, "greedy", NOW_MS).ok()?;
            Some(())
        })
        .count() as u64;
        assert_eq!((count, given(&tickets, "greedy", NOW_MS)), (TICKETS_MAX / 2, Err(ProblemCode::TenantOverloaded)));
        assert!(given(&tickets, "other", NOW_MS).is_ok());
        // A used ticket frees capacity for another one, and expiry frees all of it.
        assert!(tickets.redeem(&last, NOW_MS).is_some());
        assert!(given(&tickets, "greedy", NOW_MS).is_ok());
        assert!(given(&tickets, "greedy", NOW_MS + TICKET_MS - 1).is_err());
        assert!(given(&tickets, "greedy", NOW_MS + TICKET_MS).is_ok());
        assert_eq!(tickets.unused.lock().unwrap().len(), 1, "what has expired is gone");
        // Many tenants share the capacity.
        let full = (0..).find_map(|n| given(&tickets, &format!("t{n}"), NOW_MS + TICKET_MS).err());
        assert_eq!(full, Some(ProblemCode::Overloaded));
        assert_eq!(tickets.unused.lock().unwrap().len() as u64, TICKETS_MAX);
    }
}
