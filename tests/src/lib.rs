//! End-to-end tests of `gapless` and its simulator; they are in `tests/tests/`.
