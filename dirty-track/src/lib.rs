//! The kernel's view of writes to guest memory.
