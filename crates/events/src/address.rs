//! The kind of an address, the address that is used for its place, and the part of it that identifies a household.
//!
//! | addresses | looked up | on deny lists | why |
//! |---|---|---|---|
//! | public | yes | as listed | |
//! | IPv4-mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), 6to4 (`2002::/16`) | the IPv4 address inside | as it is, or the one inside | they are spellings of an IPv4 address, or tunnels that end at one |
//! | documentation (`192.0.2.0/24` and the like, `2001:db8::/32`, `3fff::/20`) | yes | as listed | no login comes from them, so an entry for one in a file is intended: examples and tests |
//! | private, loopback, link-local, of carriers (`100.64.0.0/10`), unspecified | no | only where a part of their block is listed | they mean a different network to each host; public deny lists name the whole blocks as bogons, for routers, and would hit every login from inside |
//! | multicast, reserved, benchmarks, Teredo | no | as listed | no login comes from them; Teredo's inner address is claimed by the client |
//!
//! On an allow list every address is as listed.
//!
//! An IPv4 address belongs to one household, or to the many behind a gateway. An IPv6 host has a whole /64 and changes
//! the lower half of its address every day (RFC 8981), so the /64 is what corresponds to an IPv4 address: the
//! [household]. Providers assign a home a /56 or more (RFC 6177), whose /64s are its separate networks; and a /48
//! corresponds roughly to a /24 of IPv4 addresses. `view::feature` counts at each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It can belong to any host on the internet.
    Public,
    /// It is reserved for examples.
    Documentation,
    /// It means a different host in every network: private, loopback, link-local, of carriers, unspecified.
    Local,
    /// No login comes from it.
    Reserved,
}

/// The blocks of [`Class::Local`], as first and last address.
pub const LOCAL_V4: [(Ipv4Addr, u8); 7] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];
/// The blocks of [`Class::Local`], as network and prefix length.
pub const LOCAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::UNSPECIFIED, 127), // :: and ::1
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// The kind of an address.
pub fn class(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => embedded(ip).map_or_else(|| class_v6(ip), class_v4),
    }
}

/// The address whose place is looked up for `ip`, the same for all addresses of a household; none if it has no place.
pub fn placed(ip: IpAddr) -> Option<IpAddr> {
    let ip = household(ip);
    matches!(class(ip), Class::Public | Class::Documentation).then_some(ip)
}

/// The IPv4 address that an IPv6 address represents, or the address itself.
pub fn inner(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => embedded(v6).map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// The blocks of IPv6 addresses that represent IPv4 addresses: mapped, NAT64, 6to4.
const TRANSLATED: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// The part of an address that identifies the household: the IPv4 address, also if an IPv6 address represents one, or
/// the first address of the /64.
pub fn household(ip: IpAddr) -> IpAddr {
    match inner(ip) {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::MAX.checked_shr(household_bits(ip)).unwrap_or(0)))
        }
    }
}

/// How many leading bits of an IPv6 address identify a household: 64, or all 128 if the /64 is not one network: the
/// very first /64 (`::1`) and those of the local-use translation prefix (RFC 8215), whose last bits are an IPv4
/// address.
pub const fn household_bits(ip: Ipv6Addr) -> u32 {
    match ip.segments() {
        [0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => 128,
        _ => 64,
    }
}

/// The translation block that contains an address, as network and prefix length.
pub fn translation(ip: Ipv6Addr) -> Option<(Ipv6Addr, u8)> {
    let is_within = |(network, length): &(Ipv6Addr, u8)| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0;
    TRANSLATED.into_iter().find(is_within)
}

fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    // It is in the 32 bits after the prefix.
    let (_, length) = translation(ip)?;
    Some(Ipv4Addr::from_bits((ip.to_bits() >> (96 - length)) as u32))
}

fn class_v4(ip: Ipv4Addr) -> Class {
    let [a, b, c, _] = ip.octets();
    if LOCAL_V4.iter().any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0) {
        return Class::Local;
    }
    match (a, b, c) {
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Class::Documentation,
        // IETF protocol assignments, benchmarks, multicast, and permanently reserved blocks.
        (192, 0, 0) | (198, 18..=19, _) | (224.., _, _) => Class::Reserved,
        _ => Class::Public,
    }
}

