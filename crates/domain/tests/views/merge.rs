//! Partials of several partitions form one row: in any order, and as if one partition had folded everything.

use crate::build::*;
use foretell_domain::address::{RowKey, View};
use foretell_domain::view::feature::Feature;
use foretell_domain::view::lead::{Lead, LeadChange};
use foretell_domain::view::lookup::{Claim, Delta, Lookup};
use foretell_domain::view::user::LoginFold;
use foretell_domain::view::{Aggregate, AggregateView, Limits, Merge};
use foretell_events::login::Attempt;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn merged<T: Clone>(parts: &[T; 3], order: [usize; 3], merge: impl Fn(&mut T, &T)) -> [T; 2] {
    let [a, b, c] = order.map(|at| parts[at].clone());
    let (mut left, mut right) = (a.clone(), b.clone());
    merge(&mut left, &b);
    merge(&mut left, &c);
    merge(&mut right, &c);
    let mut outer = a;
    merge(&mut outer, &right);
    [left, outer]
}

/// Merging is commutative and associative.
pub fn agrees<T: Clone + PartialEq + std::fmt::Debug>(
    parts: &[T; 3],
    merge: impl Fn(&mut T, &T),
) -> Result<(), TestCaseError> {
    let [wanted, _] = merged(parts, [0, 1, 2], &merge);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for got in merged(parts, order, &merge) {
            prop_assert_eq!(&got, &wanted, "{:?}", order);
        }
    }
    Ok(())
}

type Try = (u8, u8, u8, bool, i64);

fn logins(tries: &[Try], partitions: u32) -> BTreeMap<RowKey, Feature> {
    let facts = tries.iter().map(|(user, address, browser, succeeded, minute)| {
        let mut attempt = Attempt::from_ip(format!("198.51.100.{address}").parse().unwrap());
        attempt.country = Some(["DE", "BR", "NO"][usize::from(*address % 3)].into());
        attempt.browser = Some(format!("B {browser}"));
        attempt.user_agent = Some(format!("agent {browser}"));
        (minute * 60_000, login(&format!("u{user}"), *succeeded, attempt))
    });
    let views = Views::new(LoginFold::default(), partitions).all(facts);
    let mut rows: BTreeMap<RowKey, Feature> = BTreeMap::new();
    for (key, _, row) in views.aggregates(View::Feature) {
        let Aggregate::Feature(partial) = row else { panic!("a feature row") };
        rows.entry(key).or_default().merge(&partial);
    }
    rows
}

fn feature(tries: &[Try]) -> Feature {
    logins(tries, 1).into_iter().find(|(key, _)| key.key.starts_with("t:all:")).map(|(_, row)| row).unwrap_or_default()
}

fn any_tries() -> impl Strategy<Value = Vec<Try>> {
    prop::collection::vec((0_u8..40, 0_u8..6, 0_u8..5, any::<bool>(), 0_i64..25), 0..120)
}

proptest! {
    #[test]
    fn features(a in any_tries(), b in any_tries(), c in any_tries()) {
        agrees(&[feature(&a), feature(&b), feature(&c)], Feature::merge)?;
    }

    #[test]
    fn logins_spread_over_partitions_count_as_in_one(tries in any_tries()) {
        prop_assert_eq!(logins(&tries, 8), logins(&tries, 1));
    }

    #[test]
    fn leads(counted in prop::collection::vec((0_usize..3, 0_u8..12, any::<bool>(), any::<bool>()), 0..60)) {
        let mut parts = [Lead::default(), Lead::default(), Lead::default()];
        for (part, bucket, missed, more) in counted {
            parts[part].apply(&vec![LeadChange { bucket, missed, sign: if more { 1 } else { -1 } }], &Limits::default());
        }
        agrees(&parts, Lead::merge)?;
    }

    #[test]
    fn lookups(claims in prop::collection::vec((0_usize..3, 0_u8..5, any::<bool>(), 0_i64..9), 0..30)) {
        let mut parts = [Lookup::default(), Lookup::default(), Lookup::default()];
        for (part, client, is_on, placed_at_ms) in claims {
            let claim = Claim { is_on, placed_at_ms };
            parts[part].apply(&Delta::Claim { client_id: format!("c{client}"), claim }, &Limits::default());
        }
        agrees(&parts, Lookup::merge)?;
    }
}
