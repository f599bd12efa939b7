//! The states of the rows of each view, generated from the table in `view.rs`.
//!
//! [`Delta`](super::Delta) and [`Aggregate`] have one variant per state of aggregate rows. They are enums because the
//! hot path of a fold applies one to the other: there is no dynamic call and, except for large states, no allocation.

use super::cell::{self, Corrupt};
use super::{Aggregate, AggregateView, Fold, Limits};
use crate::address::RowKey;
use serde::{Serialize, de::DeserializeOwned};

/// A contribution names a row that it cannot change: a bug of its fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The row is an owner row.
    #[error("{view} is a view of owner rows, which contributions cannot change")]
    Owned {
        /// Name of the view.
        view: &'static str,
    },
    /// The change is for another state than that of the row.
    #[error("the state {state} cannot apply a change for {delta}")]
    Delta {
        /// Name of the state.
        state: &'static str,
        /// Name of the state that the change is for.
        delta: &'static str,
    },
}

/// An operation on a row that is generic over its state. See [`with_state`](super::with_state).
pub trait StateVisitor {
    /// Its result.
    type Output;

    /// Runs for an owner row of the fold `F`.
    fn owner<F: Fold>(self) -> Self::Output;

    /// Runs for an aggregate row with the state `A`.
    fn aggregate<A: AggregateView + Into<Aggregate>>(self) -> Self::Output;
}

/// Makes the state of a row before its first change.
pub(super) struct Empty<'a>(pub(super) &'a RowKey);

impl StateVisitor for Empty<'_> {
    type Output = Result<Aggregate, Mismatch>;

    fn owner<F: Fold>(self) -> Self::Output {
        Err(Mismatch::Owned { view: self.0.view.name() })
    }

    fn aggregate<A: AggregateView + Into<Aggregate>>(self) -> Self::Output {
        Ok(A::default().into())
    }
}

/// Reads the state of an aggregate row.
pub(super) struct Decode<'a>(pub(super) &'a RowKey, pub(super) &'a [u8]);

impl StateVisitor for Decode<'_> {
    type Output = Result<Aggregate, Corrupt>;

    fn owner<F: Fold>(self) -> Self::Output {
        Err(Corrupt::new(Mismatch::Owned { view: self.0.view.name() }))
    }

    fn aggregate<A: AggregateView + Into<Aggregate>>(self) -> Self::Output {
        cell::decode_state::<A>(self.1).map(Into::into)
    }
}

/// Reads the state of any row, as JSON.
struct Print<'a>(&'a [u8]);

impl Print<'_> {
    fn json<S: Serialize + DeserializeOwned>(self) -> Result<serde_json::Value, Corrupt> {
        serde_json::to_value(cell::decode_state::<S>(self.0)?).map_err(Corrupt::new)
    }
}

impl StateVisitor for Print<'_> {
    type Output = Result<serde_json::Value, Corrupt>;

    fn owner<F: Fold>(self) -> Self::Output {
        self.json::<F::Owner>()
    }

    fn aggregate<A: AggregateView + Into<Aggregate>>(self) -> Self::Output {
        self.json::<A>()
    }
}

/// The state of the row at `key` as JSON, from its bytes: what `inspect` prints.
pub fn print(key: &RowKey, bytes: &[u8]) -> Result<serde_json::Value, Corrupt> {
    super::with_state(key, Print(bytes))
}

impl<T: AggregateView> AggregateView for Box<T> {
    type Delta = T::Delta;

    fn apply(&mut self, delta: &T::Delta, limits: &Limits) {
        T::apply(self, delta, limits);
    }
}

