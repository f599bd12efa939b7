//! Sets of networks in the netset format of FireHOL: one address or prefix per line, `#` begins a comment.
//!
//! A set is two sorted lists of ranges, one per protocol, which neither touch nor overlap. A look-up is one binary
//! search: 17 steps at 100,000 prefixes, over 400 KiB of first addresses that stay in the processor's caches. A trie
//! would also return *which* prefix matched, at the cost of pointers, but that is not needed.
//!
//! An IPv6 address represents its household, as an IPv4 address does: a prefix longer than a /64 counts as its /64,
//! because hosts change the remaining bits. Addresses and prefixes that represent IPv4 ones (`::ffff:81.9.4.0/120`) are
//! treated as those. A prefix that covers all of them (`::ffff:0:0/96`), or is written like one with the length of an
//! IPv4 prefix (`::ffff:81.9.4.0/24`), is ignored and reported, because it is certainly a mistake.
//!
//! Lists come from elsewhere, often through a cron job. Invalid lines are counted and the first ones are reported; the
//! others are used. A file with only invalid lines is not a netset (most likely a "not found" page) and is rejected, so
//! that the previous set stays in force.

use foretell_events::address::{LOCAL_V4, LOCAL_V6, household_bits, inner, translation};
use foretell_events::document::{self, NotText};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Invalid lines that are reported.
const NAMED_MAX: usize = 3;
/// How much of an invalid line is reported, in bytes.
const SHOWN_BYTES: usize = 40;

/// How to treat local blocks that a list contains as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bogons {
    /// Ignore them: public lists contain them so that routers drop stray packets.
    Leave,
    /// Use them.
    Take,
}

/// A set of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netset {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// The result of reading a netset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedNetset {
    /// The addresses.
    pub set: Netset,
    /// Valid lines.
    pub prefixes: usize,
    /// Invalid lines.
    pub faulty: usize,
    /// The first invalid lines, as in `line 7: "<html>"`.
    pub named: Vec<String>,
}

/// Why a text is not a netset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has lines, but none of them is an address or a prefix.
    #[error("none of its {faulty} lines is an address or a prefix; {first}")]
    Nothing {
        /// The number of lines.
        faulty: usize,
        /// The first line.
        first: String,
    },
    /// It is not UTF-8.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// It is too long.
    #[error("more than {prefixes_max} prefixes")]
    TooMany {
        /// The limit.
        prefixes_max: usize,
    },
}

/// Reads a netset of at most `prefixes_max` prefixes.
pub fn read(text: &[u8], prefixes_max: usize, bogons: Bogons) -> Result<ParsedNetset, Error> {
    let mut read = ParsedNetset::default();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    if document::is_utf16(text) {
        return Err(NotText::Utf16.into());
    }
    for (at, line) in document::without_byte_order_mark(text).split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match range(entry) {
            Some(Range::V4(first, last)) => v4.push((first, last)),
            Some(Range::V6(first, last)) => v6.push((first, last)),
            None => {
                read.faulty += 1;
                if read.named.len() < NAMED_MAX {
                    let shown = &entry[..entry.floor_char_boundary(SHOWN_BYTES)];
                    read.named.push(format!("line {}: {shown:?}", at + 1));
                }
                continue;
            }
        }
        read.prefixes += 1;
        if read.prefixes > prefixes_max {
            return Err(Error::TooMany { prefixes_max });
        }
    }
    if read.prefixes == 0 && read.faulty > 0 {
        return Err(Error::Nothing { faulty: read.faulty, first: read.named.swap_remove(0) });
    }
    if bogons == Bogons::Leave {
        v4 = without(v4, &LOCAL_V4.map(|(network, length)| block_v4(network, length)));
        v6 = without(v6, &LOCAL_V6.map(|(network, length)| block_v6(network, length)));
    }
    read.set = Netset { v4: Ranges::of(v4), v6: Ranges::of(v6) };
    Ok(read)
}

impl Netset {
    /// Whether the set contains an address, or the IPv4 address that an IPv6 address represents.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.holds(ip) || matches!(ip, IpAddr::V6(_)) && self.holds(inner(ip))
    }

    fn holds(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.contains(ip.to_bits()),
        }
    }
}

/// The first and the last number of each range, in order; the ranges do not touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges<N> {
    firsts: Vec<N>,
    lasts: Vec<N>,
}

