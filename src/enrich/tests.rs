//! Files as they come and go, written by the tests themselves.
