//! What the engine holds beyond the guest's memory, counted by the allocator of either side's own
//! process: bounded, whatever the number of streams and the size of the guest, and reported whole.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use limosa::{CancelToken, Codec, LinkConfig, Listener, MigrationConfig, migrate_in, migrate_out};
use limosa_payload::protocol::{Fill, Pattern};
use limosa_shim::{GuestSpec, HostSpec, ProcessGuest, ProcessHost, Room, Workload};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const LONG: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
/// Beyond 2 bits per page.
const OVERHEAD_BYTES_MAX: u64 = 64 * MIB;
/// What nobody counts: channels, threads' names, messages, the session.
const UNCOUNTED_BYTES_MAX: u64 = 2 * MIB;
/// Set in the process of a target.
const IS_TARGET: &str = "LIMOSA_BUDGET_TARGET";

struct Case {
    memory_bytes: u64,
    touched_bytes: u64,
    stream_count: u16,
    codec: Codec,
}

/// What one side held at most, as its allocator and its report have it.
#[derive(Debug)]
struct Held {
    heap_bytes: u64,
    reported_bytes: u64,
}

impl Held {
    fn check(&self, side: &str, case: &Case) {
        let pages = case.memory_bytes / 4096;
        let max = OVERHEAD_BYTES_MAX + pages / 4;
        let of = format!("{side} of {} streams: {self:?}", case.stream_count);
        println!("{} MiB of memory, {of}", case.memory_bytes / MIB);
        assert!(self.heap_bytes <= max, "{of}, more than {max}");
        let known = self.reported_bytes + UNCOUNTED_BYTES_MAX;
        assert!(self.heap_bytes <= known, "{of}: not all is reported");
    }
}

/// The other end, in a process of its own.
struct Target {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Target {
    fn start() -> Self {
        let this = std::env::current_exe().expect("this test");
        let mut command = Command::new(this);
        command.args(["--exact", "a_target_in_a_process_of_its_own", "--nocapture"]);
        let process = command.env(IS_TARGET, "1").stdout(Stdio::piped()).spawn();
        let mut process = process.expect("a target");
        let says = BufReader::new(process.stdout.take().expect("what it says"));
        Self { process, says }
    }

    /// What follows `word` in the next line that has it.
    fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.says.read_line(&mut line).expect("a line");
            assert!(count > 0, "the target ended");
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().into();
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The most that the heap grows while `work` is done, and what that says of itself.
fn held(work: impl FnOnce() -> u64) -> Held {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let reported_bytes = work();
    Held {
        heap_bytes: HEAP.peak_usage().saturating_sub(before) as u64,
        reported_bytes,
    }
}

/// No test of its own: the target of the test below.
#[test]
fn a_target_in_a_process_of_its_own() {
    if std::env::var_os(IS_TARGET).is_none() {
        return;
    }
    let spec = HostSpec {
        room: Room::Bytes(0),
        ..HostSpec::default()
    };
    let mut host = ProcessHost::new(spec).expect("host");
    let link = LinkConfig::default();
    let listening = Listener::bind(&"tcp://127.0.0.1:0".parse().expect("endpoint"), &link);
    let mut listener = listening.expect("listener");
    println!("listening: {}", listener.endpoint());
    let config = MigrationConfig::default();
    let mut landed = None;
    let held = held(|| {
        let cancel = CancelToken::new();
        let arrived = migrate_in(&mut host, &mut listener, &config, &cancel, &mut ());
        let arrived = landed.insert(arrived.expect("migrate in"));
        arrived.report.overhead_bytes
    });
    println!("held: {} {}", held.heap_bytes, held.reported_bytes);
}

fn migrate(case: &Case) {
    let mut spec = GuestSpec::new(case.memory_bytes);
    spec.workload.touched_bytes = Some(case.touched_bytes);
    spec.workload.fill = Fill::Mixed;
    spec.workload.working_set_bytes = case.touched_bytes / 4;
    spec.workload.dirty_pages_per_second = 2000;
    spec.workload.pattern = Pattern::Random;
    let mut guest = ProcessGuest::boot(&spec).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    let mut config = MigrationConfig::default();
    config.session.stream_count = case.stream_count;
    config.codec = case.codec;
    let mut target = Target::start();
    let endpoint = target.hear("listening: ").parse().expect("endpoint");
    let source = held(|| {
        let cancel = CancelToken::new();
        let sent = migrate_out(&mut guest, &endpoint, &config, &cancel, &mut ());
        sent.expect("migrate out").overhead_bytes
    });
    source.check("source", case);
    let numbers = target.hear("held: ");
    let mut numbers = numbers
        .split(' ')
        .map(|text| text.parse().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    let (heap_bytes, reported_bytes) = (next(), next());
    let there = Held {
        heap_bytes,
        reported_bytes,
    };
    there.check("target", case);
}

#[test]
fn memory_beyond_the_guests_is_bounded_and_reported() {
    let mut guest = ProcessGuest::boot(&GuestSpec::new(64 * MIB)).expect("boot");
    if let Err(error) = guest.dirty_source().expect("source").start() {
        println!("SKIPPED: {error}");
        return;
    }
    drop(guest);
    for stream_count in [1, 8, 64] {
        for (memory_mib, touched_mib) in [(128, 128), (1 << 20, 96)] {
            for codec in [Codec::None, Codec::Lz4] {
                migrate(&Case {
                    memory_bytes: memory_mib * MIB,
                    touched_bytes: touched_mib * MIB,
                    stream_count,
                    codec,
                });
            }
        }
    }
}
