//! The topics of the log: what each is for, how long it is kept, and its full name.

/// The topics, without the configured prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Authentication facts, keyed `tenant:user_id`.
    Logins,
    /// Appointment and client facts and requests for a reminder, keyed `tenant:client_id`.
    Appointments,
    /// What subscribers act on, keyed `tenant:client_id`; the truth of what was sent.
    Reminders,
    /// Which documents decide for a tenant, keyed `tenant:policy`; compacted.
    Policies,
    /// Every score that was given, keyed `tenant:subject`; kept for a time, and folded into nothing.
    Decisions,
    /// Records that could not be folded, keyed as they were; kept for a time.
    DeadLetters,
}

impl Topic {
    /// Every topic, in the order in which they are created.
    pub const ALL: [Self; 6] =
        [Self::Logins, Self::Appointments, Self::Reminders, Self::Policies, Self::Decisions, Self::DeadLetters];

    /// Whether rows are folded from it, so that its records must be kept for ever.
    pub const fn is_folded(self) -> bool {
        matches!(self, Self::Logins | Self::Appointments | Self::Reminders | Self::Policies)
    }

    /// The name behind the prefix: `foretell.` + this.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logins => "logins",
            Self::Appointments => "appointments",
            Self::Reminders => "reminders",
            Self::Policies => "policies",
            Self::Decisions => "decisions",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// Whether producers may write to it themselves; to the others Foretell writes alone.
    pub const fn takes_producers(self) -> bool {
        matches!(self, Self::Logins | Self::Appointments)
    }

    /// Whether all but the last record of a key may be gone.
    pub const fn is_compacted(self) -> bool {
        matches!(self, Self::Policies)
    }

    /// How many partitions it has where so many are configured: policies are few, and have one order.
    pub const fn partitions(self, configured: u32) -> u32 {
        if matches!(self, Self::Policies) { 1 } else { configured }
    }
}

/// The full name of a topic: its prefix, its name and, from the first re-partitioning on, its epoch.
pub fn full_name(prefix: &str, topic: Topic, epoch: u8) -> String {
    match epoch {
        0 => format!("{prefix}{}", topic.name()),
        _ => format!("{prefix}{}.e{epoch}", topic.name()),
    }
}

/// What a full name is without its epoch, and the epoch.
pub fn without_epoch(full: &str) -> (&str, u8) {
    let parts = full.rsplit_once(".e").and_then(|(name, epoch)| Some((name, epoch.parse().ok()?)));
    parts.filter(|(_, epoch)| *epoch > 0).unwrap_or((full, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

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
