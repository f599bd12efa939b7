//! Conditional requests: RFC 9110, section 13, for documents that have versions.
//!
//! ```text
//!   write: If-Match, else If-Unmodified-Since ─► If-None-Match ─► go on, or 412
//!   read:  the same ──────────────────────────► If-None-Match, else If-Modified-Since ─► go on, 304 or 412
//! ```
//!
//! `If-Match` compares strongly: a weak tag never matches. `If-None-Match` compares weakly. A list of tags that cannot
//! be parsed is refused, because its sender relies on it; a date that cannot be parsed is ignored, as the RFC requires.
//! A date names whole seconds: where two versions fall into one, the date of the second names neither (8.8.2.2).

use super::problem::{Problem, ProblemCode};
use axum::http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use axum::http::{HeaderMap, HeaderValue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The current state of the document that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CurrentVersion<'a> {
    /// Its version: the opaque part of the strong `ETag`.
    pub(super) version: &'a str,
    /// When it was published, in milliseconds since the epoch; none if nothing was published, and then `*` matches
    /// nothing.
    pub(super) published_at_ms: Option<i64>,
    /// No version before it was published in the same second.
    pub(super) is_dated_alone: bool,
}

impl CurrentVersion<'_> {
    /// `ETag`.
    pub(super) fn etag(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("\"{}\"", self.version)).ok()
    }

    /// `Last-Modified`, which has a resolution of whole seconds.
    pub(super) fn last_modified(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&httpdate::fmt_http_date(self.modified()?)).ok()
    }

    /// Whether it certainly is the version that existed at the end of the second that a date names; none without a
    /// date.
    fn is_unmodified_since(&self, date: SystemTime) -> Option<bool> {
        let modified = self.modified()?;
        Some(if self.is_dated_alone { modified <= date } else { modified < date })
    }

    fn modified(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.published_at_ms?).ok()? / 1_000;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// What a request depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

/// The result of the preconditions of a request that reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConditionalRead {
    /// The document is sent.
    Full,
    /// 304: the caller has the current version.
    NotModified,
    /// 412.
    Failed,
}

impl Preconditions {
    /// The preconditions of a request; 400 for a list of entity tags that cannot be parsed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: tags(headers, &IF_MATCH)?,
            if_none_match: tags(headers, &IF_NONE_MATCH)?,
            if_modified_since: date(headers, &IF_MODIFIED_SINCE),
            if_unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
        })
    }

    /// Evaluates the preconditions of a request that reads.
    pub(super) fn read(&self, present: CurrentVersion<'_>) -> ConditionalRead {
        let is_known = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => tags.hold(present, Comparison::Weak),
            (None, since) => since.and_then(|since| present.is_unmodified_since(since)).unwrap_or(false),
        };
        match (self.is_as_expected(present), is_known) {
            (false, _) => ConditionalRead::Failed,
            (true, true) => ConditionalRead::NotModified,
            (true, false) => ConditionalRead::Full,
        }
    }

    /// Whether a request that writes may proceed; if not it is answered 412.
    pub(super) fn write(&self, present: CurrentVersion<'_>) -> bool {
        let exists = self.if_none_match.as_ref().is_some_and(|tags| tags.hold(present, Comparison::Weak));
        self.is_as_expected(present) && !exists
    }

    /// `If-Match`, else `If-Unmodified-Since`.
    fn is_as_expected(&self, present: CurrentVersion<'_>) -> bool {
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => tags.hold(present, Comparison::Strong),
            (None, since) => since.and_then(|since| present.is_unmodified_since(since)).unwrap_or(true),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    /// Between the quotes.
    opaque: Vec<u8>,
}

impl Tags {
    /// Whether one of them matches the current tag, which is strong.
    fn hold(&self, present: CurrentVersion<'_>, comparison: Comparison) -> bool {
        match self {
            Self::Any => present.published_at_ms.is_some(),
            Self::Listed(tags) => tags.iter().any(|tag| {
                tag.opaque == present.version.as_bytes() && (comparison == Comparison::Weak || !tag.is_weak)
            }),
        }
    }

    /// `*`, or a list of entity tags (sections 5.6.1 and 8.8.3): empty elements are allowed, an empty list is not.
    fn parse(text: &[u8]) -> Option<Self> {
        if text.trim_ascii() == b"*" {
            return Some(Self::Any);
        }
        let (mut tags, mut rest) = (Vec::new(), text);
        loop {
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                None => return (!tags.is_empty()).then_some(Self::Listed(tags)),
                Some((b',', behind)) => rest = behind,
                Some(_) => {
                    let (tag, behind) = Tag::parse(rest)?;
                    tags.push(tag);
                    rest = behind.trim_ascii_start();
                    if !matches!(rest.first(), None | Some(b',')) {
                        return None;
                    }
                }
            }
        }
    }
}