impl<N: Number> Ranges<N> {
    fn of(mut ranges: Vec<(N, N)>) -> Self {
        ranges.sort_unstable();
        let mut merged = Self { firsts: Vec::new(), lasts: Vec::new() };
        for (first, last) in ranges {
            match merged.lasts.last_mut() {
                Some(end) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
                _ => {
                    merged.firsts.push(first);
                    merged.lasts.push(last);
                }
            }
        }
        merged.firsts.shrink_to_fit();
        merged.lasts.shrink_to_fit();
        merged
    }

    fn contains(&self, number: N) -> bool {
        let after = self.firsts.partition_point(|first| *first <= number);
        after.checked_sub(1).and_then(|at| self.lasts.get(at)).is_some_and(|last| number <= *last)
    }
}

/// An address as a number.
trait Number: Copy + Ord {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// The ranges, minus those of `blocks` that lie completely within one of them. Blocks are sorted and separate.
fn without<N: Number>(ranges: Vec<(N, N)>, blocks: &[(N, N)]) -> Vec<(N, N)> {
    let mut left = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        let mut from = Some(first);
        for (begin, end) in blocks.iter().filter(|(begin, end)| first <= *begin && *end <= last) {
            if let (Some(from), Some(to)) = (from, begin.previous())
                && from <= to
            {
                left.push((from, to));
            }
            from = end.next();
        }
        if let Some(from) = from.filter(|from| *from <= last) {
            left.push((from, last));
        }
    }
    left
}

enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

/// An address, a prefix, or two addresses with a hyphen between them. Bits after the prefix are ignored.
fn range(entry: &str) -> Option<Range> {
    if let Some((first, last)) = entry.split_once('-') {
        return match (first.trim().parse().ok()?, last.trim().parse().ok()?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Some(Range::V4(first.to_bits(), last.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => range_v6(first, last),
            _ => None,
        };
    }
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            (address, Some(length.parse::<u8>().ok()?))
        }
        Some(_) => return None,
        None => (entry, None),
    };
    match address.parse().ok()? {
        IpAddr::V4(ip) => {
            let length = length.unwrap_or(32);
            let (first, last) = (length <= 32).then(|| block_v4(ip, length))?;
            Some(Range::V4(first, last))
        }
        IpAddr::V6(ip) => {
            let length = length.unwrap_or(128);
            let (first, last) = (length <= 128).then(|| block_v6(ip, length))?;
            // The length is that of an IPv4 prefix; the whole block of mapped addresses, and more, is a mistake.
            let is_too_short = ip.to_ipv4_mapped().is_some() && length <= 96;
            if is_too_short { None } else { range_v6(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last)) }
        }
    }
}

/// The meaning of a range of IPv6 addresses: IPv4 addresses if it lies within a block that represents them, otherwise
/// whole households. None if it exceeds the mapped addresses at one end only, or covers all of them.
fn range_v6(first: Ipv6Addr, last: Ipv6Addr) -> Option<Range> {
    if let (Some(block), Some(other)) = (translation(first), translation(last))
        && block == other
        && block_v6(block.0, block.1) != (first.to_bits(), last.to_bits())
        && let (IpAddr::V4(first), IpAddr::V4(last)) = (inner(first.into()), inner(last.into()))
    {
        return Some(Range::V4(first.to_bits(), last.to_bits()));
    }
    // A mapped address is looked up as its IPv4 address, so the range would never match.
    if [first, last].iter().any(|end| end.to_ipv4_mapped().is_some()) {
        return None;
    }
    let hosts = |ip: Ipv6Addr| u128::MAX.checked_shr(household_bits(ip)).unwrap_or(0);
    Some(Range::V6(first.to_bits() & !hosts(first), last.to_bits() | hosts(last)))
}

fn block_v4(ip: Ipv4Addr, length: u8) -> (u32, u32) {
    let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    (ip.to_bits() & !hosts, ip.to_bits() | hosts)
}

