//! The programs that run inside the guest, and how to talk to them.
