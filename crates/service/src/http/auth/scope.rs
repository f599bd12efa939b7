//! What an API key permits: one scope for each kind of event and of data, and some that include others.
//!
//! A key should have no more scopes than its system needs: a login page appends logins and requests scores, but neither
//! erases users nor requests reminders. So the scope follows from what a request does; for events, see [`Scope::of`].

use foretell_events::Fact;
use foretell_events::fact::Purpose;
use serde::{Deserialize, Serialize};

/// Declares the scopes, one row each: its name in files and answers, an earlier name that is still accepted, and the
/// scopes that it includes. [`Scope::Admin`] includes all.
macro_rules! scopes {
    ($(
        $(#[$permits:meta])*
        $scope:ident = $name:literal $(or $earlier:literal)? $(includes $($included:ident),+)?;
    )+) => {
        /// What a key permits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Scope {
            $($(#[$permits])* #[serde(rename = $name $(, alias = $earlier)?)] $scope,)+
        }

        impl Scope {
            /// Every scope.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$scope),+];

            /// The name in files and answers.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$scope => $name,)+
                }
            }

            /// The scopes that it includes in addition to itself.
            const fn included(self) -> &'static [Self] {
                match self {
                    $(Self::$scope => &[$($(Self::$included),+)?],)+
                }
            }
        }
    };
}

scopes! {
    /// Append events of logins and devices.
    EventsLogins = "events:logins";
    /// Append events of appointments and clients, and receipts of reminders.
    EventsAppointments = "events:appointments";
    /// Label decisions: feedback.
    DecisionsLabel = "decisions:label" or "feedback:write";
    /// Request reminders on demand.
    RemindersWrite = "reminders:write";
    /// All four above.
    EventsWrite = "events:write" includes EventsLogins, EventsAppointments, DecisionsLabel, RemindersWrite;
    /// Erase users and clients.
    Erase = "erase";
    /// Request scores.
    RiskRead = "risk:read";
    /// Read users, decisions about logins and the login policy.
    LoginsRead = "logins:read";
    /// Read clients, appointments, the agenda, reminders, decisions about visits, their model and the reminder policy.
    VisitsRead = "visits:read";
    /// Both above.
    ViewsRead = "views:read" includes LoginsRead, VisitsRead;
    /// Publish policies and models.
    PoliciesWrite = "policies:write";
    /// All of the above.
    Admin = "admin";
}

impl Scope {
    /// The scopes that permit appending events; [`Scope::of`] determines which one an event needs.
    pub(crate) const APPENDING: [Self; 5] =
        [Self::EventsLogins, Self::EventsAppointments, Self::DecisionsLabel, Self::RemindersWrite, Self::Erase];

    /// Whether a key with this scope may do what another scope allows.
    pub(crate) fn includes(self, other: Self) -> bool {
        self == Self::Admin || self == other || self.included().contains(&other)
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
