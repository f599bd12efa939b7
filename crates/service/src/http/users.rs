//! Users: their known devices and login history, and decisions of operators or users about a device.

use super::answer::{self, LoginHistory, ViewPosition, at};
use super::auth::Caller;
use super::events::Accepted;
use super::problem::{Problem, ProblemCode};
use super::request::{Ids, Prefer};
use super::{Api, idempotency};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foretell_domain::address::Family;
use foretell_domain::score::login::UserHistory;
use foretell_domain::view::user;
use foretell_events::login::{DeviceRef, LoginFact};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A known device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KnownDevice {
    /// The caller's own id, or `fp-` and a fingerprint of the device if the caller sent none.
    pub device_id: String,
    /// A label for people, such as "Firefox on Windows, first seen 3 March" (UTC).
    pub label: String,
    /// First successful login, or when it was first trusted or revoked.
    #[schema(format = DateTime)]
    pub first_seen: String,
    /// Latest successful login, or when it was last trusted or revoked.
    #[schema(format = DateTime)]
    pub last_seen: String,
    /// Successful logins.
    pub logins: u32,
    /// Whether it stays known until it is revoked.
    pub trusted: bool,
    /// Until when it is known if it is not seen again; null if it is trusted.
    #[schema(format = DateTime, required)]
    pub known_until: Option<String>,
}

/// A user's known devices and login history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserAnswer {
    /// The user.
    pub user_id: String,
    /// Known devices, the most recently seen first.
    pub devices: Vec<KnownDevice>,
    /// The login history.
    pub history: LoginHistory,
    /// How far the user's partition is folded.
    pub view: ViewPosition,
}

/// Known devices and login history of a user.
#[utoipa::path(
    get, path = "/v1/users/{user_id}", operation_id = "getUser", tag = "views",
    params(("user_id" = String, Path), ("Foretell-Tenant" = Option<String>, Header)),
    responses(
        (status = 200, description = "The user", body = UserAnswer),
        (status = 404),
    )
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Ids(user_id): Ids<String>,
) -> Result<Json<UserAnswer>, Problem> {
    let now_ms = api.ports.clock.now_ms();
    let view = api.view_position(Family::Logins, &caller.tenant, &user_id);
    let user = api.rows.user(&caller.tenant, &user_id).await.map_err(answer::unreadable)?;
    // The row of an erased user is empty, and so is one that was created only by repeated events.
    let user = user.filter(|user| user.first_seen_ms.is_some() || !user.devices.is_empty());
    let Some(user) = user else {
        return Err(Problem::new(ProblemCode::UserNotFound, "this tenant has no such user"));
    };
    let mut devices: Vec<_> = user.devices.iter().filter(|(_, device)| device.known_at(now_ms)).collect();
    devices.sort_by(|(a_id, a), (b_id, b)| (b.last_seen_ms, a_id).cmp(&(a.last_seen_ms, b_id)));
    let devices = devices.into_iter().map(|(id, device)| known(id, device, now_ms)).collect();
    Ok(Json(UserAnswer { user_id, devices, history: UserHistory::at(&user, now_ms).into(), view }))
}

/// The label of a device; contains the year only if it is not the current one.
fn label(device: &user::UserDevice, now_ms: i64) -> String {
    let day =
        |at_ms: i64| jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    let (first, now) = (day(device.first_seen_ms), day(now_ms));
    let format = if first.year() == now.year() { "%-d %B" } else { "%-d %B %Y" };
    format!("{}, first seen {}", device.label, first.strftime(format))
}

fn known(id: &str, device: &user::UserDevice, now_ms: i64) -> KnownDevice {
    KnownDevice {
        device_id: id.to_owned(),
        label: label(device, now_ms),
        first_seen: at(device.first_seen_ms),
        last_seen: at(device.last_seen_ms),
        logins: device.logins,
        trusted: device.trusted,
        known_until: (!device.trusted).then(|| at(device.last_seen_ms + user::DEVICE_KNOWN_MS)),
    }
}

/// Trusts a device: it is known from now on, until it is revoked. An event is appended.
///
/// With `Idempotency-Key` the same request can be sent again and appends nothing; another request about the user with
/// the same key is answered 422.
#[utoipa::path(
    put, path = "/v1/users/{user_id}/devices/{device_id}", operation_id = "trustDevice", tag = "users",
    params(
        ("user_id" = String, Path), ("device_id" = String, Path),
        ("Foretell-Tenant" = Option<String>, Header), ("Prefer" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    responses(
        (status = 202, description = "Durable", body = Accepted),
        (status = 200, description = "Folded into the serving views", body = Accepted),
        (status = 404),
    )
)]
pub(super) async fn trust(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Prefer(wait): Prefer,
    Ids((user_id, device_id)): Ids<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let device = DeviceRef { user_id, device_id, idempotency_digest: None };
    idempotency::append(&api, caller.tenant, LoginFact::DeviceTrusted(device).into(), idempotency::of(&headers)?, wait)
        .await
}

/// Revokes a device: it is no longer known. An event is appended; `Idempotency-Key` works as for trusting a device.
#[utoipa::path(
    delete, path = "/v1/users/{user_id}/devices/{device_id}", operation_id = "revokeDevice", tag = "users",
    params(
        ("user_id" = String, Path), ("device_id" = String, Path),
        ("Foretell-Tenant" = Option<String>, Header), ("Prefer" = Option<String>, Header),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 512 visible ASCII characters"),
    ),
    responses(
        (status = 202, description = "Durable", body = Accepted),
        (status = 200, description = "Folded into the serving views", body = Accepted),
        (status = 404),
    )
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Prefer(wait): Prefer,
    Ids((user_id, device_id)): Ids<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let device = DeviceRef { user_id, device_id, idempotency_digest: None };
    idempotency::append(&api, caller.tenant, LoginFact::DeviceRevoked(device).into(), idempotency::of(&headers)?, wait)
        .await
}
