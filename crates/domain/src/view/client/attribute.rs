//! The attributes of a booking or a client, stored as small and as anonymous as a score permits.
//!
//! A row does not contain names and texts but hashes of them. Training reads the names from the log, and a score hashes
//! those that its model names, so a reader of a row does not learn a client's attributes. The settings of the model
//! decide what an attribute may be used for: rows store protected ones like all others, and no model uses them.

use foretell_events::appointment::{Booking, Scalar};
use foretell_events::codec::bounds::ATTRIBUTES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// A whole number; 0 and 1 for truth values.
    Whole(i64),
    /// The bits of any other number.
    Number(u64),
    /// The [hash](hash) of a text.
    Text(u32),
}

impl Value {
    /// The value that was sent.
    pub fn of(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Boolean(value) => Self::Whole(i64::from(*value)),
            Scalar::Number(value) if value.trunc() == *value && value.abs() < i64::MAX as f64 => {
                Self::Whole(*value as i64)
            }
            Scalar::Number(value) => Self::Number(value.to_bits()),
            Scalar::Text(text) => Self::Text(hash(text)),
        }
    }

    /// The number; none for a text.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Whole(value) => Some(value as f64),
            Self::Number(bits) => Some(f64::from_bits(bits)),
            Self::Text(_) => None,
        }
    }
}

/// The hash of a name or a text; stored in rows, so it never changes.
pub fn hash(text: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32
}

/// Most attributes of a booking, including service, location and practitioner.
const BOOKING_ATTRIBUTES_MAX: usize = ATTRIBUTES_MAX + 3;

/// Values by the hash of their name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<u32, Value>);

impl Attributes {
    /// The attributes that were sent, at most as many as an event may contain.
    pub fn of(attributes: &BTreeMap<String, Scalar>) -> Self {
        Self(attributes.iter().map(|(name, scalar)| (hash(name), Value::of(scalar))).collect())
    }

    /// The attributes of a booking, including service, location and practitioner.
    pub fn of_booking(booking: &Booking) -> Self {
        let mut attributes = Self::of(&booking.attributes);
        attributes.fill("service", booking.service.as_deref());
        attributes.fill("location_id", booking.location_id.as_deref());
        attributes.fill("practitioner_id", booking.practitioner_id.as_deref());
        attributes
    }

    /// The values by the hash of their name.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Value)> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }

    /// The value of the name with this [`hash`].
    pub fn get(&self, name: u32) -> Option<Value> {
        self.0.get(&name).copied()
    }

    /// Adds a text with a name, unless the name has a value.
    pub fn fill(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.0.entry(hash(name)).or_insert_with(|| Value::Text(hash(text)));
        }
    }

    /// These, and the `others` whose names are not among these.
    pub fn over(&self, others: &Self) -> Self {
        let mut all = others.0.clone();
        all.extend(&self.0);
        Self(all)
    }

    /// These, and as many `others` as an event may contain in addition, so that repeated updates of a visit cannot grow
    /// it without limit.
    pub fn within(&self, others: &Self) -> Self {
        let room = BOOKING_ATTRIBUTES_MAX.saturating_sub(self.0.len());
        let kept = others.0.iter().filter(|(name, _)| !self.0.contains_key(name)).take(room);
        self.over(&Self(kept.map(|(name, value)| (*name, *value)).collect()))
    }

    /// The attributes of `self` whose names are not in `others`.
    pub fn without(&self, others: &Self) -> Self {
        let left = self.0.iter().filter(|(name, _)| !others.0.contains_key(name));
        Self(left.map(|(name, value)| (*name, *value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_a_score_asks_for() {
        for (scalar, value, number) in [
            (Scalar::Boolean(true), Value::Whole(1), Some(1.0)),
            (Scalar::Number(54.0), Value::Whole(54), Some(54.0)),
            (Scalar::Number(-0.5), Value::Number((-0.5_f64).to_bits()), Some(-0.5)),
            (Scalar::Number(1e300), Value::Number(1e300_f64.to_bits()), Some(1e300)),
            (Scalar::Text("north".into()), Value::Text(hash("north")), None),
        ] {
            assert_eq!((Value::of(&scalar), Value::of(&scalar).number()), (value, number), "{scalar:?}");
        }
    }

    #[test]
    fn a_visit_keeps_what_it_was_told_last_up_to_a_bound() {
        let of = |from: usize, to: usize, value: f64| {
            Attributes::of(&(from..to).map(|n| (format!("name-{n}"), Scalar::Number(value))).collect())
        };
        let kept = of(0, 60, 2.0).within(&of(30, 90, 1.0));
        assert_eq!(kept.iter().count(), BOOKING_ATTRIBUTES_MAX);
        let last = |n: usize| kept.get(hash(&format!("name-{n}")));
        assert!((0..60).all(|n| last(n) == Some(Value::Whole(2))));
        assert_eq!((60..90).filter(|n| last(*n) == Some(Value::Whole(1))).count(), BOOKING_ATTRIBUTES_MAX - 60);
    }

    #[test]
    fn the_booking_wins_over_the_client() {
        let of = |pairs: &[(&str, f64)]| {
            Attributes::of(&pairs.iter().map(|(name, value)| ((*name).to_owned(), Scalar::Number(*value))).collect())
        };
        let (booking, client) = (of(&[("age", 30.0)]), of(&[("age", 29.0), ("visits", 3.0)]));
        assert_eq!(booking.over(&client), of(&[("age", 30.0), ("visits", 3.0)]));
        assert_eq!(client.without(&booking), of(&[("visits", 3.0)]));
        let mut filled = booking;
        filled.fill("service", Some("cut"));
        filled.fill("age", Some("old"));
        assert_eq!(filled.get(hash("service")), Some(Value::Text(hash("cut"))));
        assert_eq!(filled.get(hash("age")), Some(Value::Whole(30)));
    }
}
