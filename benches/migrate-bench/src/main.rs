//! Migrates real guests and reports what it measured.

fn main() {}
