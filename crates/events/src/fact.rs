//! Facts: what an event states, one enum per topic.
//!
//! Every topic that takes facts has its own enum, such as [`LoginFact`](crate::login::LoginFact). So the fold of a
//! topic matches its own facts only, and the compiler names every fold that does not handle a new one. Each enum is
//! declared by [`event_types!`], with one row per event type. The row is the only place that lists the type: its name,
//! its topic, its schema, its reader and its writer follow from it. [`Fact`] follows from the table of topics.

use crate::Topic;
use crate::codec::Fields;
use serde_json::{Map, Value};

/// What an event type is for. The permission that a caller needs to append an event follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reports what happened.
    Report,
    /// States whether a login was legitimate.
    Label,
    /// Requests a message to a client.
    Remind,
    /// Erases everything about its subject.
    Erase,
}

/// The data of an event type, as a struct: `Login` for `foretell.login.succeeded`, for example.
pub(crate) trait Data: Sized {
    /// Reads it, and reports what is wrong in `fields`. The fields of a faulty event have any value that fits.
    fn read(fields: &mut Fields<'_, '_>) -> Self;

    /// The data as it is written; [`Data::read`] of it gives the same struct.
    fn write(&self) -> Map<String, Value>;

    /// The user, client or policy that it is about. The record's key has it, and so it decides on the partition.
    fn subject(&self) -> &str;

    /// The country of a login, if the data has one. Structs that have this field override the method; a test compares
    /// it with the schemas, and the two methods below as well.
    fn country(&self) -> Option<&str> {
        None
    }

    /// See [`Fact::idempotency_digest`].
    fn idempotency_digest(&self) -> Option<&str> {
        None
    }

    /// See [`Fact::set_idempotency_digest`].
    fn set_idempotency_digest(&mut self, _digest: &str) {}
}

impl<D: Data> Data for Box<D> {
    fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self::new(D::read(fields))
    }

    fn write(&self) -> Map<String, Value> {
        D::write(self)
    }

    fn subject(&self) -> &str {
        D::subject(self)
    }

    fn country(&self) -> Option<&str> {
        D::country(self)
    }

    fn idempotency_digest(&self) -> Option<&str> {
        D::idempotency_digest(self)
    }

    fn set_idempotency_digest(&mut self, digest: &str) {
        D::set_idempotency_digest(self, digest);
    }
}

