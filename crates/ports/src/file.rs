//! Text files written by people and other programs. Every file from outside is read through this module.
//!
//! ```text
//!   file ─► decompressed, if it is gzipped ─► no UTF-16 ─► no byte order mark ─► text, or a stream of lines
//! ```
//!
//! Tools on Windows put a byte order mark first and end lines with CR and LF, others omit the end of the last line,
//! and logs are often gzipped. Code that reads through this module has to handle only the CR, which the formats
//! themselves treat as white space.

use flate2::bufread::MultiGzDecoder;
use foretell_events::document::{self, BYTE_ORDER_MARK, NotText};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

/// The first bytes of every gzipped file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Largest file that contains a password, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Bytes per read.
const BUFFER_BYTES: usize = 64 * 1024;

/// The whole text of a file of at most `bytes_max` bytes, decompressed. Errors describe the content and do not name
/// the file; the caller adds its name.
pub fn text(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = bytes(path, bytes_max)?;
    let is_marked = bytes.starts_with(BYTE_ORDER_MARK);
    document::text(&bytes).map_err(invalid)?;
    if is_marked {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(invalid)
}

/// The whole content of a file of at most `bytes_max` bytes, decompressed.
pub fn bytes(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    unpacked(File::open(path)?)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(invalid(document::Error::TooLong { bytes_max }));
    }
    Ok(bytes)
}

/// The content of an input that may be gzipped, with one member or several.
pub fn unpacked<'i>(input: impl Read + 'i) -> io::Result<Box<dyn BufRead + 'i>> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    // The first read of a pipe may return fewer bytes than the magic number has.
    let mut head = Vec::new();
    (&mut input).take(GZIP.len() as u64).read_to_end(&mut head)?;
    let is_packed = head == GZIP;
    let input = Cursor::new(head).chain(input);
    Ok(match is_packed {
        true => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input))),
        false => Box::new(input),
    })
}

/// A decompressed input as text without a byte order mark. UTF-16 is an error.
///
/// Whether the rest is UTF-8 is checked by the caller, which can report the line.
pub fn unmarked<'i>(mut input: impl BufRead + 'i) -> io::Result<Box<dyn BufRead + 'i>> {
    let mut head = Vec::new();
    (&mut input).take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut head)?;
    if document::is_utf16(&head) {
        return Err(invalid(NotText::Utf16));
    }
    let rest = document::without_byte_order_mark(&head).to_vec();
    Ok(Box::new(Cursor::new(rest).chain(input)))
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_file_is_read_packed_or_not_marked_or_not() {
        for content in ["", "a", "one\r\ntwo", "\u{e9}\n"] {
            for bytes in [content.as_bytes().to_vec(), format!("\u{feff}{content}").into_bytes()] {
                for bytes in [gzipped(&bytes), bytes] {
                    assert_eq!(text(written(&bytes).path(), 64).unwrap(), content, "{bytes:?}");
                    let mut streamed = String::new();
                    let input = unmarked(unpacked(&bytes[..]).unwrap()).unwrap();
                    { input }.read_to_string(&mut streamed).unwrap();
                    assert_eq!(streamed, content, "{bytes:?}");
                }
            }
        }
    }

    /// An input that returns one byte per read, as a pipe may.
    struct Dripping<'b>(&'b [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn a_gzipped_stream_is_known_however_slowly_it_comes() {
        for bytes in [gzipped(b"one\ntwo"), b"one\ntwo".to_vec()] {
            let mut text = String::new();
            unpacked(Dripping(&bytes)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "one\ntwo");
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        let utf16: Vec<u8> = "\u{feff}a = 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut cut = gzipped(&[b'a'; 60]);
        cut.truncate(cut.len() - 4);
        for (bytes, words) in [
            (utf16.clone(), "UTF-16"),
            (gzipped(&utf16), "UTF-16"),
            (b"a\xff".to_vec(), "not UTF-8 at byte 1"),
            (vec![b'a'; 65], "longer than 64 bytes"),
            (gzipped(&[b'a'; 65]), "longer than 64 bytes"),
            (cut, "unexpected end of file"),
        ] {
            let error = text(written(&bytes).path(), 64).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(unmarked(&utf16[..]).is_err());
        assert_eq!(text(Path::new("/nowhere"), 64).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
