//! Media types of incoming events: `type/subtype; name=value` of RFC 9110, 8.3.1.
//!
//! The media types that CloudEvents considers JSON have a subtype that is `json` or ends in `+json`, with any type. Its
//! text is UTF-8 (RFC 8259), so a parameter `charset` may have no other value.

use super::fault::quoted;
use mediatype::MediaType;
use mediatype::names::{CHARSET, JSON};
use std::borrow::Cow;

/// The media type of JSON, without parameters.
const PLAIN: &str = "application/json";

/// A parsed media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Type and subtype without parameters, in lower case.
    essence: Cow<'static, str>,
    is_json: bool,
}

impl Media {
    /// Reads the text of a `Content-Type` or of `datacontenttype`.
    ///
    /// # Errors
    /// A sentence, if it is not a media type or has a charset other than UTF-8.
    pub fn parse(text: &str) -> Result<Self, String> {
        // The usual value.
        if text == PLAIN {
            return Ok(Self { essence: PLAIN.into(), is_json: true });
        }
        let media = MediaType::parse(text.trim_matches([' ', '\t']))
            .map_err(|_| format!("{} is not a media type; send one such as application/json", quoted(text)))?;
        let foreign = media.params.iter().filter(|(name, _)| *name == CHARSET).map(|(_, value)| value.unquoted_str());
        // ASCII is UTF-8 as well.
        let mut foreign =
            foreign.filter(|set| !["utf-8", "us-ascii"].iter().any(|utf8| set.eq_ignore_ascii_case(utf8)));
        match foreign.next() {
            Some(charset) => Err(format!("the charset {} is not supported; JSON is UTF-8", quoted(&charset))),
            None => {
                let is_json = media.suffix.map_or(media.subty, |suffix| suffix) == JSON;
                Ok(Self { essence: media.essence().to_string().to_ascii_lowercase().into(), is_json })
            }
        }
    }

    /// Type and subtype without parameters, in lower case.
    pub fn essence(&self) -> &str {
        &self.essence
    }

    /// Whether a body of this type is JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_subtype_and_is_utf_8() {
        for (text, read) in [
            ("application/json", Some(true)),
            ("Text/JSON", Some(true)),
            ("application/vnd.crm.login.v2+JSON", Some(true)),
            ("application/json; charset=utf-8", Some(true)),
            ("application/json;charset=\"UTF-8\";profile=\"a;b, \\\"c\\\"\"", Some(true)),
            ("application/json ;\tcharset=us-ascii", Some(true)),
            ("  application/json  ", Some(true)),
            ("application/json; version=1", Some(true)),
            ("application/json;", Some(true)),
            ("application/toml", Some(false)),
            ("application/jsonp", Some(false)),
            ("application/json+xml", Some(false)),
            ("application/json; charset=iso-8859-1", None),
            ("application/json; charset=utf-16", None),
            ("application/json; charset=utf-8; charset=latin1", None),
            ("application/json; charset=", None),
            ("application/json, application/json", None),
            ("application/json charset=utf-8", None),
            ("application/json; charset", None),
            ("application/json; x=\"open", None),
            ("application/+json", None),
            ("application", None),
            ("application/", None),
            ("/json", None),
            ("json", None),
            ("", None),
        ] {
            assert_eq!(Media::parse(text).ok().map(|media| media.is_json()), read, "{text}");
        }
        assert_eq!(
            Media::parse("Application/CloudEvents+JSON; charset=UTF-8").unwrap().essence(),
            "application/cloudevents+json"
        );
    }
}
