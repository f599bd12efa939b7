//! The rows that are kept in memory, as scores read them.

use foretell_domain::view::Merge;
use foretell_domain::view::client::Client;
use foretell_domain::view::feature::{Feature, FeatureCounts};
use foretell_domain::view::lead::Lead;
use foretell_domain::view::user::User;
use std::sync::Arc;

/// A row as scores read it.
#[derive(Debug, Clone)]
pub(in crate::rows) enum LiveRow {
    /// A merged row of the view `feature`.
    Feature(Arc<FeatureCounts>),
    /// A merged row of the view `lead`.
    Lead(Arc<Lead>),
    /// A row of the view `user`, if there is one.
    User(Option<Arc<User>>),
    /// A row of the view `client`, if there is one.
    Client(Option<Arc<Client>>),
}

/// An aggregate that scores read.
pub(in crate::rows) trait LiveAggregate: Sized {
    /// The state that is merged from all partials.
    type State: Merge;

    /// What scores read of it.
    fn of(merged: Self::State) -> Self;
    /// Keeps it.
    fn live(this: Arc<Self>) -> LiveRow;
    /// None if it is another row.
    fn row(live: LiveRow) -> Option<Arc<Self>>;
}

impl LiveAggregate for FeatureCounts {
    type State = Feature;

    fn of(merged: Feature) -> Self {
        Self::from(&merged)
    }

    fn live(this: Arc<Self>) -> LiveRow {
        LiveRow::Feature(this)
    }

    fn row(live: LiveRow) -> Option<Arc<Self>> {
        if let LiveRow::Feature(row) = live { Some(row) } else { None }
    }
}

impl LiveAggregate for Lead {
    type State = Self;

    fn of(merged: Self) -> Self {
        merged
    }

    fn live(this: Arc<Self>) -> LiveRow {
        LiveRow::Lead(this)
    }

    fn row(live: LiveRow) -> Option<Arc<Self>> {
        if let LiveRow::Lead(row) = live { Some(row) } else { None }
    }
}

/// The state of an owner row that scores read.
pub(in crate::rows) trait LiveOwner: Sized {
    /// Keeps a row, or that there is none.
    fn live(this: Option<Arc<Self>>) -> LiveRow;
    /// None if it is another row.
    fn row(live: LiveRow) -> Option<Option<Arc<Self>>>;
}

impl LiveOwner for User {
    fn live(this: Option<Arc<Self>>) -> LiveRow {
        LiveRow::User(this)
    }

    fn row(live: LiveRow) -> Option<Option<Arc<Self>>> {
        if let LiveRow::User(row) = live { Some(row) } else { None }
    }
}

impl LiveOwner for Client {
    fn live(this: Option<Arc<Self>>) -> LiveRow {
        LiveRow::Client(this)
    }

    fn row(live: LiveRow) -> Option<Option<Arc<Self>>> {
        if let LiveRow::Client(row) = live { Some(row) } else { None }
    }
}
