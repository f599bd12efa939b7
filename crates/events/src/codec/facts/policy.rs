//! The data of facts about policies.

use super::present;
use crate::codec::cursor::{Entry, Fields};
use crate::codec::time;
use crate::fact::Data;
use crate::policy::{DOCUMENT_BYTES_MAX, EARLIER_MAX, Kind, Publication, Version};
use serde_json::{Map, Value, json};

impl Data for Publication {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Publication {
            kind: f.required_choice("policy", Kind::Login, Kind::parse),
            version: f.required_integer("version", 1, u32::MAX),
            document: f.document("document", DOCUMENT_BYTES_MAX),
            published_by: f.text("published_by"),
            request: f.lenient_id("request"),
            earlier: f.list("earlier", EARLIER_MAX, version).unwrap_or_default(),
        }
    }

    fn write(&self) -> Map<String, Value> {
        let document = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let earlier = self.earlier.iter().map(|version| {
            let mut earlier = json!({
                "version": version.version,
                "published_at": time::rfc3339(version.published_at_ms),
                "document": document(&version.document),
            });
            if let Some(request) = &version.request {
                earlier["request"] = json!(request);
            }
            earlier
        });
        present(json!({
            "policy": self.kind.name(),
            "version": self.version,
            "document": document(&self.document),
            "published_by": self.published_by,
            "request": self.request,
            "earlier": earlier.collect::<Vec<_>>(),
        }))
    }

    fn subject(&self) -> &str {
        self.kind.name()
    }
}

fn version(entry: &mut Entry<'_, '_>) -> Option<Version> {
    entry.object(|f| Version {
        version: f.required_integer("version", 1, u32::MAX),
        published_at_ms: f.required_instant("published_at"),
        document: f.document("document", DOCUMENT_BYTES_MAX),
        request: f.lenient_id("request"),
    })
}
