//! The topics of the log: their purpose, how long they are kept, and their full names.

/// How long the records of a topic are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Forever, because rows are folded from them.
    Forever,
    /// For the retention of decisions.
    AsDecisions,
    /// For the retention of dead letters.
    AsDeadLetters,
}

/// The topics, one row each: its name after the prefix, how long its records are kept, the properties that it has, and
/// the variant of [`Fact`](crate::Fact) for the facts that it contains, if rows are folded from it.
macro_rules! table {
    ($expand:ident) => {
        $expand! {
            /// Authentication facts, keyed `tenant:user_id`.
            Logins = "logins" kept Forever, TakesProducers with Login(crate::login::LoginFact);
            /// Appointment and client facts and requests for a reminder, keyed `tenant:client_id`.
            Appointments = "appointments" kept Forever, TakesProducers
                with Appointment(crate::appointment::AppointmentFact);
            /// What subscribers act on, keyed `tenant:client_id`; it determines what counts as sent.
            Reminders = "reminders" kept Forever with Reminder(crate::reminder::ReminderFact);
            /// The policies of each tenant, keyed `tenant:policy`; compacted.
            Policies = "policies" kept Forever, Compacted, OnePartition with Policy(crate::policy::PolicyFact);
            /// Every score that was returned, keyed `tenant:subject`.
            Decisions = "decisions" kept AsDecisions;
            /// Records that could not be folded, with their original keys.
            DeadLetters = "dead-letters" kept AsDeadLetters;
        }
    };
}

pub(crate) use table;

/// Generates the topics.
macro_rules! topics {
    ($(
        $(#[$doc:meta])*
        $topic:ident = $name:literal kept $kept:ident $(, $property:ident)* $(with $family:ident($facts:ty))?;
    )+) => {
        /// The topics, without the configured prefix.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum Topic {
            $($(#[$doc])* #[serde(rename = $name)] $topic,)+
        }

        impl Topic {
            /// Every topic, in the order in which they are created.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$topic),+];

            /// The name after the prefix: `foretell.` + this.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$topic => $name,)+
                }
            }

            /// How long its records are kept.
            pub const fn lifetime(self) -> Lifetime {
                match self {
                    $(Self::$topic => Lifetime::$kept,)+
                }
            }

            const fn properties(self) -> &'static [Property] {
                match self {
                    $(Self::$topic => &[$(Property::$property),*],)+
                }
            }
        }
    };
}

table!(topics);

/// A property of some topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    /// Producers may write to it. To the other topics only Foretell writes.
    TakesProducers,
    /// Only the last record of a key is sure to exist.
    Compacted,
    /// It has one partition, because its records have one order.
    OnePartition,
}

impl Topic {
    /// Every topic, effects before their causes: a copy that is made in this order has the cause of each effect.
    pub const EFFECTS_FIRST: [Self; Self::ALL.len()] =
        [Self::DeadLetters, Self::Reminders, Self::Appointments, Self::Logins, Self::Policies, Self::Decisions];

    /// Whether rows are folded from it, so that its records must be kept forever.
    pub const fn is_folded(self) -> bool {
        matches!(self.lifetime(), Lifetime::Forever)
    }

    /// Whether producers may write to it directly; only Foretell writes to the others.
    pub fn takes_producers(self) -> bool {
        self.has(Property::TakesProducers)
    }

    /// Whether all but the last record of a key may be gone.
    pub fn is_compacted(self) -> bool {
        self.has(Property::Compacted)
    }

    /// How many partitions it has if `configured` are configured: policies have one partition, because they are few and
    /// have one order.
    pub fn partitions(self, configured: u32) -> u32 {
        if self.has(Property::OnePartition) { 1 } else { configured }
    }

    fn has(self, property: Property) -> bool {
        self.properties().contains(&property)
    }
}

/// The full name of a topic: its prefix, its name and, from the first re-partitioning on, its epoch.
pub fn full_name(prefix: &str, topic: Topic, epoch: u8) -> String {
    match epoch {
        0 => format!("{prefix}{}", topic.name()),
        _ => format!("{prefix}{}.e{epoch}", topic.name()),
    }
}

/// A full name without its epoch, and the epoch.
pub fn without_epoch(full: &str) -> (&str, u8) {
    let parts = full.rsplit_once(".e").and_then(|(name, epoch)| Some((name, epoch.parse().ok()?)));
    parts.filter(|(_, epoch)| *epoch > 0).unwrap_or((full, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_written_as_its_name_and_copied_once() {
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_value(topic).unwrap(), topic.name());
            assert_eq!(Topic::EFFECTS_FIRST.iter().filter(|other| **other == topic).count(), 1, "{}", topic.name());
        }
    }

    #[test]
    fn the_epoch_is_in_the_name_from_the_first_move_on() {
        for (epoch, full) in [(0, "a.e7.logins"), (1, "a.e7.logins.e1"), (100, "a.e7.logins.e100")] {
            assert_eq!(full_name("a.e7.", Topic::Logins, epoch), full);
            assert_eq!(without_epoch(full), ("a.e7.logins", epoch));
        }
        for other in ["logins.e0", "logins.e1000", "logins.ex", "logins"] {
            assert_eq!(without_epoch(other), (other, 0));
        }
    }
}
