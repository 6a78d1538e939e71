//! Worlds to run migrations in.