fn block_v6(ip: Ipv6Addr, length: u8) -> (u128, u128) {
    let hosts = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    (ip.to_bits() & !hosts, ip.to_bits() | hosts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: &str = "# firehol_level1\n#\n1.2.3.4\n 5.6.0.0/16 \r\n10.0.0.0/8\n192.168.7.0/24\n203.0.113.0/24 ; SBL1\n\
                        2001:db8::/32 # v6\nfe80::/10\n7.7.7.7-7.7.8.1\n9.9.9.9/33\n<html>\n1.2.3\n4.4.4.4/-1\n";

    fn set(text: &str, bogons: Bogons) -> Netset {
        read(text.as_bytes(), 1_000, bogons).unwrap().set
    }

    #[test]
    fn a_list_is_read_as_it_comes() {
        let read = read(LIST.as_bytes(), 1_000, Bogons::Leave).unwrap();
        assert_eq!((read.prefixes, read.faulty), (8, 4));
        assert_eq!(read.named, [r#"line 11: "9.9.9.9/33""#, r#"line 12: "<html>""#, r#"line 13: "1.2.3""#]);
        for (ip, holds) in [
            ("1.2.3.4", true),
            ("1.2.3.5", false),
            ("5.6.255.255", true),
            ("5.7.0.0", false),
            ("203.0.113.66", true),
            ("::ffff:203.0.113.66", true),
            ("64:ff9b::102:304", true),
            ("2002:506:7::1", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("7.7.8.1", true),
            ("7.7.8.2", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("::", false),
        ] {
            assert_eq!(read.set.contains(ip.parse().unwrap()), holds, "{ip}");
        }
    }

    #[test]
    fn an_ipv6_entry_is_of_whole_households() {
        for (entry, ip, holds) in [
            ("2001:db8:1:2::5", "2001:db8:1:2:aaaa::1", true),
            ("2001:db8:1:2::5", "2001:db8:1:3::5", false),
            ("2001:db8:1:2:8000::/65", "2001:db8:1:2::1", true),
            ("2001:db8:1:2::5-2001:db8:1:4::", "2001:db8:1:4::ffff", true),
            ("2001:db8:1:2::5-2001:db8:1:4::", "2001:db8:1:5::", false),
            ("2001:db8:1:200::/56", "2001:db8:1:2ff::1", true),
            ("2001:db8:1:200::/56", "2001:db8:1:300::1", false),
            ("2001:db8::/32", "2001:db8:ffff:1::1", true),
            ("::1", "::2", false), // Not a network.
        ] {
            assert_eq!(set(entry, Bogons::Leave).contains(ip.parse().unwrap()), holds, "{ip} in {entry}");
        }
    }

    #[test]
    fn an_entry_that_represents_ipv4_addresses_is_treated_as_those() {
        for entry in [
            "81.9.4.0/24",
            "::ffff:81.9.4.0/120",
            "::FFFF:5109:400/120",
            "::ffff:81.9.4.0-::ffff:81.9.4.255",
            "64:ff9b::5109:400/120",
            "64:ff9b::81.9.4.0-64:ff9b::81.9.4.255",
            "2002:5109:400::/40",
            "2002:5109:400::-2002:5109:4ff:ffff::",
        ] {
            let set = set(entry, Bogons::Leave);
            for (ip, holds) in [
                ("81.9.4.0", true),
                ("81.9.4.255", true),
                ("81.9.5.0", false),
                ("81.9.3.255", false),
                ("::ffff:81.9.4.5", true),
                ("64:ff9b::81.9.4.5", true),
                ("2002:5109:405::7", true),
                ("2002:5109:505::7", false),
            ] {
                assert_eq!(set.contains(ip.parse().unwrap()), holds, "{ip} in {entry}");
            }
        }
        assert!(
            set("2002:5109:405:1::/64", Bogons::Leave).contains("81.9.4.5".parse().unwrap()),
            "a network of a site"
        );
        assert!(!set("::ffff:10.0.0.0/104", Bogons::Leave).contains("10.1.2.3".parse().unwrap()), "a bogon as 10/8 is");
    }

    #[test]
    fn a_translator_as_a_whole_is_no_list_of_all_ipv4_addresses() {
        for (entry, ip) in
            [("64:ff9b::/96", "64:ff9b::81.9.4.5"), ("2002::/16", "2002:5109:405::7"), ("::/0", "2600::")]
        {
            let set = set(entry, Bogons::Leave);
            assert!(set.contains(ip.parse().unwrap()), "{ip} in {entry}");
            assert!(!set.contains("81.9.4.5".parse().unwrap()), "{entry}");
        }
    }

    #[test]
    fn a_mapped_entry_that_means_nothing_is_named() {
        for entry in [
            "::ffff:0:0/96",
            "::ffff:81.9.4.0/24",
            "::ffff:81.9.4.5/0",
            "::ffff:0.0.0.0-::ffff:255.255.255.255",
            "::ffff:81.9.4.0-::1:0:0:0",
            "::1-::ffff:81.9.4.0",
            "81.9.4.0-::ffff:81.9.4.9",
            "::ffff:81.9.4.0/129",
        ] {
            let read = read(format!("1.2.3.4\n{entry}\n").as_bytes(), 9, Bogons::Take).unwrap();
            assert_eq!((read.prefixes, read.named), (1, vec![format!("line 2: {entry:?}")]));
            assert!(!read.set.contains("81.9.4.5".parse().unwrap()), "{entry}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_an_open_last_line_are_no_part_of_an_entry() {
        let read = read(b"\xef\xbb\xbf1.2.3.4\r\n5.6.7.8", 9, Bogons::Leave).unwrap();
        assert_eq!((read.prefixes, read.faulty), (2, 0));
        assert!(["1.2.3.4", "5.6.7.8"].iter().all(|ip| read.set.contains(ip.parse().unwrap())));
    }

    #[test]
    fn whole_local_blocks_count_on_allow_lists_alone() {
        for (entry, ip, left, taken) in [
            ("10.0.0.0/8", "10.1.2.3", false, true),
            ("10.1.0.0/16", "10.1.2.3", true, true), // A part of one: it is intended.
            ("0.0.0.0/0", "192.168.1.1", false, true),
            ("0.0.0.0/0", "8.8.8.8", true, true),
            ("0.0.0.0/0", "9.255.255.255", true, true),
            ("0.0.0.0/0", "11.0.0.0", true, true),
            ("0.0.0.0/0", "255.255.255.255", true, true),
            ("172.16.0.0/12", "172.20.0.1", false, true),
            ("203.0.113.0/24", "203.0.113.9", true, true),
            ("fc00::/7", "fd00::1", false, true),
            ("fd00:1::/32", "fd00:1::1", true, true),
            ("::/0", "::1", false, true),
            ("::/0", "2606:4700::1", true, true),
        ] {
            let ip = ip.parse().unwrap();
            let found = (set(entry, Bogons::Leave).contains(ip), set(entry, Bogons::Take).contains(ip));
            assert_eq!(found, (left, taken), "{ip} in {entry}");
        }
    }

    #[test]
    fn windows_lists_say_what_others_say() {
        let crlf = LIST.replace(" \r\n", "\n").replace('\n', "\r\n");
        for text in [format!("\u{feff}{LIST}"), format!("\u{feff}1.2.3.4\r\n{crlf}"), crlf.trim_end().to_owned()] {
            assert_eq!(set(&text, Bogons::Leave), set(LIST, Bogons::Leave), "{text:?}");
        }
        let utf16: Vec<u8> = LIST.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(read(&utf16, 1_000, Bogons::Leave), Err(NotText::Utf16.into()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(read(b"# nothing today\n\n", 9, Bogons::Leave), Ok(ParsedNetset::default()));
        let page = read(b"<!doctype html>\n<p>404\n", 9, Bogons::Leave).unwrap_err();
        assert_eq!(page.to_string(), r#"none of its 2 lines is an address or a prefix; line 1: "<!doctype html>""#);
        assert!(matches!(read(&[0xff, 0xfe, b'\n'], 9, Bogons::Leave), Err(Error::NotText(NotText::Utf16))));
        assert!(matches!(read(&[0xfd, 0xfe, b'\n'], 9, Bogons::Leave), Err(Error::Nothing { faulty: 1, .. })));
        assert_eq!(read(b"1.1.1.1\n2.2.2.2\n", 1, Bogons::Leave), Err(Error::TooMany { prefixes_max: 1 }));
    }

    /// Addresses that are close to each other, so that ranges meet, and sometimes the first and the last address.
    fn near() -> impl Strategy<Value = Ipv4Addr> {
        prop_oneof![
            (0_u32..1 << 12).prop_map(|low| Ipv4Addr::from(0x0b00_0000 | low)),
            any::<u32>().prop_map(Ipv4Addr::from)
        ]
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_prefixes_holds(
            prefixes in proptest::collection::vec((near(), 0_u8..=32), 0..40),
            queried in proptest::collection::vec(near(), 40),
        ) {
            let text: String = prefixes.iter().map(|(ip, length)| format!("{ip}/{length}\n")).collect();
            // In the upper half, where every bit matters.
            let as_v6 = |ip: Ipv4Addr| Ipv6Addr::from(0x2a00_u128 << 112 | u128::from(ip.to_bits()) << 64);
            let text_v6: String = prefixes.iter().map(|(ip, length)| format!("{}/{}\n", as_v6(*ip), length + 32)).collect();
            let (v4, v6) = (set(&text, Bogons::Take), set(&text_v6, Bogons::Take));
            for ip in queried {
                let naive = prefixes.iter().any(|(network, length)| {
                    (ip.to_bits() ^ network.to_bits()).checked_shr(32 - u32::from(*length)).unwrap_or(0) == 0
                });
                prop_assert_eq!(v4.contains(ip.into()), naive, "{}", ip);
                prop_assert_eq!(v6.contains(as_v6(ip).into()), naive, "{}", ip);
            }
        }
    }
}
