//! The one checksum of the protocol. It finds damage, not malice.

/// The CRC-32 of `bytes` (the polynomial of IEEE 802.3, as in zlib), which every checksum field of
/// the protocol holds. That of no bytes is 0.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
