//! Worlds to run migrations in. None of them is part of what moves a guest.

pub mod sim;
