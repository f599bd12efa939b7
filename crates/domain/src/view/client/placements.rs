//! The starts that a visit had, in order: which events moved it, for any order of arrival.
//!
//! A repeated start is no move, also if the events arrive out of order: an event counts as a move only if the start
//! before it in time is different.

use serde::{Deserialize, Serialize};

/// Starts of a visit that are remembered; the earliest is forgotten first. Events older than all of them do not count
/// as moves.
pub(crate) const PLACEMENTS_MAX: usize = 8;

/// A start that a visit had for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Time of the earliest known event that states it.
    pub at_ms: i64,
    /// The start.
    pub start_ms: i64,
    /// Whether that event is a reschedule, and not a booking.
    pub is_move: bool,
}

/// The latest [`PLACEMENTS_MAX`] starts of a visit, ascending by time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placements(Vec<Placement>);

impl Placements {
    /// The latest one.
    pub(super) fn present(&self) -> Option<Placement> {
        self.0.last().copied()
    }

    /// Whether it had more than one start.
    pub(super) fn is_moved(&self) -> bool {
        self.0.len() > 1
    }

    /// Records that an event states a start; the present start was last stated at `restated_at_ms`. Returns by how much
    /// the number of moves changes.
    pub(super) fn state(&mut self, stated: Placement, restated_at_ms: i64) -> i32 {
        let known = &mut self.0;
        let at = known.partition_point(|placement| placement.at_ms <= stated.at_ms);
        let before = known[..at].last_mut();
        if before.as_ref().is_some_and(|before| before.start_ms == stated.start_ms) {
            return 0;
        }
        // Of two events at the same time, the one that is folded later determines the start, and both are one move.
        if let Some(same) = before.filter(|before| before.at_ms == stated.at_ms) {
            let is_first = stated.is_move && !same.is_move;
            (same.start_ms, same.is_move) = (stated.start_ms, same.is_move || stated.is_move);
            return i32::from(is_first);
        }
        if at == 0 && known.len() >= PLACEMENTS_MAX {
            return 0;
        }
        if let Some(after) = known.get_mut(at).filter(|after| after.start_ms == stated.start_ms) {
            let moves = i32::from(stated.is_move) - i32::from(after.is_move);
            *after = stated;
            return moves;
        }
        let present = known.last().copied().filter(|_| at == known.len() && stated.at_ms < restated_at_ms);
        known.insert(at, stated);
        // The present start was stated again since, so the visit came back to it.
        known.extend(present.map(|present| Placement { at_ms: restated_at_ms, is_move: false, ..present }));
        known.drain(..known.len().saturating_sub(PLACEMENTS_MAX));
        i32::from(stated.is_move)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves after events in this order: time, start, whether it is a reschedule.
    fn moves(events: &[(i64, i64, bool)]) -> i32 {
        let (mut placements, mut restated_at_ms) = (Placements::default(), i64::MIN);
        let mut moves = 0;
        for (at_ms, start_ms, is_move) in events.iter().copied() {
            moves += placements.state(Placement { at_ms, start_ms, is_move }, restated_at_ms);
            restated_at_ms = restated_at_ms.max(at_ms);
        }
        moves
    }

    #[test]
    fn a_move_is_an_event_whose_start_differs_from_the_one_before_it_in_time() {
        let (booked, moved) = (false, true);
        for (name, events, wanted) in [
            ("moved twice", vec![(1, 10, booked), (3, 20, moved), (7, 30, moved)], 2),
            ("a late restatement of a move", vec![(1, 10, booked), (3, 20, moved), (7, 30, moved), (5, 20, moved)], 2),
            ("an earlier event of the same move", vec![(1, 10, booked), (5, 20, moved), (3, 20, moved)], 1),
            ("the reschedule makes the visit known", vec![(2, 10, moved)], 1),
            ("its booking follows", vec![(2, 10, moved), (1, 10, booked)], 0),
            ("its booking follows, to another start", vec![(2, 20, moved), (1, 10, booked)], 1),
            ("there and back", vec![(1, 10, booked), (2, 20, moved), (3, 10, moved)], 2),
            (
                "a late move while the present start was restated",
                vec![(1, 10, booked), (9, 10, booked), (5, 20, moved)],
                1,
            ),
            (
                "moved there again after that",
                vec![(1, 10, booked), (9, 10, booked), (5, 20, moved), (11, 20, moved)],
                2,
            ),
            ("two at one time are one move", vec![(1, 10, booked), (3, 20, moved), (3, 10, moved)], 1),
            ("a booking to another start is no reschedule", vec![(1, 10, booked), (3, 20, booked)], 0),
        ] {
            assert_eq!(moves(&events), wanted, "{name}");
            let again: Vec<_> = events.iter().chain(&events).copied().collect();
            assert_eq!(moves(&again), wanted, "{name}, and all of it again");
        }
    }

    #[test]
    fn of_more_starts_than_are_remembered_the_earliest_count_no_more() {
        let events: Vec<_> = (0..20).map(|n| (n, n % 3, true)).collect();
        let mut placements = Placements::default();
        for (at_ms, start_ms, is_move) in events.iter().copied() {
            placements.state(Placement { at_ms, start_ms, is_move }, at_ms - 1);
        }
        assert_eq!(placements.0.len(), PLACEMENTS_MAX);
        for (at_ms, start_ms, is_move) in events {
            assert_eq!(placements.state(Placement { at_ms, start_ms, is_move }, 19), 0, "{at_ms}");
        }
    }
}
