//! Reports as functions of records and rows.

pub mod no_show;
