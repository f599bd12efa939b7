//! What a user agent string says of who sends it.

use super::login::Attempt;

/// Whether the client hides what it is: an empty user agent string. None at all says nothing, as callers leave it out.
pub fn is_scripted(attempt: &Attempt) -> bool {
    attempt.user_agent.as_deref().is_some_and(|agent| agent.trim().is_empty())
}
