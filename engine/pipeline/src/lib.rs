//! Page work on all logical processors.
