//! What the engine's tests share: a guest without a hypervisor, two hosts in one process with real
//! sockets between them, and peers that speak the protocol by hand.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

mod cpu;
mod guest;
mod memory;
mod proxy;
mod raw;
mod raw_source;
mod raw_target;
mod writer;

pub(crate) use cpu::{AMD, FEATURES, INTEL, digest, host_of, test_host, unaffected_host};
pub(crate) use guest::{
    ABSENT_PAGE, FILLED_PAGES, Later, Script, TestGuest, TestHost, offer_of, test_map,
};
pub(crate) use memory::{TestMemory, map_of, pattern, range};
pub(crate) use proxy::{Passed, proxy_to};
pub(crate) use raw::{Raw, RawError, address};
pub(crate) use raw_source::{Frame, RawSource};
pub(crate) use raw_target::{RawTarget, Until};

use std::net::TcpListener;
use std::time::{Duration, Instant};

use limosa::{
    CancelToken, Codec, Endpoint, IoChoice, Landed, LinkConfig, Listener, MigrationConfig,
    MigrationError, Observer, SessionConfig, SourceReport, ZstdLevel, migrate_in, migrate_out,
};

/// Time-outs short enough for tests of silence, and long enough for a machine that is busy.
pub(crate) fn quick() -> MigrationConfig {
    let ms = Duration::from_millis;
    MigrationConfig {
        session: SessionConfig {
            peer_silence_max: ms(700),
            keep_alive_every: ms(100),
            handshake_max: ms(700),
            prepare_max: ms(1500),
            landing_max: ms(1000),
            switchover_max: ms(1000),
            hand_over_max: ms(1000),
            ..SessionConfig::default()
        },
        link: LinkConfig {
            connect_max: ms(1000),
            io_silence_max: ms(600),
            newcomer_max: ms(300),
            ..LinkConfig::default()
        },
        ..MigrationConfig::default()
    }
}

/// A bound that no single migration of a test comes near, unless something waits for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) fn tcp() -> Endpoint {
    "tcp://127.0.0.1:0".parse().unwrap()
}

pub(crate) fn unix(folder: &tempfile::TempDir) -> Endpoint {
    Endpoint::Unix(folder.path().join("limosa"))
}

pub(crate) fn listen(config: &MigrationConfig) -> Listener {
    Listener::bind(&tcp(), &config.link).unwrap()
}

pub(crate) type Outbound = Result<SourceReport, MigrationError>;
pub(crate) type Inbound = Result<Landed<TestGuest>, MigrationError>;

/// Both sides of one migration, each on a thread of its own.
pub(crate) fn migrate(
    guest: &mut TestGuest,
    host: &mut TestHost,
    listener: &mut Listener,
    config: &MigrationConfig,
) -> (Outbound, Inbound) {
    migrate_watched(guest, host, listener, config, &CancelToken::new(), &mut ())
}

/// The same, with what the source is given to watch and to cancel.
pub(crate) fn migrate_watched(
    guest: &mut TestGuest,
    host: &mut TestHost,
    listener: &mut Listener,
    config: &MigrationConfig,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> (Outbound, Inbound) {
    let endpoint = listener.endpoint().clone();
    std::thread::scope(|scope| {
        let token = CancelToken::new();
        let target = scope.spawn({
            let token = token.clone();
            move || migrate_in(host, listener, config, &token, &mut ())
        });
        let out = migrate_out(guest, &endpoint, config, cancel, observer);
        if out.is_err() {
            // A target that was never reached waits for another source.
            token.cancel();
        }
        (out, target.join().unwrap())
    })
}

/// A migration that must succeed, and leave equal memory. Returns the guest where it runs now.
pub(crate) fn migrate_well(
    guest: &mut TestGuest,
    host: &mut TestHost,
    listener: &mut Listener,
    config: &MigrationConfig,
) -> TestGuest {
    let releases = guest.script.counts().2;
    let (out, landed) = migrate(guest, host, listener, config);
    let report = out.unwrap();
    let landed = landed.unwrap();
    assert_eq!(guest.memory.first_difference(&landed.guest.memory), None);
    assert_eq!(guest.script.counts().2, releases + 1, "released once");
    assert!(!guest.runs(), "two running copies");
    assert!(report.switchover.total > Duration::ZERO);
    landed.guest
}

/// The guest runs at the source as if nothing had happened, and can be moved by the next attempt.
pub(crate) fn assert_kept(guest: &mut TestGuest, error: &MigrationError) {
    assert_eq!(error.custody, limosa::Custody::Source, "{error}");
    let (pauses, resumes, releases) = guest.script.counts();
    assert_eq!(pauses, resumes, "resumed if and only if paused: {error}");
    assert_eq!(releases, 0, "{error}");
    assert!(guest.runs(), "the guest stands still: {error}");
}

/// Moves a kept guest to a good target.
pub(crate) fn assert_movable(guest: &mut TestGuest) {
    let config = quick();
    let mut listener = listen(&config);
    migrate_well(guest, &mut TestHost::default(), &mut listener, &config);
}

/// One attempt to move `guest` to a target that does `deed`.
pub(crate) fn attempt(
    guest: &mut TestGuest,
    deed: impl FnOnce(TcpListener) -> Result<(), RawError> + Send,
) -> MigrationError {
    let (listener, endpoint) = RawTarget::listen();
    let begun = Instant::now();
    let out = std::thread::scope(|scope| {
        let target = scope.spawn(move || deed(listener));
        let out = migrate_out(guest, &endpoint, &quick(), &CancelToken::new(), &mut ());
        let _ = target.join().unwrap();
        out
    });
    assert!(begun.elapsed() < PATIENCE, "after {:?}", begun.elapsed());
    out.unwrap_err()
}

/// Every way to reach the kernel that this host has.
pub(crate) fn ways() -> Vec<IoChoice> {
    let way = [IoChoice::Uring, IoChoice::Blocking];
    let had = way.into_iter().filter(|way| {
        let plan = limosa_transport::probe_io(*way);
        if let Err(reason) = &plan {
            println!("SKIPPED: {way:?}: {reason}");
        }
        plan.is_ok()
    });
    had.collect()
}

pub(crate) const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Lz4,
    Codec::Zstd(ZstdLevel::MIN),
    Codec::Delta,
    Codec::Auto,
];
