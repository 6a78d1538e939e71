//! Live migration of a running guest at the speed of memory.
