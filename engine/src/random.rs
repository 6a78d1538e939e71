//! Random bytes of the kernel, for names and secrets.

use crate::error::Cause;

/// Fresh ones.
pub(crate) fn bytes() -> Result<[u8; 16], Cause> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Cause::Host(format!("the kernel gives no random bytes: {error}")))?;
    Ok(bytes)
}
