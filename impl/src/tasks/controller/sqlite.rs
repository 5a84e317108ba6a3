//! The record of a controller on SQLite.
