//! What bare sockets can be told, and what serves them best.

use serde::{Deserialize, Serialize};

use crate::args::Transport;

/// How bare sockets carry bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketSettings {
    /// Congestion control of TCP; none for the system's. Set before the connection is made: what
    /// paces goes on pacing otherwise.
    pub(crate) congestion: Option<String>,
    /// `SO_SNDBUF`; none for the system's own sizing.
    pub(crate) send_buffer_bytes: Option<usize>,
    /// `SO_RCVBUF`; none for the system's own sizing.
    pub(crate) receive_buffer_bytes: Option<usize>,
    /// What one call moves at most.
    pub(crate) call_bytes: usize,
    /// How bytes leave memory.
    pub(crate) sending: Sending,
    /// How fresh memory is met.
    pub(crate) landing: Landing,
}

/// How bytes get from memory into a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sending {
    /// `send` copies them.
    Copied,
    /// Their pages go by reference, through a pipe (vmsplice).
    Spliced,
}

/// What becomes of memory that is not populated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Landing {
    /// The receiving call populates it.
    Faults,
    /// It is populated in 2 MiB units, each just before the call that receives into it.
    UnitsAhead,
}

impl SocketSettings {
    /// The best of those that copy, as a search found it: `migrate-bench sockets`.
    pub(crate) fn best(transport: Transport) -> Self {
        let best = Self {
            congestion: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            call_bytes: 1 << 20,
            sending: Sending::Copied,
            landing: Landing::Faults,
        };
        match transport {
            Transport::Tcp => Self {
                congestion: congestion_controls()
                    .into_iter()
                    .find(|name| name == "cubic"),
                receive_buffer_bytes: Some(4 << 20),
                ..best
            },
            Transport::Unix => best,
        }
    }

    /// The same by reference: what the kernel can do at most.
    pub(crate) fn spliced(self) -> Self {
        Self {
            sending: Sending::Spliced,
            ..self
        }
    }

    /// In one line, for people.
    pub(crate) fn words(&self) -> String {
        let size = |bytes: Option<usize>| match bytes {
            Some(bytes) => crate::units::show_bytes(bytes as u64),
            None => "the system's".into(),
        };
        format!(
            "congestion control {}, send buffer {}, receive buffer {}, {} a call, {}, {}",
            self.congestion.as_deref().unwrap_or("the system's"),
            size(self.send_buffer_bytes),
            size(self.receive_buffer_bytes),
            size(Some(self.call_bytes)),
            match self.sending {
                Sending::Copied => "copied into the socket",
                Sending::Spliced => "spliced",
            },
            match self.landing {
                Landing::Faults => "memory populated by the receiving call",
                Landing::UnitsAhead => "memory populated before the receiving call",
            }
        )
    }
}

/// The congestion controls that a socket here may have.
pub(super) fn congestion_controls() -> Vec<String> {
    let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let names = names.unwrap_or_default();
    names.split_whitespace().map(String::from).collect()
}
