//! The attackers of the publications. Each has the right password; they differ in what else they know
//! (Wiefling, Dürmuth, Lo Iacono: *What's in Score for Website Users*, FC 2021):
//!
//! - **naive**: nothing. An address anywhere in the world, and popular software.
//! - **VPN**: the country. An address of a VPN there, and popular software.
//! - **targeted**: the city and the machine as well. An address in the city, of one of the providers there, and the
//!   exact user agent that the victim's most used machine sends at that time. The victim's provider is not known, but
//!   a large one is likely to be the right one.
//!
//! None of them has the address or the cookie of the victim. The service sets a device cookie before the password
//! is entered, so an attacker's browser has one as well, a new one, unless cookies are refused, which attackers do as
//! often as users. An attacker who withholds the cookie on purpose is not among those published.

use super::client::{Appearance, Class, Client};
use super::person::Person;
use super::world::{Kind, Network, Spot, Town};
use crate::source::Author;
use crate::source::draw::Sequence;

/// Attempts without a cookie: the same share as for users, see [`super::person`].
const REFUSED: f64 = 0.03;
/// Popular software is equally often that of a computer and of a phone.
const COMPUTER: f64 = 0.5;

/// The properties of an attempt.
#[derive(Debug, Clone)]
pub(super) struct Attack {
    pub(super) spot: Spot,
    pub(super) appearance: Appearance,
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
        let appearance = match author {
            Author::Targeted => victim.appearance(at_ms),
            _ => common(at_ms, chance),
        };
        let is_named = !chance.happens(REFUSED);
        let device_id = is_named.then(|| format!("{:016x}", chance.bits()));
        Self { spot: spot.of_host(chance.bits()), appearance, device_id }
    }
}

/// From a rented server or a compromised machine in a home.
fn somewhere(chance: &mut Sequence) -> Spot {
    let town = Town::anywhere(chance);
    let kind = if chance.happens(0.5) { Kind::Hosting } else { Kind::Access };
    Spot::new(Network::of(kind, town.country, chance), town, chance.bits())
}

fn common(at_ms: i64, chance: &mut Sequence) -> Appearance {
    let class = if chance.happens(COMPUTER) { Class::Computer } else { Class::Phone };
    Client::new(class, 1, chance).latest().at(at_ms)
}