fn class_v6(ip: Ipv6Addr) -> Class {
    if LOCAL_V6.iter().any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0) {
        return Class::Local;
    }
    match (ip.segments()[0], ip.segments()[1]) {
        (0x2001, 0xdb8) | (0x3fff, 0..=0xfff) => Class::Documentation,
        // Teredo, and everything that is not yet assigned as global unicast.
        (0x2001, 0) | (..=0x1fff | 0x4000.., _) => Class::Reserved,
        _ => Class::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_household_is_an_ipv4_address_or_the_64_of_an_ipv6_address() {
        for (ip, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:a:b:c:d", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("fd00:1:2:3::9", "fd00:1:2:3::"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("64:ff9b::cb00:7107", "203.0.113.7"),
            ("2002:cb00:7107:5::1", "203.0.113.7"),
            ("64:ff9b:1::cb00:7107", "64:ff9b:1::cb00:7107"),
            ("::1", "::1"),
        ] {
            assert_eq!(household(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{ip}");
        }
    }

    proptest! {
        #[test]
        fn two_addresses_of_a_64_are_of_one_household_and_of_two_are_not(
            network in 0x2000_0000_0000_0000_u64..0x4000_0000_0000_0000, low: u64, other: u64, bit in 0_u32..64,
        ) {
            prop_assume!(network >> 48 != 0x2002);
            let of = |high: u64, low: u64| household(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into());
            prop_assert_eq!(of(network, low), of(network, other));
            let elsewhere = network ^ 1 << bit;
            prop_assert!(elsewhere >> 48 == 0x2002 || of(network, low) != of(elsewhere, low));
        }
    }

    #[test]
    fn every_kind_of_address_is_what_it_is_on_purpose() {
        for (ip, kind, place) in [
            ("8.8.8.8", Class::Public, Some("8.8.8.8")),
            ("192.0.1.255", Class::Public, Some("192.0.1.255")),
            ("172.32.0.1", Class::Public, Some("172.32.0.1")),
            ("100.128.0.0", Class::Public, Some("100.128.0.0")),
            ("2606:4700::1", Class::Public, Some("2606:4700::")),
            ("2001:4860:4860::8888", Class::Public, Some("2001:4860:4860::")),
            ("::ffff:8.8.8.8", Class::Public, Some("8.8.8.8")),
            ("64:ff9b::808:808", Class::Public, Some("8.8.8.8")),
            ("2002:808:808::1", Class::Public, Some("8.8.8.8")),
            ("192.0.2.1", Class::Documentation, Some("192.0.2.1")),
            ("198.51.100.7", Class::Documentation, Some("198.51.100.7")),
            ("203.0.113.66", Class::Documentation, Some("203.0.113.66")),
            ("2001:db8::7", Class::Documentation, Some("2001:db8::")),
            ("3fff:fff::", Class::Documentation, Some("3fff:fff::")),
            ("0.0.0.0", Class::Local, None),
            ("10.255.0.1", Class::Local, None),
            ("172.31.255.255", Class::Local, None),
            ("192.168.1.1", Class::Local, None),
            ("100.64.0.1", Class::Local, None),
            ("127.0.0.1", Class::Local, None),
            ("169.254.169.254", Class::Local, None),
            ("::", Class::Local, None),
            ("::1", Class::Local, None),
            ("fd12:3456::1", Class::Local, None),
            ("fe80::1", Class::Local, None),
            ("64:ff9b:1::808:808", Class::Local, None),
            ("::ffff:10.0.0.1", Class::Local, None),
            ("2002:a00:1::1", Class::Local, None),
            ("192.0.0.8", Class::Reserved, None),
            ("198.18.0.1", Class::Reserved, None),
            ("224.0.0.1", Class::Reserved, None),
            ("255.255.255.255", Class::Reserved, None),
            ("2001::1", Class::Reserved, None),
            ("100::1", Class::Reserved, None),
            ("::2", Class::Reserved, None),
            ("ff02::1", Class::Reserved, None),
            ("4000::1", Class::Reserved, None),
        ] {
            let address: IpAddr = ip.parse().unwrap();
            assert_eq!(class(address), kind, "{ip}");
            assert_eq!(placed(address), place.map(|place| place.parse().unwrap()), "{ip}");
        }
    }
}
