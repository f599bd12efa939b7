//! Dead letters, for operators: looked at, sent again, let go.

use super::lines;
use crate::http::problem::{Code, Problem};
use crate::http::request::{self, Body};
use crate::http::{Api, answer};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use foretell_domain::dead::Id;
use foretell_domain::dead::asked::{Action, Asked, RATE_MAX, Redrive};
use foretell_domain::dead::mark::REASON_BYTES_MAX;
use foretell_domain::dead::show::Shown;
use foretell_engine::desk::{self, Desk};
use std::sync::Arc;

/// `POST /admin/dead-letters`: does what is [`Asked`], and tells how it goes as JSON Lines of [`Told`](foretell_domain::dead::asked::Told).
/// Ends when nobody reads any more.
pub(in crate::http) async fn work(State(api): State<Arc<Api>>, Body(body): Body) -> Result<impl IntoResponse, Problem> {
    let asked: Asked = serde_json::from_value(request::json(&body)?)
        .map_err(|error| Problem::new(Code::MalformedRequest, error.to_string()))?;
    check(&asked).map_err(|detail| Problem::new(Code::MalformedRequest, detail))?;
    Ok(lines(desk::spawn(of(&api), asked)))
}

/// `GET /admin/dead-letters/{partition}/{offset}`: all of a letter.
pub(in crate::http) async fn show(
    State(api): State<Arc<Api>>,
    Path((partition, offset)): Path<(u32, i64)>,
) -> Result<Json<Shown>, Problem> {
    let id = Id { partition, offset };
    let shown = of(&api).show(id).await.map_err(answer::unreadable)?;
    shown.map(Json).ok_or_else(|| Problem::new(Code::PathNotFound, format!("there is no dead letter {id}")))
}

fn of(api: &Api) -> Desk {
    Desk { log: api.log.clone(), clock: api.clock.clone(), topic_prefix: api.topic_prefix.clone() }
}

fn check(asked: &Asked) -> Result<(), String> {
    if asked.limit == 0 {
        return Err("the limit is at least 1".into());
    }
    let reason = match &asked.action {
        Action::List(_) => None,
        Action::Redrive(Redrive { rate, .. }) if !(1..=RATE_MAX).contains(rate) => {
            return Err(format!("the rate is 1 to {RATE_MAX} records a second"));
        }
        Action::Redrive(Redrive { reason, .. }) => reason.as_ref(),
        Action::Drop { reason, .. } if reason.trim().is_empty() => return Err("say why, with --reason".into()),
        Action::Drop { reason, .. } => Some(reason),
    };
    match reason {
        Some(reason) if reason.len() > REASON_BYTES_MAX => {
            Err(format!("the reason is longer than {REASON_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}
