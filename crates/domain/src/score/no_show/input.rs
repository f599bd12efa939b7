//! The inputs that a trained model may use, by name.
//!
//! Each input is derived from events, or is an attribute that the tenant sends. Excluded on purpose: reminders that
//! were sent, because they are treatments and not traits, and attributes that the settings list as protected.

use crate::score::ReasonCode;
use crate::view::client::attribute::{self, Value};
use crate::view::client::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Larger numbers, regardless of sign, are clamped to it: they are mistakes, and sums must stay finite.
const NUMBER_MAX: f64 = 1e6;
const ATTRIBUTE: &str = "attribute:";

/// A fact about a visit that is known before the visit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Input {
    /// Whole days from booking to visit.
    LeadDays,
    /// `ln((O + k)/(E + k))`: missed days, compared with what is usual for the leads of the client's visits.
    Record,
    /// Days with a known outcome.
    KnownVisits,
    /// Days since the last missed visit; `Absent` if there is none.
    MissedDaysAgo,
    /// Other visits on the same day.
    SameDayVisits,
    /// Other visits to come.
    OpenVisits,
    /// Past visits without a reported outcome.
    Unresolved,
    /// Visits cancelled early.
    Cancelled,
    /// Visits cancelled late.
    LateCancelled,
    /// How often the visit was moved.
    Moved,
    /// How often other visits were moved.
    MovedOthers,
    /// 1 if the client confirmed the visit.
    Confirmed,
    /// Hour of the booking.
    BookingHour,
    /// Day of the visit, 0 is Monday.
    Weekday,
    /// An attribute that the tenant sends.
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

    /// The hash of the name, as stored in rows.
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

/// The value of an input for a visit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputValue {
    /// A number.
    Number(f64),
    /// The hash of a text.
    Text(u32),
    /// Not known.
    Absent,
}

impl From<Value> for InputValue {
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
    /// All inputs that do not depend on the tenant.
    pub fn derived() -> impl Iterator<Item = Self> {
        NAMED.into_iter().map(|(input, _)| input)
    }

    /// The value for a visit; `record` is the client's record by the rates of the model.
    pub fn answer(&self, visit: &Snapshot, record: f64) -> InputValue {
        let number = match self {
            Self::LeadDays => visit.lead_days.into(),
            Self::Record => record,
            Self::KnownVisits => visit.known_visits().into(),
            Self::MissedDaysAgo => match visit.missed_days_ago {
                Some(days) => days.into(),
                None => return InputValue::Absent,
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
                return value.map_or(InputValue::Absent, InputValue::from);
            }
        };
        InputValue::Number(number)
    }

    /// The code of the reason, if it does not depend on the visit.
    pub(super) fn code(&self) -> ReasonCode {
        match self {
            Self::LeadDays => ReasonCode::LeadTime,
            Self::Record | Self::KnownVisits | Self::MissedDaysAgo => ReasonCode::PastNoShows,
            Self::SameDayVisits | Self::OpenVisits | Self::Unresolved => ReasonCode::OtherVisits,
            Self::Cancelled | Self::LateCancelled => ReasonCode::LateCancels,
            Self::Moved | Self::MovedOthers => ReasonCode::RescheduledOften,
            Self::Confirmed => ReasonCode::Unconfirmed,
            Self::BookingHour | Self::Weekday => ReasonCode::TimeOfWeek,
            Self::Attribute(_) => ReasonCode::Attribute,
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
