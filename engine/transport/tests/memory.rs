//! Frames that lie partly in memory which others may write: by each address family, by each way to
//! the kernel, spliced and copied.

mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use limosa_transport::{
    FrameBytes, IoChoice, PageSender, Piece, Splice, TransportError, TransportFault, probe_io,
};
use support::{Dice, Net, SILENCE, World, timed};
use vm_memory::VolatileMemory as _;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

const MEMORY_BYTES: usize = 4 << 20;

/// Runs of bytes of its own and of memory, by turns, in the order of the wire.
struct Mixed {
    bytes: Vec<u8>,
    memory: Arc<MmapRegion>,
    /// Offset and length: of `bytes` those at even places, of `memory` the others.
    runs: Vec<(usize, usize)>,
}

impl FrameBytes for Mixed {
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>) {
        pieces.extend(self.runs.iter().enumerate().map(|(place, (at, count))| {
            if place % 2 == 0 {
                Piece::Bytes(&self.bytes[*at..*at + *count])
            } else {
                Piece::Memory(self.memory.get_slice(*at, *count).unwrap())
            }
        }));
    }
}

impl Mixed {
    /// Runs of all lengths, askew ones among them, but of at least one byte at the front.
    fn by_chance(memory: &Arc<MmapRegion>, dice: &mut Dice) -> Self {
        let bytes = dice.bytes(20_000);
        let longest = [100, 5000, 70_000, 3 << 20][dice.below(4) as usize];
        let count = [1, 2, 3, 40, 2500][dice.below(5) as usize];
        let mut left = 8 << 20;
        let runs = (0..count).map(|place| {
            let room = if place % 2 == 0 {
                bytes.len()
            } else {
                MEMORY_BYTES
            };
            let length = 1 + dice.below(longest.min(room as u64).min(left)) as usize;
            left = left.saturating_sub(length as u64).max(1);
            (dice.below((room - length) as u64 + 1) as usize, length)
        });
        let runs = runs.collect();
        let memory = Arc::clone(memory);
        Self {
            bytes,
            memory,
            runs,
        }
    }

    /// Some pages of memory behind a header.
    fn pages(memory: &Arc<MmapRegion>, count: usize) -> Self {
        Self {
            bytes: vec![1; 64],
            memory: Arc::clone(memory),
            runs: vec![(0, 64), (4096, count * 4096)],
        }
    }

    fn on_the_wire(&self) -> Vec<u8> {
        let (mut pieces, mut all) = (Vec::new(), Vec::new());
        self.pieces(&mut pieces);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => all.extend_from_slice(bytes),
                Piece::Memory(slice) => {
                    let mut copy = vec![0; slice.len()];
                    slice.copy_to(&mut copy);
                    all.extend(copy);
                }
            }
        }
        all
    }
}

fn filled() -> Arc<MmapRegion> {
    let region = MmapRegion::new(MEMORY_BYTES).unwrap();
    region
        .as_volatile_slice()
        .copy_from(&Dice(11).bytes(MEMORY_BYTES));
    Arc::new(region)
}

fn frames_arrive_whole_and_in_order(world: &World) {
    let (sending, receiving) = world.stream();
    let memory = filled();
    let frames: Vec<Mixed> = {
        let mut dice = Dice(5);
        (0..40)
            .map(|_| Mixed::by_chance(&memory, &mut dice))
            .collect()
    };
    let expected: Vec<_> = frames.iter().map(Mixed::on_the_wire).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = sending.into_sender().unwrap();
            let mut back = 0;
            let count = frames.len();
            for frame in frames {
                back += usize::from(sender.send(frame).unwrap().is_some());
            }
            sender.flush().unwrap();
            while sender.reclaim().unwrap().is_some() {
                back += 1;
            }
            assert_eq!(back, count, "every buffer comes back");
        });
        let mut receiver = receiving.into_receiver().unwrap();
        for (index, expected) in expected.iter().enumerate() {
            let mut found = vec![0; expected.len()];
            receiver.recv_header(&mut found).unwrap();
            assert!(found == *expected, "frame {index}");
        }
    });
}

