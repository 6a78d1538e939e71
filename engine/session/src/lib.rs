//! Decides what a migration does next, without doing any of it.
