//! `Content-Encoding`: compressed bodies (RFC 9110, 8.4).
//!
//! gzip is decoded, because most agents and collectors send it; any other coding is rejected with a problem that names
//! the supported ones. A few kilobytes can decompress to gigabytes, so a body is only decompressed up to its maximum
//! size, and only once: gzip within gzip is rejected. A gzip body may have several members, each of which costs a
//! decoder set-up, so their number is limited too.

use super::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use std::io::Read;

/// Maximum gzip members of a body.
const MEMBERS_MAX: usize = 64;

/// The coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// The coding that the headers state, before the body is read.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let refused = |detail: &str| Problem::new(ProblemCode::UnsupportedContentEncoding, detail);
        let mut coding = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let text = value.to_str().map_err(|_| refused("Content-Encoding is not text; send gzip, or none"))?;
            for name in text.split(',').map(str::trim) {
                // x-gzip is the earlier name of gzip (RFC 9110, 8.4.1.3).
                match (name.to_ascii_lowercase().as_str(), coding) {
                    ("" | "identity", _) => {}
                    ("gzip" | "x-gzip", Self::Identity) => coding = Self::Gzip,
                    ("gzip" | "x-gzip", Self::Gzip) => {
                        return Err(refused("Content-Encoding names gzip twice; send gzip once, or none"));
                    }
                    _ => return Err(refused("Content-Encoding is not gzip; send gzip, or none")),
                }
            }
        }
        Ok(coding)
    }

    /// The decoded body, at most `bytes_max` of it.
    pub(super) fn undone(self, body: Bytes, bytes_max: usize) -> Result<Bytes, Problem> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => unpacked(&body, bytes_max).map(Bytes::from),
        }
    }
}

fn unpacked(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let malformed = |why: &str| {
        let detail = format!("Content-Encoding is gzip, but the body is not a complete gzip stream: {why}");
        Problem::new(ProblemCode::MalformedRequest, detail)
    };
    let (mut unpacked, mut rest) = (Vec::new(), body);
    for _ in 0..MEMBERS_MAX {
        let mut member = GzDecoder::new(rest);
        let left = (bytes_max - unpacked.len()) as u64;
        member.by_ref().take(left + 1).read_to_end(&mut unpacked).map_err(|error| malformed(&error.to_string()))?;
        if unpacked.len() > bytes_max {
            let detail = format!("the body is larger than {bytes_max} bytes after decompression");
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return Ok(unpacked);
        }
    }
    Err(malformed(&format!("it has more than {MEMBERS_MAX} gzip members, or data after them")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap())).collect()
    }

    fn code(body: &[u8]) -> Result<usize, ProblemCode> {
        unpacked(body, 1_000).map(|body| body.len()).map_err(|problem| problem.code())
    }

    #[test]
    fn codings_are_gzip_once_or_none() {
        for (values, wanted) in [
            (&[][..], Some(Coding::Identity)),
            (&[""], Some(Coding::Identity)),
            (&["identity"], Some(Coding::Identity)),
            (&["GZip"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["identity, gzip ,"], Some(Coding::Gzip)),
            (&["identity", "gzip"], Some(Coding::Gzip)),
            (&["gzip, gzip"], None),
            (&["gzip", "x-gzip"], None),
            (&["deflate"], None),
            (&["br, gzip"], None),
            (&["gzip;q=1"], None),
            (&["gzip zstd"], None),
        ] {
            let read = Coding::of(&headers(values));
            assert!(
                read.as_ref().err().is_none_or(|problem| problem.code() == ProblemCode::UnsupportedContentEncoding)
            );
            assert_eq!(read.ok(), wanted, "{values:?}");
        }
    }

    #[test]
    fn a_body_that_lies_about_gzip_is_refused() {
        let whole = gzip(b"{}");
        let mut damaged = whole.clone();
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        for body in [
            &b""[..],
            b"{}",
            &whole[..1],
            &whole[..10],
            &whole[..whole.len() - 1],
            &damaged,
            &[&whole[..], b"\0"].concat(),
            &[&whole[..], b"{}"].concat(),
            &[&whole[..], &whole[..5]].concat(),
        ] {
            assert_eq!(code(body), Err(ProblemCode::MalformedRequest), "{body:?}");
        }
    }

    #[test]
    fn members_follow_each_other_and_are_bounded() {
        assert_eq!(code(&gzip(b"ab").repeat(3)), Ok(6));
        assert_eq!(code(&gzip(b"").repeat(MEMBERS_MAX)), Ok(0));
        assert_eq!(code(&gzip(b"").repeat(MEMBERS_MAX + 1)), Err(ProblemCode::MalformedRequest));
    }

    #[test]
    fn what_is_unpacked_is_bounded_over_all_members() {
        assert_eq!(code(&gzip(&[b' '; 1_000])), Ok(1_000));
        assert_eq!(code(&gzip(&[b' '; 1_001])), Err(ProblemCode::BodyTooLarge));
        assert_eq!(code(&gzip(&[b' '; 600]).repeat(2)), Err(ProblemCode::BodyTooLarge));
        assert_eq!(code(&gzip(&vec![0; 50_000_000])), Err(ProblemCode::BodyTooLarge));
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_and_no_bytes_are_a_panic(bytes: Vec<u8>, cut: prop::sample::Index) {
            let packed = gzip(&bytes);
            prop_assert_eq!(&unpacked(&packed, 10_000).unwrap(), &bytes);
            prop_assert!(unpacked(&packed[..cut.index(packed.len())], 10_000).is_err());
            let _ = unpacked(&bytes, 10_000);
        }
    }
}
