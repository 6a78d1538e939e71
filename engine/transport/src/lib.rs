//! Moves frames between hosts.