/// What is written while a frame is on its way may go or may not, byte by byte; the frame is as
/// long as before, and so is the next one.
fn memory_may_be_written_meanwhile(world: &World) {
    let (sending, receiving) = world.stream();
    let memory = filled();
    let slice = memory.as_volatile_slice();
    slice.copy_from(&vec![b'-'; MEMORY_BYTES]);
    let mut sender = sending.into_sender().unwrap();
    sender.send(Mixed::pages(&memory, 4)).unwrap();
    sender.flush().unwrap();
    slice.copy_from(&vec![b'+'; MEMORY_BYTES]);
    sender.send(Mixed::pages(&memory, 4)).unwrap();
    sender.flush().unwrap();
    let mut receiver = receiving.into_receiver().unwrap();
    let mut found = vec![0; Mixed::pages(&memory, 4).on_the_wire().len()];
    receiver.recv_header(&mut found).unwrap();
    assert!(found[..64] == [1; 64]);
    assert!(found[64..].iter().all(|byte| b"-+".contains(byte)));
    receiver.recv_header(&mut found).unwrap();
    assert!(found[..64] == [1; 64]);
    assert!(found[64..].iter().all(|byte| *byte == b'+'));
}

fn send_on(sender: &mut dyn PageSender<Mixed>, memory: &Arc<MmapRegion>) -> TransportError {
    let begun = Instant::now();
    loop {
        if let Err(error) = sender.send(Mixed::pages(memory, 64)) {
            return error;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never noticed");
    }
}

fn a_peer_that_gives_up_is_a_reset(world: &World) {
    let (sending, receiving) = world.stream();
    drop(receiving);
    let mut sender = sending.into_sender().unwrap();
    let fault = send_on(&mut *sender, &filled()).fault;
    assert!(matches!(fault, TransportFault::Reset), "{fault:?}");
}

fn a_peer_that_takes_nothing_is_noticed(world: &mut World) {
    world.config.io_silence_max = SILENCE;
    let (sending, _receiving) = world.stream();
    let mut sender = sending.into_sender().unwrap();
    let (error, took) = timed(|| send_on(&mut *sender, &filled()));
    let fault = error.fault;
    assert!(matches!(fault, TransportFault::Silent { silence } if silence == SILENCE));
    assert!(took >= SILENCE - Duration::from_millis(20), "{took:?}");
}

fn a_stop_frees_who_is_blocked(world: &World) {
    let (sending, _receiving) = world.stream();
    let stop = sending.stop_handle();
    thread::scope(|scope| {
        let blocked = scope.spawn(move || {
            let mut sender = sending.into_sender().unwrap();
            send_on(&mut *sender, &filled()).fault
        });
        thread::sleep(Duration::from_millis(150));
        assert!(!blocked.is_finished());
        stop.stop();
        let fault = blocked.join().unwrap();
        assert!(matches!(fault, TransportFault::Stopped), "{fault:?}");
    });
}

fn memory_that_is_not_there_is_an_error(world: &World) {
    let (sending, _receiving) = world.stream();
    let builder = MmapRegionBuilder::new(MEMORY_BYTES)
        .with_mmap_prot(libc::PROT_NONE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE);
    let mut sender = sending.into_sender().unwrap();
    let fault = send_on(&mut *sender, &Arc::new(builder.build().unwrap())).fault;
    assert!(matches!(fault, TransportFault::Kernel { .. }), "{fault:?}");
}

macro_rules! with_memory {
    ($($name:ident: $net:expr, $io:expr, $splice:expr;)+) => {$(
        mod $name {
            use super::*;

            with_memory! { @each $net, $io, $splice;
                frames_arrive_whole_and_in_order
                memory_may_be_written_meanwhile
                a_peer_that_gives_up_is_a_reset
                a_peer_that_takes_nothing_is_noticed
                a_stop_frees_who_is_blocked
                memory_that_is_not_there_is_an_error
            }
        }
    )+};
    (@each $net:expr, $io:expr, $splice:expr; $($test:ident)*) => {$(
        #[test]
        fn $test() {
            if let Err(reason) = probe_io($io) {
                eprintln!("SKIPPED: {reason}");
                return;
            }
            let mut world = World::new($net, $io);
            world.config.splice = $splice;
            super::$test(&mut world);
        }
    )*};
}

with_memory! {
    tcp_uring_spliced: Net::Tcp4, IoChoice::Uring, Splice::Auto;
    tcp_uring_copied: Net::Tcp4, IoChoice::Uring, Splice::Never;
    tcp_blocking_spliced: Net::Tcp4, IoChoice::Blocking, Splice::Auto;
    tcp_blocking_copied: Net::Tcp4, IoChoice::Blocking, Splice::Never;
    unix_uring_spliced: Net::Unix, IoChoice::Uring, Splice::Auto;
    unix_uring_copied: Net::Unix, IoChoice::Uring, Splice::Never;
    unix_blocking_spliced: Net::Unix, IoChoice::Blocking, Splice::Auto;
    unix_blocking_copied: Net::Unix, IoChoice::Blocking, Splice::Never;
}
