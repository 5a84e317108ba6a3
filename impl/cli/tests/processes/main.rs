//! Server and clients as processes on loopback, while they are killed and stopped, their connections
//! are cut and fall silent, and the disk of the server is full. What publishers, `tail` and the log say
//! becomes a history of the simulator, and its checkers judge it: every acknowledged event is there once,
//! in order and under its number, and no other more than once.
//!
//! A run takes some 30 s. `GAPLESS_PROCESSES_SECONDS=600` makes it longer, and from 120 s on stops and
//! silences are also longer than the time-outs of both sides. `GAPLESS_PROCESSES_SEED` repeats the
//! faults of a run, in their order; what the operating system makes of them differs.

mod campaign;
mod disk;
mod judge;
mod nodes;
mod relay;
