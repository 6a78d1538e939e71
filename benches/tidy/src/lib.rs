//! The house style as a test.