/// Declares the facts of a topic: an enum with one variant per event type, and everything that follows from the type's
/// name.
///
/// ```text
/// event_types! {
///     /// What the enum is about.
///     pub enum LoginFact in Topic::Logins as Fact::Login {
///         /// What the event states.
///         Confirmed(Box<Verdict>) = "foretell.login.confirmed" to Label,
///         /// Two types that differ in one flag of their data share a variant.
///         Attempted(Box<Login>) = "foretell.login.succeeded" if succeeded else "foretell.login.failed" to Report,
///     }
/// }
/// ```
///
/// The data in the parentheses implements [`Data`]. The word after `to` is the [`Purpose`]. The schema is
/// `catalog/schemas/NAME.schema.json`; without that file the row does not compile.
macro_rules! event_types {
    (
        $(#[$about:meta])*
        pub enum $facts:ident in $topic:path as $family:path {
            $(
                $(#[$states:meta])*
                $variant:ident($data:ty) = $name:literal $(if $flag:ident else $other:literal)? to $purpose:ident,
            )+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $facts {
            $( $(#[$states])* $variant($data), )+
        }

        impl $facts {
            /// The topic of these facts.
            pub(crate) const TOPIC: $crate::Topic = $topic;

            /// Their event types, as in the catalog.
            pub(crate) const TYPES: &[$crate::catalog::Type] = &[
                $(
                    $crate::fact::event_type!($topic, $name),
                    $( $crate::fact::event_type!($topic, $other), )?
                )+
            ];

            /// The CloudEvents `type`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(
                        $( Self::$variant(data) if !data.$flag => $other, )?
                        Self::$variant(_) => $name,
                    )+
                }
            }

            pub(crate) fn purpose(&self) -> $crate::fact::Purpose {
                match self {
                    $( Self::$variant(_) => $crate::fact::Purpose::$purpose, )+
                }
            }

            /// Reads the data of an event type; `None` if it is a type of another topic, or unknown.
            pub(crate) fn read(type_name: &str, fields: &mut $crate::codec::Fields<'_, '_>) -> Option<Self> {
                match type_name {
                    $(
                        $name => Some(Self::$variant($crate::fact::Data::read(fields))),
                        $( $other => {
                            let mut data: $data = $crate::fact::Data::read(fields);
                            data.$flag = false;
                            Some(Self::$variant(data))
                        } )?
                    )+
                    _ => None,
                }
            }

            /// The data, whatever its type.
            pub(crate) fn write(&self) -> serde_json::Map<String, serde_json::Value> {
                match self {
                    $( Self::$variant(data) => $crate::fact::Data::write(data), )+
                }
            }

            /// See [`Fact::subject`](crate::Fact::subject).
            pub fn subject(&self) -> &str {
                match self {
                    $( Self::$variant(data) => $crate::fact::Data::subject(data), )+
                }
            }

            pub(crate) fn country(&self) -> Option<&str> {
                match self {
                    $( Self::$variant(data) => $crate::fact::Data::country(data), )+
                }
            }

            pub(crate) fn idempotency_digest(&self) -> Option<&str> {
                match self {
                    $( Self::$variant(data) => $crate::fact::Data::idempotency_digest(data), )+
                }
            }

            pub(crate) fn set_idempotency_digest(&mut self, digest: &str) {
                match self {
                    $( Self::$variant(data) => $crate::fact::Data::set_idempotency_digest(data, digest), )+
                }
            }
        }

        impl From<$facts> for $crate::Fact {
            fn from(fact: $facts) -> Self {
                $family(fact)
            }
        }
    };
}

/// The catalog entry of an event type: its schema is the file of its name.
macro_rules! event_type {
    ($topic:path, $name:literal) => {
        $crate::catalog::Type {
            name: $name,
            topic: $topic,
            schema: include_str!(concat!("../../../catalog/schemas/", $name, ".schema.json")),
        }
    };
}

pub(crate) use {event_type, event_types};

/// Generates the facts of all topics from the table of topics.
macro_rules! facts {
    ($(
        $(#[$doc:meta])*
        $topic:ident = $name:literal kept $kept:ident $(, $property:ident)* $(with $family:ident($facts:ty))?;
    )+) => {
        /// What an event states.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Fact {$($(
            #[doc = concat!("A fact of the topic `", $name, "`.")]
            $family($facts),
        )?)+}

        $($(const _: () = assert!(
            <$facts>::TOPIC as u8 == Topic::$topic as u8,
            "facts are declared for another topic than in the table of topics"
        );)?)+

        impl Fact {
            /// The event types of all topics.
            pub(crate) fn types() -> impl Iterator<Item = &'static crate::catalog::Type> {
                [$($(<$facts>::TYPES,)?)+].into_iter().flatten()
            }

            /// Reads the data of an event type; `None` if the type is unknown.
            pub(crate) fn read(type_name: &str, fields: &mut Fields<'_, '_>) -> Option<Self> {
                $($(if let Some(fact) = <$facts>::read(type_name, fields) {
                    return Some(fact.into());
                })?)+
                None
            }

            /// The data as it is written; reading it again gives the same fact.
            pub fn data(&self) -> Map<String, Value> {
                match self {$($(Self::$family(fact) => fact.write(),)?)+}
            }

            /// The CloudEvents `type`.
            pub fn type_name(&self) -> &'static str {
                match self {$($(Self::$family(fact) => fact.type_name(),)?)+}
            }

            /// The topic that events of this type belong to.
            pub fn topic(&self) -> Topic {
                match self {$($(Self::$family(_) => Topic::$topic,)?)+}
            }

            /// The user, client or policy that the fact is about.
            pub fn subject(&self) -> &str {
                match self {$($(Self::$family(fact) => fact.subject(),)?)+}
            }

            /// What events of this type are for.
            pub fn purpose(&self) -> Purpose {
                match self {$($(Self::$family(fact) => fact.purpose(),)?)+}
            }

            /// The country of the login that the fact is about, if the event has it.
            pub fn country(&self) -> Option<&str> {
                match self {$($(Self::$family(fact) => fact.country(),)?)+}
            }

            /// The digest of the request that the fact was appended for, if the request had an idempotency key.
            pub fn idempotency_digest(&self) -> Option<&str> {
                match self {$($(Self::$family(fact) => fact.idempotency_digest(),)?)+}
            }

            /// Sets the digest of the request that the fact is appended for. Facts without such a field stay as they
            /// are.
            pub fn set_idempotency_digest(&mut self, digest: &str) {
                match self {$($(Self::$family(fact) => fact.set_idempotency_digest(digest),)?)+}
            }
        }
    };
}

crate::topic::table!(facts);