impl Tag {
    /// The tag at the beginning of a text, and the rest of the text.
    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        let (is_weak, quoted) = text.strip_prefix(b"W/").map_or((false, text), |rest| (true, rest));
        let opaque = quoted.strip_prefix(b"\"")?;
        let length = opaque.iter().position(|byte| *byte == b'"')?;
        let (opaque, behind) = opaque.split_at(length);
        let is_tag = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
        opaque.iter().all(is_tag).then(|| (Self { is_weak, opaque: opaque.to_vec() }, &behind[1..]))
    }
}

/// Several lines of one header are one list.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    Tags::parse(&lines.join(&b", "[..])).map(Some).ok_or_else(|| {
        let detail = format!("{name} must be * or a list of entity tags, each in quotes as ETag has it");
        Problem::new(ProblemCode::MalformedRequest, detail)
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    httpdate::parse_http_date(only.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 1 March 2026, 10:00:00.750 UTC.
    const PUBLISHED_MS: i64 = 1_772_359_200_750;
    const AT: &str = "Sun, 01 Mar 2026 10:00:00 GMT";
    const BEFORE: &str = "Sun, 01 Mar 2026 09:59:59 GMT";
    const AFTER: &str = "Sun, 01 Mar 2026 10:00:01 GMT";
    const PRESENT: CurrentVersion<'_> =
        CurrentVersion { version: "3", published_at_ms: Some(PUBLISHED_MS), is_dated_alone: true };
    const NOTHING: CurrentVersion<'_> =
        CurrentVersion { version: "d54bebe79826f10f", published_at_ms: None, is_dated_alone: true };

    fn of(headers: &[(&HeaderName, &str)]) -> Result<Preconditions, Problem> {
        let pairs = headers.iter().map(|(name, value)| ((*name).clone(), HeaderValue::from_str(value).unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        Preconditions::of(&map)
    }

    #[test]
    fn tags_are_compared_strongly_to_write_and_weakly_to_know_what_is_there() {
        for (list, matches_strongly, matches_weakly) in [
            ("\"3\"", true, true),
            (" \"3\" ", true, true),
            ("\"zzz\", \"3\"", true, true),
            ("\"a,b\",,\"3\",", true, true),
            ("W/\"3\"", false, true),
            ("W/\"1\", W/\"3\"", false, true),
            ("W/\"3\", \"3\"", true, true),
            ("\"2\"", false, false),
            ("\"\"", false, false),
            ("\"*\"", false, false),
            ("*", true, true),
            (" * ", true, true),
        ] {
            let write = of(&[(&IF_MATCH, list)]).unwrap();
            assert_eq!(write.write(PRESENT), matches_strongly, "If-Match: {list}");
            assert_eq!(write.read(PRESENT) == ConditionalRead::Full, matches_strongly, "If-Match: {list}");
            let known = of(&[(&IF_NONE_MATCH, list)]).unwrap();
            assert_eq!(known.read(PRESENT) == ConditionalRead::NotModified, matches_weakly, "If-None-Match: {list}");
            assert_eq!(known.write(PRESENT), !matches_weakly, "If-None-Match: {list}");
        }
    }

    #[test]
    fn lists_that_cannot_be_parsed_are_refused() {
        for list in
            ["", ",", "3", "\"3", "3\"", "w/\"3\"", "W/ \"3\"", "\"3\" \"4\"", "\"3\", *", "*, \"3\"", "\"a b\""]
        {
            for name in [IF_MATCH, IF_NONE_MATCH] {
                let refused = of(&[(&name, list)]).unwrap_err();
                assert_eq!(refused.code(), ProblemCode::MalformedRequest, "{name}: {list}");
            }
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        assert!(of(&[(&IF_MATCH, "\"1\""), (&IF_MATCH, "\"3\"")]).unwrap().write(PRESENT));
        assert!(of(&[(&IF_MATCH, "*"), (&IF_MATCH, "\"3\"")]).is_err());
    }

    #[test]
    fn an_asterisk_is_whatever_was_published() {
        assert!(!of(&[(&IF_MATCH, "*")]).unwrap().write(NOTHING));
        assert!(of(&[(&IF_NONE_MATCH, "*")]).unwrap().write(NOTHING));
        assert!(!of(&[(&IF_NONE_MATCH, "*")]).unwrap().write(PRESENT));
        // The settings have a tag too, so they can be replaced conditionally.
        assert!(of(&[(&IF_MATCH, "\"d54bebe79826f10f\"")]).unwrap().write(NOTHING));
    }

    #[test]
    fn dates_count_in_whole_seconds_and_only_where_no_tags_do() {
        let (modified, unmodified) = (IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE);
        assert_eq!(of(&[(&modified, AT)]).unwrap().read(PRESENT), ConditionalRead::NotModified);
        assert_eq!(of(&[(&modified, BEFORE)]).unwrap().read(PRESENT), ConditionalRead::Full);
        assert_eq!(of(&[(&modified, AT)]).unwrap().read(NOTHING), ConditionalRead::Full, "it has no date");
        assert!(of(&[(&modified, AT)]).unwrap().write(PRESENT), "is about reading alone");
        assert!(of(&[(&unmodified, AT)]).unwrap().write(PRESENT));
        assert!(!of(&[(&unmodified, BEFORE)]).unwrap().write(PRESENT));
        assert_eq!(of(&[(&unmodified, BEFORE)]).unwrap().read(PRESENT), ConditionalRead::Failed);
        assert!(of(&[(&unmodified, BEFORE)]).unwrap().write(NOTHING));
        // The three formats of a date; an invalid date counts as none.
        for text in ["Sunday, 01-Mar-26 09:59:59 GMT", "Sun Mar  1 09:59:59 2026"] {
            assert!(!of(&[(&unmodified, text)]).unwrap().write(PRESENT), "{text}");
        }
        for text in ["yesterday", "2026-03-01T09:59:59Z", "Sun, 01 Mar 2026 09:59:59 GMT, x"] {
            assert!(of(&[(&unmodified, text)]).unwrap().write(PRESENT), "{text}");
        }
        assert!(of(&[(&unmodified, BEFORE), (&unmodified, BEFORE)]).unwrap().write(PRESENT));
        // Section 13.2.2: tags are evaluated before dates, and `If-Match` before `If-None-Match`.
        assert!(of(&[(&IF_MATCH, "\"3\""), (&unmodified, BEFORE)]).unwrap().write(PRESENT));
        assert_eq!(of(&[(&IF_NONE_MATCH, "\"2\""), (&modified, AT)]).unwrap().read(PRESENT), ConditionalRead::Full);
        assert_eq!(
            of(&[(&IF_NONE_MATCH, "\"3\""), (&modified, BEFORE)]).unwrap().read(PRESENT),
            ConditionalRead::NotModified
        );
        assert_eq!(
            of(&[(&IF_MATCH, "\"2\""), (&IF_NONE_MATCH, "\"3\"")]).unwrap().read(PRESENT),
            ConditionalRead::Failed
        );
    }

    #[test]
    fn a_date_does_not_name_the_second_version_of_its_second() {
        let second = CurrentVersion { is_dated_alone: false, ..PRESENT };
        for (date, is_named) in [(BEFORE, false), (AT, false), (AFTER, true)] {
            let (known, unmodified) =
                (of(&[(&IF_MODIFIED_SINCE, date)]).unwrap(), of(&[(&IF_UNMODIFIED_SINCE, date)]).unwrap());
            assert_eq!(known.read(second) == ConditionalRead::NotModified, is_named, "{date}");
            assert_eq!(unmodified.write(second), is_named, "{date}");
        }
    }

    #[test]
    fn what_is_sent_is_what_is_understood() {
        let (etag, modified) = (PRESENT.etag().unwrap(), PRESENT.last_modified().unwrap());
        assert_eq!((etag.to_str().unwrap(), modified.to_str().unwrap()), ("\"3\"", AT));
        assert_eq!(NOTHING.last_modified(), None);
        let again = of(&[(&IF_NONE_MATCH, etag.to_str().unwrap()), (&IF_MATCH, etag.to_str().unwrap())]).unwrap();
        assert_eq!(again.read(PRESENT), ConditionalRead::NotModified);
    }

    proptest! {
        #[test]
        fn any_list_that_is_written_by_the_grammar_is_read(
            tags in proptest::collection::vec((any::<bool>(), "[!#-~\u{80}-\u{2ff}]{0,8}"), 1..6), empty in "[ ,]{0,3}",
        ) {
            let text = |(is_weak, opaque): &(bool, String)| format!("{}\"{opaque}\"", if *is_weak { "W/" } else { "" });
            let list = format!("{empty}{}", tags.iter().map(text).collect::<Vec<_>>().join(&format!(" ,{empty}")));
            let expected = tags.into_iter().map(|(is_weak, opaque)| Tag { is_weak, opaque: opaque.into_bytes() });
            prop_assert_eq!(Tags::parse(list.as_bytes()), Some(Tags::Listed(expected.collect())));
        }

        #[test]
        fn nothing_that_is_sent_panics(list in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = Tags::parse(&list);
        }
    }
}
