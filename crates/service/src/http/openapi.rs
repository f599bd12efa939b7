//! The OpenAPI 3.1 document: generated from the handlers' own types and the route table, so that it cannot drift.
//!
//! Handlers declare what is specific to them. What operations have in common is added by [`operation`], the schemas of
//! events and policies by [`catalogue`].

mod catalogue;
mod operation;

use super::auth::Scopes;
use super::problem::ProblemDocument;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, SecurityRequirement,
    ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// The groups of operations.
const TAGS: [(&str, &str); 9] = [
    ("events", "Events: logins, appointments, and how clients can be contacted"),
    ("risk", "Scores of logins and visits, with their reasons"),
    ("views", "The current state: users, clients, appointments, the agenda"),
    ("users", "Trusted and revoked devices of a user"),
    ("decisions", "Recorded scores, and feedback on them"),
    ("reminders", "On-demand reminders, and the stream of all reminders"),
    ("policies", "Policies of a tenant"),
    ("models", "The model that scores visits"),
    ("operation", "Health of a process"),
];
use utoipa_axum::router::OpenApiRouter;

/// The document without any route.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Foretell")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Real-time risk scores from materialized views: events in, scores and reminders out. Errors are \
             application/problem+json (RFC 9457) with stable codes. Bodies are JSON in UTF-8 without duplicate \
             members, and may be compressed with gzip. A body that is one object has at most 128 KiB, except for an \
             event, a policy or a model. The tenant is that of the API key, else that of the header Foretell-Tenant, \
             else `default`.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .contact(Some(ContactBuilder::new().url(Some(env!("CARGO_PKG_REPOSITORY"))).build()))
        .build();
    let mut key = Http::new(HttpAuthScheme::Bearer);
    key.description = Some(
        "An API key. It needs one of the scopes of the operation. `events:write` includes `events:logins`, \
         `events:appointments`, `decisions:label` and `reminders:write`; `views:read` includes `logins:read` and \
         `visits:read`; `admin` includes all."
            .to_owned(),
    );
    let key = SecurityScheme::Http(key);
    // No handler refers to it: the shared responses do.
    let mut schemas = vec![(ProblemDocument::name().into_owned(), ProblemDocument::schema())];
    ProblemDocument::schemas(&mut schemas);
    let components = ComponentsBuilder::new().security_scheme("api_key", key).schemas_from_iter(schemas).build();
    let tags = TAGS.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build());
    let server = ServerBuilder::new().url("/").description(Some("The server of this document")).build();
    OpenApiBuilder::new().info(info).servers(Some([server])).tags(Some(tags)).components(Some(components)).build()
}

/// Declares in the document that the operations of a router need one of some scopes.
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

/// The document that is served: generated once, and shared by all routers.
pub(super) fn served() -> &'static Value {
    static SERVED: LazyLock<Value> = LazyLock::new(|| completed(super::routes().into_openapi()));
    &SERVED
}

/// The complete document: what all operations have in common, schemas of the catalog, and shared problems.
fn completed(document: OpenApi) -> Value {
    // A document always has a JSON form.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let operations = item.as_object_mut().into_iter().flat_map(Map::values_mut);
        operations.filter_map(Value::as_object_mut).for_each(|operation| operation::complete(operation, path));
    }
    if let Value::Object(schemas) = &mut document["components"]["schemas"] {
        catalogue::add(schemas);
    }
    document["components"]["responses"] = operation::problems().into();
    document
}

/// The document as JSON, as `/openapi.json` serves it.
///
/// # Errors
/// Never in practice: a document always has a JSON form.
pub fn document() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(served())
}

/// The event that serves as the example in documents.
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
