//! What an API key permits: one scope for each kind of event and of data, and some that include others.
//!
//! A key should have no more scopes than its system needs: a login page appends logins and requests scores, but neither
//! erases users nor requests reminders. So the scope follows from what a request does; for events, see [`Scope::of`].

use foretell_events::Fact;
use foretell_events::fact::Purpose;
use serde::{Deserialize, Serialize};

/// What a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Append events of logins and devices.
    #[serde(rename = "events:logins")]
    EventsLogins,
    /// Append events of appointments and clients, and receipts of reminders.
    #[serde(rename = "events:appointments")]
    EventsAppointments,
    /// Label decisions: feedback.
    #[serde(rename = "decisions:label", alias = "feedback:write")]
    DecisionsLabel,
    /// Request reminders on demand.
    #[serde(rename = "reminders:write")]
    RemindersWrite,
    /// All four above.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Erase users and clients.
    #[serde(rename = "erase")]
    Erase,
    /// Request scores.
    #[serde(rename = "risk:read")]
    RiskRead,
    /// Read users, decisions about logins and the login policy.
    #[serde(rename = "logins:read")]
    LoginsRead,
    /// Read clients, appointments, the agenda, reminders, decisions about visits, their model and the reminder policy.
    #[serde(rename = "visits:read")]
    VisitsRead,
    /// Both above.
    #[serde(rename = "views:read")]
    ViewsRead,
    /// Publish policies and models.
    #[serde(rename = "policies:write")]
    PoliciesWrite,
    /// All of the above.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 12] = [
        Self::EventsLogins,
        Self::EventsAppointments,
        Self::DecisionsLabel,
        Self::RemindersWrite,
        Self::EventsWrite,
        Self::Erase,
        Self::RiskRead,
        Self::LoginsRead,
        Self::VisitsRead,
        Self::ViewsRead,
        Self::PoliciesWrite,
        Self::Admin,
    ];

    /// The scopes that permit appending events; [`Scope::of`] determines which one an event needs.
    pub(crate) const APPENDING: [Self; 5] =
        [Self::EventsLogins, Self::EventsAppointments, Self::DecisionsLabel, Self::RemindersWrite, Self::Erase];

    /// The name in files and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsLogins => "events:logins",
            Self::EventsAppointments => "events:appointments",
            Self::DecisionsLabel => "decisions:label",
            Self::RemindersWrite => "reminders:write",
            Self::EventsWrite => "events:write",
            Self::Erase => "erase",
            Self::RiskRead => "risk:read",
            Self::LoginsRead => "logins:read",
            Self::VisitsRead => "visits:read",
            Self::ViewsRead => "views:read",
            Self::PoliciesWrite => "policies:write",
            Self::Admin => "admin",
        }
    }

    /// Whether a key with this scope may do what another scope allows.
    pub(crate) fn includes(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Admin => true,
                Self::EventsWrite => matches!(
                    other,
                    Self::EventsLogins | Self::EventsAppointments | Self::DecisionsLabel | Self::RemindersWrite
                ),
                Self::ViewsRead => matches!(other, Self::LoginsRead | Self::VisitsRead),
                Self::EventsLogins
                | Self::EventsAppointments
                | Self::DecisionsLabel
                | Self::RemindersWrite
                | Self::Erase
                | Self::RiskRead
                | Self::LoginsRead
                | Self::VisitsRead
                | Self::PoliciesWrite => false,
            }
    }

    /// The scope that appending a fact needs.
    pub fn of(fact: &Fact) -> Self {
        match fact.purpose() {
            Purpose::Erase => Self::Erase,
            Purpose::Label => Self::DecisionsLabel,
            Purpose::Remind => Self::RemindersWrite,
            Purpose::Report => match fact {
                Fact::Login(_) => Self::EventsLogins,
                Fact::Appointment(_) | Fact::Reminder(_) => Self::EventsAppointments,
                Fact::Policy(_) => Self::PoliciesWrite,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_by_its_name_and_includes_what_it_says() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
            assert_eq!(serde_json::from_value::<Scope>(scope.name().into()).unwrap(), scope);
            let included: Vec<_> = Scope::ALL.into_iter().filter(|other| scope.includes(*other)).collect();
            let expected = match scope {
                Scope::Admin => Scope::ALL.to_vec(),
                // All scopes for writing events except erasures.
                Scope::EventsWrite => Scope::ALL[..5].to_vec(),
                Scope::ViewsRead => vec![Scope::LoginsRead, Scope::VisitsRead, Scope::ViewsRead],
                other => vec![other],
            };
            assert_eq!(included, expected, "{scope:?}");
        }
        assert_eq!(serde_json::from_value::<Scope>("feedback:write".into()).unwrap(), Scope::DecisionsLabel);
    }
}
