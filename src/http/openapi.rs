//! The OpenAPI 3.1 document: made from the handlers' own types and the route table, so that it cannot drift.

use super::auth::Scopes;
use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, Content, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Schema,
    SecurityRequirement,
};
use utoipa_axum::router::OpenApiRouter;

/// The document without any route.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Foretell")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Real-time risk scores from materialized views: events in, scores and reminders out. Errors are \
             application/problem+json (RFC 9457) with stable codes. Bodies are JSON in UTF-8 without doubled members, \
             and may be compressed with gzip; one that is an object, other than an event, a policy or a model, has at \
             most 128 KiB. The tenant is named by the API key, else by \
             the header Foretell-Tenant, else it is `default`.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .contact(Some(ContactBuilder::new().url(Some(env!("CARGO_PKG_REPOSITORY"))).build()))
        .build();
    let mut key = Http::new(HttpAuthScheme::Bearer);
    key.description = Some(
        "An API key. Any one of the scopes of an operation opens it. `events:write` includes `events:logins`, \
         `events:appointments`, `decisions:label` and `reminders:write`; `views:read` includes `logins:read` and \
         `visits:read`; `admin` includes all."
            .to_owned(),
    );
    let key = SecurityScheme::Http(key);
    let components = ComponentsBuilder::new().security_scheme("api_key", key).build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// The operations of a router need one of some scopes; the document says so.
pub(super) fn scoped<S>(scopes: Scopes, mut routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.options];
        for operation in operations.into_iter().flatten() {
            let alternatives = scopes.iter().map(|scope| SecurityRequirement::new("api_key", [scope.name()]));
            operation.security = Some(alternatives.collect());
        }
    }
    routes
}

/// A body that may be left out is left out: `null` is a body, and none that a handler takes.
pub(super) fn without_null_bodies<S>(mut routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let items = routes.get_openapi_mut().paths.paths.values_mut();
    let operations = items.flat_map(|item| [&mut item.put, &mut item.post]).flatten();
    for body in operations.filter_map(|operation| operation.request_body.as_mut()) {
        let RefOr::T(body) = body else { continue };
        for content in body.content.values_mut() {
            let RefOr::T(Content { schema: Some(schema), .. }) = content else { continue };
            if let RefOr::T(Schema::OneOf(choice)) = schema {
                choice.items.retain(|item| !is_null(item));
                if let [only] = choice.items.as_slice() {
                    *schema = only.clone();
                }
            }
        }
    }
    routes
}

/// Parameters have the bounds that they are held to.
pub(super) fn with_bounds<S>(mut routes: OpenApiRouter<S>) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.options];
        let parameters = operations.into_iter().flatten().filter_map(|operation| operation.parameters.as_mut());
        for parameter in parameters.flatten() {
            let RefOr::T(parameter) = parameter else { continue };
            let bounded = bounds(&parameter.name, &parameter.parameter_in);
            if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema {
                bounded(object);
            }
        }
    }
    routes
}

/// What a parameter is held to, by its name.
fn bounds(name: &str, place: &ParameterIn) -> fn(&mut Object) {
    match (name, place) {
        ("Foretell-Tenant", _) => |object| object.pattern = Some("^[a-z0-9-]{1,63}$".into()),
        ("Idempotency-Key", _) => |object| object.pattern = Some("^[!-~]{1,512}$".into()),
        ("limit", _) => |object| (object.minimum, object.maximum) = (Some(1.into()), Some(1_000.into())),
        ("policy", ParameterIn::Path) => |_| {},
        (_, ParameterIn::Path) => |object| {
            (object.min_length, object.max_length) = (Some(1), Some(crate::event::ID_BYTES_MAX));
        },
        _ => |_| {},
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

/// The document as JSON, as `/openapi.json` serves it.
///
/// # Errors
/// Never in practice: a document always has a JSON form.
pub fn document() -> Result<String, serde_json::Error> {
    super::routes().into_openapi().to_pretty_json()
}

/// The event that stands as the example in documents.
pub(super) fn login_event() -> Value {
    json!({
        "specversion": "1.0",
        "id": "login-1",
        "source": "https://login.example.com",
        "type": "foretell.login.succeeded",
        "time": "2026-03-01T10:00:00Z",
        "data": {"user_id": "u-1", "ip": "198.51.100.7", "device_id": "d-1", "country": "IE", "asn": 64500}
    })
}
