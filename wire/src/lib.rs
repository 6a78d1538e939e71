//! Control messages and page frames as bytes.
