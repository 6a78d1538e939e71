//! What a guest never touched, or left as zeros, takes no memory at the target: on KVM and without
//! it, in anonymous memory and in memory files.

use std::time::Duration;

use limosa::{
    CancelToken, LinkConfig, Listener, MigrationConfig, Moment, Observer, SourceGuest,
    SourceReport, TargetHost, migrate_in, migrate_out,
};
use limosa_pages::PageIndex;
use limosa_payload::GuestBytes;
use limosa_payload::protocol::Fill;
use limosa_pipeline::GuestMemory;
use limosa_shim::{
    Backing, GuestSpec, HostSpec, HugePages, KvmGuest, KvmHost, ProcessGuest, ProcessHost, Workload,
};

mod common;

const LONG: Duration = Duration::from_secs(60);
const GUEST_BYTES: u64 = 96 << 20;
/// What the guest's program keeps for itself, and what it touches of that at most.
const OWN_BYTES: u64 = 16 << 20;

fn spec(backing: Backing) -> GuestSpec {
    GuestSpec {
        backing,
        // Whatever is touched takes a page, not 2 MiB.
        huge_pages: HugePages::Avoided,
        ..GuestSpec::new(GUEST_BYTES)
    }
}

fn host_spec(backing: Backing) -> HostSpec {
    HostSpec {
        backing,
        huge_pages: HugePages::Avoided,
        ..HostSpec::default()
    }
}

fn migrate<G, H>(guest: &mut G, host: &mut H, observer: &mut dyn Observer) -> (SourceReport, G)
where
    G: SourceGuest,
    H: TargetHost<Guest = G>,
{
    let link = LinkConfig::default();
    let listening = Listener::bind(&"tcp://127.0.0.1:0".parse().expect("endpoint"), &link);
    let mut listener = listening.expect("listener");
    let endpoint = listener.endpoint().clone();
    let config = MigrationConfig::default();
    std::thread::scope(|scope| {
        let landing = scope.spawn(|| {
            let cancel = CancelToken::new();
            migrate_in(host, &mut listener, &config, &cancel, &mut ())
        });
        let cancel = CancelToken::new();
        let sent = migrate_out(guest, &endpoint, &config, &cancel, observer);
        let landed = landing.join().expect("target").expect("migrate in");
        (sent.expect("migrate out"), landed.guest)
    })
}

/// Pages that take memory here.
fn present(guest: &impl Workload) -> u64 {
    let pages = guest.pages();
    let chunks = pages.ram().map().chunks();
    let counts = chunks.map(|(chunk, _)| u64::from(pages.present(chunk).expect("present").count()));
    counts.sum()
}

/// Runs `test` with a guest and a host of each kind and backing.
macro_rules! with_each {
    ($spec:expr, $test:ident) => {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let mut spec: GuestSpec = spec(backing);
            $spec(&mut spec);
            let mut guest = ProcessGuest::boot(&spec).expect("boot");
            let mut source = guest.dirty_source().expect("source");
            if let Err(error) = source.start() {
                println!("SKIPPED: {error}");
            } else {
                drop(source);
                let mut host = ProcessHost::new(host_spec(backing)).expect("host");
                $test(guest, &mut host);
            }
            if !common::no_kvm() {
                let mut host = KvmHost::new(host_spec(backing)).expect("host");
                $test(KvmGuest::boot(&spec).expect("boot"), &mut host);
            }
        }
    };
}

fn untouched_stays_untouched<G, H>(mut guest: G, host: &mut H)
where
    G: SourceGuest + Workload,
    H: TargetHost<Guest = G>,
{
    guest.wait_ready(LONG).expect("ready");
    let before = present(&guest);
    let all = guest.pages().ram().map().page_count().get();
    assert!(before < all / 2, "{before} of {all}");
    let (report, arrived) = migrate(&mut guest, host, &mut ());
    assert!(
        report.pages().absent >= all - before - 16,
        "{before} of {all}: {:?}",
        report.pages()
    );
    let after = present(&arrived);
    // In chunks that hold much the pages between are made ready, too: at the ends of what is
    // touched, and of the guest's own memory.
    assert!(after <= before + 4 * 512, "{before} pages became {after}");
    assert!(arrived.check(LONG).expect("check").intact());
}

#[test]
fn what_was_never_touched_is_absent_on_both_sides() {
    let sparse = |spec: &mut GuestSpec| spec.workload.touched_percent = 20;
    with_each!(sparse, untouched_stays_untouched);
}

fn zeros_take_no_memory<G, H>(mut guest: G, host: &mut H)
where
    G: SourceGuest + Workload,
    H: TargetHost<Guest = G>,
{
    guest.wait_ready(LONG).expect("ready");
    assert!(present(&guest) * 4096 >= GUEST_BYTES - OWN_BYTES);
    let (report, arrived) = migrate(&mut guest, host, &mut ());
    assert!(report.pages().zero * 4096 >= GUEST_BYTES - OWN_BYTES);
    let after = present(&arrived) * 4096;
    assert!(after < OWN_BYTES, "{after} bytes");
    assert!(arrived.check(LONG).expect("check").intact());
}

#[test]
fn written_zeros_take_no_memory_at_the_target() {
    let zeros = |spec: &mut GuestSpec| spec.workload.fill = Fill::Zero;
    with_each!(zeros, zeros_take_no_memory);
}

fn later_zeros_overwrite<G, H>(mut guest: G, host: &mut H)
where
    G: SourceGuest + Workload,
    H: TargetHost<Guest = G>,
{
    guest.wait_ready(LONG).expect("ready");
    let view = guest.view();
    let pages = (40 << 20)..(42 << 20);
    // Zeros, sent in round 0 with content of their own.
    let each = || pages.clone().step_by(4096);
    each().for_each(|address| view.write(address, &[0x5a; 4096]));
    let mut rounds = 0;
    let mut observer = |moment: &Moment| {
        if matches!(moment, Moment::Session(limosa::Event::RoundSent(_))) {
            rounds += 1;
            if rounds == 1 {
                each().for_each(|address| view.write(address, &[0; 4096]));
            }
        }
    };
    let (report, arrived) = migrate(&mut guest, host, &mut observer);
    assert!(report.rounds.len() > 1);
    let memory = arrived.view();
    let mut page = [1; 4096];
    for address in each() {
        memory.read(address, &mut page);
        assert_eq!(page, [0; 4096], "{address:#x}");
    }
    let chunk = PageIndex::new(pages.start / 4096).chunk();
    let present = arrived.pages().present(chunk).expect("present");
    assert!(!present.is_empty(), "there was something to overwrite");
    assert!(arrived.check(LONG).expect("check").intact());
}

#[test]
fn what_is_zeroed_after_it_was_sent_is_zero_at_the_target() {
    let zeros = |spec: &mut GuestSpec| spec.workload.fill = Fill::Zero;
    with_each!(zeros, later_zeros_overwrite);
}
