//! Where a target listens, as an operator writes it. Opening it is not done here.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;

use socket2::SockAddr;

/// Most bytes of the path of a Unix socket. Source: unix(7), `sun_path` with its last zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where a target listens.
///
/// Written `tcp://192.0.2.7:4444`, `tcp://[2001:db8::7]:4444`, `tcp://host.example:4444` or
/// `unix:/run/limosa.sock`; [`fmt::Display`] and [`FromStr`] are each other's mirror.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// A TCP address. Port 0 asks a listener's kernel for a free one.
    Tcp(SocketAddr),
    /// A TCP port of a host by name, looked up when it is connected to or listened on.
    TcpName {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system of one host.
    Unix(PathBuf),
}

/// A text that names no endpoint.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{text}` is no endpoint: {what}; write tcp://host:port, tcp://[v6 address]:port or unix:/path"
)]
pub struct EndpointError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let parsed = match (text.strip_prefix("tcp://"), text.strip_prefix("unix:")) {
            (Some(rest), _) => parse_tcp(rest),
            (_, Some(rest)) => parse_unix(rest),
            _ => Err("it begins with neither tcp:// nor unix:"),
        };
        parsed.map_err(|what| EndpointError {
            text: text.to_owned(),
            what,
        })
    }
}

fn parse_tcp(rest: &str) -> Result<Endpoint, &'static str> {
    if let Ok(address) = rest.parse() {
        return Ok(Endpoint::Tcp(address));
    }
    let (host, port) = rest.rsplit_once(':').ok_or("the port is missing")?;
    if host.starts_with('[') {
        return Err("what is in the brackets, or the port, is no number of its kind");
    }
    if host.contains(':') {
        return Err("an IPv6 address needs brackets");
    }
    let port = port
        .parse()
        .map_err(|_| "the port is no number from 0 to 65535")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(is_name) {
        return Err("the host is no name or address");
    }
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err("the host looks like an IPv4 address but is none");
    }
    let host = host.to_owned();
    Ok(Endpoint::TcpName { host, port })
}

fn parse_unix(rest: &str) -> Result<Endpoint, &'static str> {
    if !rest.starts_with('/') || rest.starts_with("//") {
        return Err("the path must be absolute, after one colon and no more than one slash");
    }
    if rest.len() > UNIX_PATH_BYTES_MAX {
        return Err("the path is longer than 107 bytes");
    }
    if rest.ends_with('/') || rest.contains('\0') {
        return Err("the path names no file");
    }
    Ok(Endpoint::Unix(PathBuf::from(rest)))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::TcpName { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl Endpoint {
    /// Every address that the endpoint stands for, in the resolver's order; at least one.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SockAddr>> {
        match self {
            Self::Tcp(address) => Ok(vec![SockAddr::from(*address)]),
            Self::TcpName { host, port } => {
                let found: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
                if found.is_empty() {
                    return Err(io::Error::other("the name has no address"));
                }
                Ok(found.into_iter().map(SockAddr::from).collect())
            }
            Self::Unix(path) => Ok(vec![SockAddr::unix(path)?]),
        }
    }

    /// The endpoint that `address` is; a nameless Unix socket takes the place of `otherwise`.
    pub(crate) fn of_address(address: &SockAddr, otherwise: &Self) -> Self {
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Self::Tcp(address),
            (_, Some(path)) => Self::Unix(path.to_owned()),
            _ => otherwise.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_is_parsed_again() {
        for text in [
            "tcp://127.0.0.1:4444",
            "tcp://[::1]:0",
            "tcp://[fe80::1%2]:65535",
            "tcp://host-7.example:1",
            "tcp://localhost:4444",
            "unix:/run/limosa.sock",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn each_wrong_text_is_told_why() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, what) in [
            ("127.0.0.1:4444", "neither"),
            ("tcp:127.0.0.1:4444", "neither"),
            ("tcp://127.0.0.1", "port is missing"),
            ("tcp://127.0.0.1:65536", "no number from"),
            ("tcp://127.0.0.300:1", "looks like an IPv4"),
            ("tcp://::1:4444", "brackets"),
            ("tcp://[::1:4444", "brackets"),
            ("tcp://:4444", "no name"),
            ("tcp://a b:4444", "no name"),
            ("unix:relative", "absolute"),
            ("unix://run/x", "absolute"),
            ("unix:/run/", "no file"),
            (&long, "107"),
            ("", "neither"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains(what), "{text}: {error}");
        }
    }
}
