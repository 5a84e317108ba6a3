//! What the previous release left behind, and what it says: see `README.md` beside.
//!
//! Its databases open and lose nothing, and each side of each protocol goes on with a peer of it. What
//! is not here: the old programs themselves, whose words are played from tapes. Those are in the tests of
//! the command (`mixed`).
#![cfg(all(feature = "net", feature = "rsa", feature = "sqlite"))]

mod databases;
mod events;
mod frames;
mod play;
mod session;
mod support;
mod tasks;
