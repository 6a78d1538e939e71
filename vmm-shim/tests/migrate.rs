//! Whole migrations through the engine, over sockets of this host: the same guest again and again,
//! on KVM and without it, while it writes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use limosa::{
    CancelToken, Landed, LinkConfig, Listener, MigrationConfig, TargetHost, migrate_in, migrate_out,
};
use limosa_payload::protocol::{Fill, Pattern, Phase};
use limosa_shim::{
    GuestKind, GuestSpec, HostSpec, KvmGuest, KvmHost, ProcessGuest, ProcessHost, Stage, Tracking,
    Workload,
};

mod common;

const LONG: Duration = Duration::from_secs(60);

fn spec() -> GuestSpec {
    let mut spec = GuestSpec::new(64 << 20);
    spec.vcpu_count = 2;
    spec.workload.fill = Fill::Mixed;
    spec.workload.touched_percent = 80;
    spec.workload.working_set_bytes = 8 << 20;
    spec.workload.dirty_pages_per_second = 5_000;
    spec.workload.pattern = Pattern::Random;
    spec
}

/// Moves a guest to a host in this process, and hands the arrived one over.
fn migrate<G, H>(mut guest: G, host: &mut H) -> G
where
    G: limosa::SourceGuest + Workload,
    H: TargetHost<Guest = G>,
{
    static SOCKETS: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), SOCKETS.fetch_add(1, Ordering::Relaxed));
    let socket = std::env::temp_dir().join(format!("limosa-shim-{process}-{number}"));
    let endpoint = format!("unix:{}", socket.display())
        .parse()
        .expect("endpoint");
    let config = MigrationConfig::default();
    let mut listener = Listener::bind(&endpoint, &LinkConfig::default()).expect("listener");
    guest.set_phase(Phase::Precopy).expect("phase");
    let landed: Landed<G> = std::thread::scope(|scope| {
        let source = scope.spawn(|| {
            let cancel = CancelToken::new();
            let report = migrate_out(&mut guest, &endpoint, &config, &cancel, &mut ());
            report.expect("migrate out")
        });
        let cancel = CancelToken::new();
        let landed = migrate_in(host, &mut listener, &config, &cancel, &mut ());
        let report = source.join().expect("source");
        println!(
            "{} paused for {:?}",
            host_name::<G>(),
            report.switchover.total
        );
        landed.expect("migrate in")
    });
    assert_eq!(Workload::stage(&guest), Stage::Released);
    assert!(
        limosa::SourceGuest::resume(&mut guest).is_err(),
        "two copies"
    );
    landed.guest
}

fn host_name<G>() -> &'static str {
    std::any::type_name::<G>()
}

fn move_thrice<G, H>(mut guest: G, host: &mut H)
where
    G: limosa::SourceGuest + Workload,
    H: TargetHost<Guest = G>,
{
    guest.wait_ready(LONG).expect("ready");
    for hop in 1..=3 {
        guest = migrate(guest, host);
        let report = guest.check(LONG).expect("check");
        assert!(report.intact(), "hop {hop}: {report:?}");
        for vcpu in guest.stats().expect("stats") {
            let downtime = vcpu.downtime(hop).expect("noticed");
            println!("vCPU {} stood still for {downtime:?}", vcpu.index);
        }
    }
}

#[test]
fn a_guest_on_kvm_moves_thrice() {
    if common::no_kvm() {
        return;
    }
    let mut host = KvmHost::new(HostSpec::default()).expect("host");
    move_thrice(KvmGuest::boot(&spec()).expect("boot"), &mut host);
}

#[test]
fn a_guest_on_kvm_moves_by_each_tracking() {
    if common::no_kvm() {
        return;
    }
    for tracking in [Tracking::Log, Tracking::Ring, Tracking::Pagemap] {
        if let Err(error) = tracking.choose(GuestKind::Kvm) {
            println!("SKIPPED: {error}");
            continue;
        }
        let host = HostSpec {
            tracking,
            ..HostSpec::default()
        };
        let mut host = KvmHost::new(host).expect("host");
        let guest = KvmGuest::boot(&GuestSpec { tracking, ..spec() }).expect("boot");
        println!("writes recorded by {}", guest.tracking());
        move_thrice(guest, &mut host);
    }
}

#[test]
fn a_process_guest_moves_thrice() {
    let mut host = ProcessHost::new(HostSpec::default()).expect("host");
    let mut guest = ProcessGuest::boot(&spec()).expect("boot");
    let mut source = guest.dirty_source().expect("source");
    if let Err(error) = source.start() {
        println!("SKIPPED: {error}");
        return;
    }
    source.stop().expect("stop");
    move_thrice(guest, &mut host);
}

#[test]
fn a_guest_of_another_kind_is_refused() {
    if common::no_kvm() {
        return;
    }
    let guest = ProcessGuest::boot(&spec()).expect("boot");
    let mut host = KvmHost::new(HostSpec::default()).expect("host");
    let refused = host.prepare(&guest.offer());
    assert!(refused.is_err_and(|error| error.to_string().contains("process")));
}