/// Generates what depends on the state of a view.
macro_rules! generate {
    (
        families {$(
            $(#[$family_doc:meta])*
            $family:ident = $family_tag:literal, led by $lead:ident;
        )+}
        views {$(
            $(#[$doc:meta])*
            $view:ident = $tag:literal $name:literal of $of:ident, by $found:ident,
                $(owner { $fold:ty })?
                $(aggregate { $state:ty })?
                $(as { $same:ident: $same_state:ty, in buckets $bucket:ident: $other:ty })?;
        )+}
    ) => {
        /// A change of an aggregate row. The order is part of stored rows.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Delta {$(
            $(
                #[doc = concat!("Of a row of [`View::", stringify!($view), "`].")]
                $view(<$state as AggregateView>::Delta),
            )?
            $(
                #[doc = concat!("Of a row of [`View::", stringify!($view), "`], in [`Bucket::", stringify!($bucket), "`].")]
                $bucket(<$other as AggregateView>::Delta),
            )?
        )+}

        impl Delta {
            /// The state that it is for.
            const fn name(&self) -> &'static str {
                match self {$(
                    $(Self::$view(_) => stringify!($state),)?
                    $(Self::$bucket(_) => stringify!($other),)?
                )+}
            }
        }

        /// The state of an aggregate row.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Aggregate {$(
            $(
                #[doc = concat!("Of [`View::", stringify!($view), "`].")]
                $view($state),
            )?
            $(
                #[doc = concat!("Of [`View::", stringify!($view), "`], in [`Bucket::", stringify!($bucket), "`].")]
                $bucket($other),
            )?
        )+}

        $(
            $(impl From<$state> for Aggregate {
                fn from(state: $state) -> Self {
                    Self::$view(state)
                }
            })?
            $(impl From<$other> for Aggregate {
                fn from(state: $other) -> Self {
                    Self::$bucket(state)
                }
            })?
        )+

        impl Aggregate {
            /// Applies a change. Fails without an effect if the change is for another state.
            pub fn apply(&mut self, delta: &Delta, limits: &Limits) -> Result<(), Mismatch> {
                match (self, delta) {
                    $(
                        $((Self::$view(state), Delta::$view(delta)) => <$state>::apply(state, delta, limits),)?
                        $((Self::$bucket(state), Delta::$bucket(delta)) => <$other>::apply(state, delta, limits),)?
                    )+
                    (state, delta) => return Err(Mismatch::Delta { state: state.name(), delta: delta.name() }),
                }
                Ok(())
            }

            /// Replaces what is in `to` with the canonical bytes.
            pub fn write(&self, to: &mut Vec<u8>) {
                match self {$(
                    $(Self::$view(state) => cell::write::<$state>(to, state),)?
                    $(Self::$bucket(state) => cell::write::<$other>(to, state),)?
                )+}
            }

            const fn name(&self) -> &'static str {
                match self {$(
                    $(Self::$view(_) => stringify!($state),)?
                    $(Self::$bucket(_) => stringify!($other),)?
                )+}
            }
        }

        /// Runs an operation on the state of the row at `key`: the only match over the states of views.
        pub fn with_state<V: StateVisitor>(key: &RowKey, visitor: V) -> V::Output {
            match key.view {$(
                $(View::$view => visitor.owner::<$fold>(),)?
                $(View::$view => visitor.aggregate::<$state>(),)?
                $(View::$view => match Bucket::unpack(key.bucket) {
                    Bucket::$bucket { .. } => visitor.aggregate::<$other>(),
                    Bucket::Starts { .. } | Bucket::Requests { .. } => visitor.aggregate::<$same_state>(),
                },)?
            )+}
        }

        impl Family {
            /// The view of the owner rows.
            pub const fn owner(self) -> View {
                match self {
                    $($(Self::$of => <$fold as Fold>::OWNER,)?)+
                }
            }

            /// Runs an operation on the fold of a family: the only match over folds.
            pub fn with_fold<V: FoldVisitor>(self, limits: Limits, visitor: V) -> V::Output {
                match self {
                    $($(Self::$of => {
                        type This = $fold;
                        visitor.visit(This { limits })
                    })?)+
                }
            }
        }

        $($(
            const _: () = assert!(
                <$fold as Fold>::FAMILY.tag() == Family::$of.tag() && <$fold as Fold>::OWNER.tag() == View::$view.tag(),
                "a fold names another family or owner view than its row of the table"
            );
        )?)+
    };
}

pub(super) use generate;
