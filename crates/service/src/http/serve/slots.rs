//! Slots for connections: limited in total and per peer.
//!
//! If none is free, an idle connection is closed, so that silent peers make way for others: the oldest one that never
//! sent a request, or else the one whose idle time ends first. If the peer has used up its own share, it is one of this
//! peer's connections; if the total is used up, it is one of the peer that has most connections. So no peer can crowd
//! out others, and neither can several peers together. A new connection gets no slot only if all the connections in
//! question are busy.

use super::watch::Watch;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What connections are counted by: an IPv4 address, or an IPv6 network of 56 bits, which most providers assign to one
/// subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> HOST_BITS << HOST_BITS;
                Self(Ipv6Addr::from_bits(network).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Bits of an IPv6 address that a subscriber chooses.
const HOST_BITS: u32 = 128 - 56;

/// The other end of a connection.
pub trait HasPeer {
    /// The peer that it counts for; none if there is only one, as on a Unix socket.
    fn peer(&self) -> Option<Peer>;
}

impl HasPeer for SocketAddr {
    fn peer(&self) -> Option<Peer> {
        Some(self.ip().into())
    }
}

impl HasPeer for tokio::net::unix::SocketAddr {
    fn peer(&self) -> Option<Peer> {
        None
    }
}

/// Minimum number of entries that are removed together.
const FORGOTTEN_MIN: usize = 64;

/// The slots of a listener.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    max: usize,
    peer_max: usize,
    table: Mutex<SlotTable>,
}

#[derive(Debug, Default)]
struct SlotTable {
    connections: HashMap<u64, (Option<Peer>, Arc<Watch>)>,
    peers: HashMap<Peer, Group>,
    /// All peers together; used only for its list of new connections.
    all: Group,
    next: u64,
}

/// The connections of a peer.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    /// In the order of arrival, mixed with connections that have sent a request since or have ended.
    new: VecDeque<u64>,
}

/// The slot of a connection, released when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
}

impl ConnectionSlots {
    /// Slots with a total and a maximum per peer.
    pub(super) fn new(max: usize, peer_max: usize) -> Arc<Self> {
        Arc::new(Self { max, peer_max, table: Mutex::default() })
    }

    /// Gets a slot for a connection, if necessary by closing an idle one; none if all of these are busy.
    pub(super) fn admit(self: &Arc<Self>, peer: Option<Peer>, watch: &Arc<Watch>) -> Option<ConnectionSlot> {
        let mut table = self.table();
        let is_share_used = peer.is_some_and(|peer| table.count(peer) >= self.peer_max);
        if is_share_used || table.connections.len() >= self.max {
            let number = if is_share_used { table.first_idle(peer) } else { table.first_idle_of_all() }?;
            table.remove(number).inspect(|evicted| evicted.evict());
        }
        let number = table.insert(peer, watch.clone());
        drop(table);
        Some(ConnectionSlot { slots: self.clone(), number })
    }

    fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotTable {
    fn count(&self, peer: Peer) -> usize {
        self.peers.get(&peer).map_or(0, |group| group.count)
    }

    /// The idle connection to close when all slots are in use: one of the peer that has most connections, or of all
    /// peers if no peer has several or that peer's are all busy.
    fn first_idle_of_all(&mut self) -> Option<u64> {
        let largest = self.peers.iter().filter(|(_, group)| group.count > 1).max_by_key(|(_, group)| group.count);
        let largest = largest.map(|(peer, _)| *peer);
        largest.and_then(|peer| self.first_idle(Some(peer))).or_else(|| self.first_idle(None))
    }

    /// The idle connection to close, among those of this peer if one is given.
    fn first_idle(&mut self, of: Option<Peer>) -> Option<u64> {
        let group = of.map_or(Some(&mut self.all), |peer| self.peers.get_mut(&peer))?;
        while let Some(number) = group.new.pop_front() {
            if self.connections.get(&number).is_some_and(|(_, watch)| watch.is_new()) {
                return Some(number);
            }
        }
        // None is new. Idle connections rarely have to be compared, and their number is bounded.
        let all = self.connections.iter().filter(|(_, (peer, _))| of.is_none() || *peer == of);
        let idle = all.filter_map(|(number, (_, watch))| Some((watch.idle_until()?, *number)));
        idle.min().map(|(_, number): (Instant, u64)| number)
    }

    fn insert(&mut self, peer: Option<Peer>, watch: Arc<Watch>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.connections.insert(number, (peer, watch));
        let of_peer = peer.map(|peer| self.peers.entry(peer).or_default());
        for group in of_peer.into_iter().chain([&mut self.all]) {
            group.count += 1;
            group.new.push_back(number);
            // Most entries are no longer new. Each is checked a few times at most.
            if group.new.len() > 2 * group.count + FORGOTTEN_MIN {
                group.new.retain(|number| self.connections.get(number).is_some_and(|(_, watch)| watch.is_new()));
            }
        }
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Watch>> {
        let (peer, watch) = self.connections.remove(&number)?;
        self.all.count -= 1;
        if let Some((peer, group)) = peer.and_then(|peer| Some((peer, self.peers.get_mut(&peer)?))) {
            group.count -= 1;
            if group.count == 0 {
                self.peers.remove(&peer);
            }
        }
        Some(watch)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // Does nothing if the connection was evicted.
        self.slots.table().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::{CloseReason, ConnectionTimeouts, OpenRequest};
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    const TIMEOUTS: ConnectionTimeouts =
        ConnectionTimeouts { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    fn peer(text: &str) -> Option<Peer> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    /// A connection of a peer, if it gets a slot.
    fn enter(slots: &Arc<ConnectionSlots>, from: &str) -> Option<(Arc<Watch>, ConnectionSlot)> {
        let watch = Watch::new(TIMEOUTS);
        slots.admit(peer(from), &watch).map(|slot| (watch, slot))
    }

    fn busy(slots: &Arc<ConnectionSlots>, from: &str) -> Option<(OpenRequest, ConnectionSlot)> {
        enter(slots, from).map(|(watch, slot)| (watch.open(), slot))
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_make_room_and_the_one_whose_time_is_up_first_goes() {
        let slots = ConnectionSlots::new(3, 3);
        let used = enter(&slots, "192.0.2.1").unwrap();
        drop(used.0.open());
        let silent = enter(&slots, "192.0.2.2").unwrap();
        advance(Duration::from_secs(1)).await;
        let late = enter(&slots, "192.0.2.3").unwrap();
        let _newcomer = enter(&slots, "192.0.2.4").unwrap();
        assert_eq!(silent.0.close_reason().await, CloseReason::Evicted, "9 s were left, 10 and 75 of the others");
        let _another = enter(&slots, "192.0.2.5").unwrap();
        assert_eq!(late.0.close_reason().await, CloseReason::Evicted);
        drop((silent, late));
        assert_eq!(slots.table().connections.len(), 3, "the places of the evicted are not given back twice");
        assert!(used.0.idle_until().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_keep_their_places() {
        let slots = ConnectionSlots::new(2, 2);
        let first = busy(&slots, "192.0.2.1").unwrap();
        let _second = busy(&slots, "192.0.2.2").unwrap();
        assert!(enter(&slots, "192.0.2.3").is_none());
        drop(first);
        assert!(enter(&slots, "192.0.2.3").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_a_share_and_crowds_out_itself_alone() {
        let slots = ConnectionSlots::new(4, 2);
        let other = enter(&slots, "192.0.2.9").unwrap();
        advance(Duration::from_secs(5)).await;
        let (first, _second) = (enter(&slots, "192.0.2.1").unwrap(), enter(&slots, "192.0.2.1").unwrap());
        let _third = enter(&slots, "192.0.2.1").unwrap();
        assert_eq!(first.0.close_reason().await, CloseReason::Evicted, "although another peer's time is up before");
        assert!(other.0.idle_until().is_some());
        let _busy: Vec<_> = (0..2).map(|_| busy(&slots, "192.0.2.1").unwrap()).collect();
        assert!(enter(&slots, "192.0.2.1").is_none(), "its share is busy");
        assert!(enter(&slots, "192.0.2.2").is_some(), "there is room for others");
        drop(_busy);
        drop((first, _second, _third, other));
        assert!(slots.table().peers.is_empty(), "{:?}", slots.table().peers);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_connections_that_are_gone_is_bounded() {
        let slots = ConnectionSlots::new(10, 10);
        let busy = busy(&slots, "192.0.2.1").unwrap();
        for _ in 0..10_000 {
            drop(enter(&slots, "192.0.2.1"));
        }
        let table = slots.table();
        assert!(table.all.new.len() < 100 && table.peers.values().all(|group| group.new.len() < 100));
        assert_eq!(table.all.count, 1);
        drop(table);
        drop(busy);
        assert_eq!(slots.table().peers.len(), 0);
    }

    /// Which connection is closed when all slots are in use: connections as (peer, state), in the order of arrival, and
    /// the index of the one that is closed.
    #[tokio::test(start_paused = true)]
    async fn a_full_table_makes_room_within_the_peer_that_has_most_places() {
        const NEW: u8 = 0;
        const IDLE: u8 = 1;
        const BUSY: u8 = 2;
        for (connections, closed) in [
            (&[("::1", IDLE), ("::1", IDLE), ("192.0.2.9", NEW)][..], Some(0)),
            (&[("192.0.2.9", NEW), ("::1", IDLE), ("::1", IDLE)], Some(1)),
            (&[("192.0.2.9", NEW), ("::1", IDLE), ("::1", NEW)], Some(2)),
            (&[("192.0.2.9", NEW), ("::1", BUSY), ("::1", IDLE)], Some(2)),
            (&[("192.0.2.9", NEW), ("::1", BUSY), ("::1", BUSY)], Some(0)),
            (&[("192.0.2.9", IDLE), ("::1", BUSY), ("::1", BUSY)], Some(0)),
            (&[("192.0.2.9", BUSY), ("::1", BUSY), ("::1", BUSY)], None),
            // No peer has several connections: one that never sent a request is closed.
            (&[("192.0.2.7", IDLE), ("192.0.2.8", NEW), ("192.0.2.9", NEW)], Some(1)),
            (&[("192.0.2.7", IDLE), ("192.0.2.8", IDLE), ("192.0.2.9", BUSY)], Some(0)),
        ] {
            let slots = ConnectionSlots::new(connections.len(), connections.len());
            let mut held = Vec::new();
            for (from, state) in connections {
                let (watch, slot) = enter(&slots, from).unwrap();
                let open = (*state != NEW).then(|| watch.open());
                held.push((slot, open.filter(|_| *state == BUSY)));
                advance(Duration::from_millis(1)).await;
            }
            let newcomer = enter(&slots, "198.51.100.1");
            let table = slots.table();
            let left = |number: usize| table.connections.contains_key(&(number as u64));
            let gone: Vec<_> = (0..held.len()).filter(|number| !left(*number)).collect();
            assert_eq!(gone, closed.into_iter().collect::<Vec<_>>(), "{connections:?}");
            drop(table);
            assert_eq!(newcomer.is_some(), closed.is_some(), "{connections:?}");
        }
    }

    #[test]
    fn peers_are_addresses_and_networks_of_56_bits() {
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("2001:db8:1:2:3::4"), peer("2001:db8:1:2:ffff::"));
        assert_eq!(peer("2001:db8:1:200::"), peer("2001:db8:1:2ff::"));
        assert_ne!(peer("2001:db8:1:200::"), peer("2001:db8:1:300::"));
    }
}
