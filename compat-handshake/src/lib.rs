//! Can this guest live on that host?.
