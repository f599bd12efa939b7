//! The attackers of the publications. Each has the right password; what they differ in is what they know besides
//! (Wiefling, Dürmuth, Lo Iacono: *What's in Score for Website Users*, FC 2021):
//!
//! - **naive**: nothing. Some address somewhere in the world, and software that many have.
//! - **VPN**: also the country. An address of a private network there, and software that many have.
//! - **targeted**: also city and machine. An address in the city, of one of the providers that people there have, and
//!   the very string that the victim's most used machine sends at that time. Whose provider it is, is not known, but
//!   a large one is likely the right one.
//!
//! None of them has the address or the cookie of the victim. The service names every browser before it asks for a
//! password, so an attacker's browser has a name as well, a new one, unless cookies are refused, which attackers do as
//! often as others. Who withholds a cookie knowing what follows from it is another attacker than those published.

use super::client::{Class, Client, Looks};
use super::person::Person;
use super::world::{Kind, Network, Spot, Town};
use crate::source::Author;
use crate::source::draw::Sequence;

/// Attempts without a cookie: as many as those of people, see [`super::person`].
const REFUSED: f64 = 0.03;
/// Software that many have is that of a computer as often as that of a phone.
const COMPUTER: f64 = 0.5;

/// What an attempt looks like.
#[derive(Debug, Clone)]
pub(super) struct Attack {
    pub(super) spot: Spot,
    pub(super) looks: Looks,
    pub(super) device_id: Option<String>,
}

impl Attack {
    /// An attempt of `author` on the account of `victim`.
    pub(super) fn new(author: Author, victim: &Person, at_ms: i64, chance: &mut Sequence) -> Self {
        let town = victim.town();
        let spot = match author {
            Author::Targeted => Spot::new(Network::of(Kind::Access, town.country, chance), town, chance.bits()),
            Author::Vpn => Spot::new(Network::of(Kind::Hosting, town.country, chance), town, chance.bits()),
            Author::Naive | Author::Legitimate => somewhere(chance),
        };
        let looks = match author {
            Author::Targeted => victim.looks(at_ms),
            _ => common(at_ms, chance),
        };
        let is_named = !chance.happens(REFUSED);
        let device_id = is_named.then(|| format!("{:016x}", chance.bits()));
        Self { spot: spot.of_host(chance.bits()), looks, device_id }
    }
}

/// From a rented server or a broken machine in somebody's home.
fn somewhere(chance: &mut Sequence) -> Spot {
    let town = Town::anywhere(chance);
    let kind = if chance.happens(0.5) { Kind::Hosting } else { Kind::Access };
    Spot::new(Network::of(kind, town.country, chance), town, chance.bits())
}

fn common(at_ms: i64, chance: &mut Sequence) -> Looks {
    let class = if chance.happens(COMPUTER) { Class::Computer } else { Class::Phone };
    Client::new(class, 1, chance).latest().at(at_ms)
}
