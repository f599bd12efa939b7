//! What a trained model may ask of a visit, by name.
//!
//! Everything is derived from events, or is an attribute that the tenant sends. What is absent on purpose: reminders
//! that were sent, which are treatments and not traits, and whatever the settings name as protected.

use crate::score::Code;
use crate::view::client::attribute::{self, Value};
use crate::view::client::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Numbers beyond this, without their sign, are taken for it: they are mistakes, and sums must stay finite.
const NUMBER_MAX: f64 = 1e6;
const ATTRIBUTE: &str = "attribute:";

/// Something about a visit that is known before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Input {
    /// Whole days from booking to visit.
    LeadDays,
    /// `ln((O + k)/(E + k))`: days missed, against what the leads of the client's visits would make usual.
    Record,
    /// Days with a known outcome.
    KnownVisits,
    /// Days since the last missed visit; absent without one.
    MissedDaysAgo,
    /// Other visits on the same day.
    SameDayVisits,
    /// Other visits to come.
    OpenVisits,
    /// Past visits of which nobody has said how they went.
    Unresolved,
    /// Visits called off early.
    Cancelled,
    /// Visits called off late.
    LateCancelled,
    /// Times that the visit was moved.
    Moved,
    /// Times that other visits were moved.
    MovedOthers,
    /// 1 where the client said that they would come.
    Confirmed,
    /// Hour of the booking.
    BookingHour,
    /// Day of the visit, 0 is Monday.
    Weekday,
    /// What the tenant tells.
    Attribute(Attribute),
}

/// An attribute by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    /// As it is sent.
    pub name: String,
    hash: u32,
}

impl Attribute {
    /// The attribute of that name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { hash: attribute::hash(&name), name }
    }

    /// The hash of the name, as rows have it.
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

/// What a visit says to an input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// A number.
    Number(f64),
    /// The hash of a text.
    Text(u32),
    /// It says nothing.
    Absent,
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(hash) => Self::Text(hash),
            number => number.number().map_or(Self::Absent, |x| Self::Number(x.clamp(-NUMBER_MAX, NUMBER_MAX))),
        }
    }
}

const NAMED: [(Input, &str); 14] = [
    (Input::LeadDays, "lead_days"),
    (Input::Record, "record"),
    (Input::KnownVisits, "known_visits"),
    (Input::MissedDaysAgo, "missed_days_ago"),
    (Input::SameDayVisits, "same_day_visits"),
    (Input::OpenVisits, "open_visits"),
    (Input::Unresolved, "unresolved"),
    (Input::Cancelled, "cancelled"),
    (Input::LateCancelled, "late_cancelled"),
    (Input::Moved, "moved"),
    (Input::MovedOthers, "moved_others"),
    (Input::Confirmed, "confirmed"),
    (Input::BookingHour, "booking_hour"),
    (Input::Weekday, "weekday"),
];

impl Input {
    /// All that do not depend on the tenant.
    pub fn derived() -> impl Iterator<Item = Self> {
        NAMED.into_iter().map(|(input, _)| input)
    }

    /// What a visit says; `record` is what its history comes to by the rates of the model.
    pub fn answer(&self, visit: &Snapshot, record: f64) -> Answer {
        let number = match self {
            Self::LeadDays => visit.lead_days.into(),
            Self::Record => record,
            Self::KnownVisits => visit.known_visits().into(),
            Self::MissedDaysAgo => match visit.missed_days_ago {
                Some(days) => days.into(),
                None => return Answer::Absent,
            },
            Self::SameDayVisits => visit.same_day.into(),
            Self::OpenVisits => visit.open.into(),
            Self::Unresolved => visit.unresolved.into(),
            Self::Cancelled => visit.cancelled.into(),
            Self::LateCancelled => visit.late_cancelled.into(),
            Self::Moved => visit.moved.into(),
            Self::MovedOthers => visit.moved_others.into(),
            Self::Confirmed => u8::from(visit.is_confirmed).into(),
            Self::BookingHour => visit.booking_hour.into(),
            Self::Weekday => visit.weekday.into(),
            Self::Attribute(Attribute { hash, .. }) => {
                let value = visit.of_booking.get(*hash).or_else(|| visit.of_client.get(*hash));
                return value.map_or(Answer::Absent, Answer::from);
            }
        };
        Answer::Number(number)
    }

    /// The code of the reason that it gives, where that does not depend on the visit.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::LeadDays => Code::LeadTime,
            Self::Record | Self::KnownVisits | Self::MissedDaysAgo => Code::PastNoShows,
            Self::SameDayVisits | Self::OpenVisits | Self::Unresolved => Code::OtherVisits,
            Self::Cancelled | Self::LateCancelled => Code::LateCancels,
            Self::Moved | Self::MovedOthers => Code::RescheduledOften,
            Self::Confirmed => Code::Unconfirmed,
            Self::BookingHour | Self::Weekday => Code::TimeOfWeek,
            Self::Attribute(_) => Code::Attribute,
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => write!(f, "{ATTRIBUTE}{}", attribute.name),
            named => f.write_str(NAMED.iter().find(|(input, _)| input == named).map_or("", |(_, name)| name)),
        }
    }
}

impl From<Input> for String {
    fn from(input: Input) -> Self {
        input.to_string()
    }
}

impl TryFrom<String> for Input {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if let Some(attribute) = name.strip_prefix(ATTRIBUTE) {
            return Ok(Self::Attribute(Attribute::new(attribute)));
        }
        let named = NAMED.into_iter().find(|(_, known)| *known == name);
        named.map(|(input, _)| input).ok_or_else(|| format!("there is no input `{name}`"))
    }
}
