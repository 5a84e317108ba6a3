//! The store of an agent on SQLite.
