//! One body of tests for every page stream: each address family by each way to the kernel. It does
//! not measure speed.

mod support;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use limosa_transport::{
    FrameBytes, IoChoice, PageIo, PageLink, PageReceiver, PageSender, Piece, TransportFault,
    probe_io,
};
use support::{Dice, Net, SILENCE, Stranger, World, bind, expected, soon, timed};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory as _, VolatileSlice};

/// A frame whose bytes lie in the value itself, where moving it would move them, and which tells
/// when it is dropped.
struct Inline {
    bytes: [u8; 4096],
    _dropped: mpsc::Sender<()>,
}

impl FrameBytes for Inline {
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>) {
        pieces.push(Piece::Bytes(&self.bytes));
    }
}

fn sender(link: PageLink) -> Box<dyn PageSender<Vec<u8>>> {
    link.into_sender().unwrap()
}

fn receiver(link: PageLink) -> Box<dyn PageReceiver> {
    link.into_receiver().unwrap()
}

/// Frame sizes around every border, and some from the dice.
fn sizes(dice: &mut Dice) -> Vec<usize> {
    let mut sizes = vec![
        1, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 262_144, 1_056_832,
    ];
    sizes.extend((0..120).map(|_| 1 + dice.below(150_000) as usize));
    sizes.extend((0..60).map(|_| 1 + dice.below(200) as usize));
    sizes
}

/// Cuts `memory` into pieces with gaps between them, to receive `total` bytes into.
fn pieces<'a>(
    memory: &VolatileSlice<'a>,
    total: usize,
    dice: &mut Dice,
) -> Vec<(usize, VolatileSlice<'a>)> {
    let (mut at, mut left, mut cut) = (0, total, Vec::new());
    let longest = 1 + (total / (1 + dice.below(3000) as usize)) as u64;
    while left > 0 {
        let bytes = left.min(1 + dice.below(longest) as usize);
        cut.push((at, memory.subslice(at, bytes).unwrap()));
        left -= bytes;
        at += bytes + dice.below(3) as usize;
    }
    cut
}

fn frames_arrive_whole_and_in_order(world: &World) {
    let (sending, receiving) = world.stream();
    let sizes = sizes(&mut Dice(7));
    let frame = |index: usize, bytes: usize| Dice(1 + index as u64).bytes(bytes);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = sender(sending);
            let mut back = 0;
            let mut take = |buffer: Vec<u8>| {
                assert!(buffer == frame(back, sizes[back]), "buffer {back} changed");
                back += 1;
            };
            for (index, bytes) in sizes.iter().enumerate() {
                sender
                    .send(frame(index, *bytes))
                    .unwrap()
                    .map(&mut take)
                    .unwrap_or_default();
            }
            sender.flush().unwrap();
            while let Some(buffer) = sender.reclaim().unwrap() {
                take(buffer);
            }
            assert_eq!(back, sizes.len(), "every buffer comes back");
        });
        let mut receiver = receiver(receiving);
        let mut dice = Dice(3);
        let region = MmapRegion::<()>::new(4 << 20).unwrap();
        let memory = region.as_volatile_slice();
        for (index, bytes) in sizes.iter().enumerate() {
            let sent = frame(index, *bytes);
            let mut header = vec![0; 64.min(*bytes)];
            receiver.recv_header(&mut header).unwrap();
            let mut table = vec![0; dice.below((bytes - header.len()) as u64 + 1) as usize];
            receiver.recv_exact(&mut table).unwrap();
            let done = header.len() + table.len();
            assert!(sent[..done] == [header, table].concat(), "frame {index}");
            memory.copy_from(&vec![0xee_u8; memory.len()]);
            let cut = pieces(&memory, bytes - done, &mut dice);
            let landing: Vec<_> = cut.iter().map(|(_, slice)| *slice).collect();
            receiver.recv_into(&landing).unwrap();
            check_landed(&memory, &cut, &sent[done..]);
        }
        assert!(matches!(
            receiver.recv_header(&mut [0; 64]).unwrap_err().fault,
            TransportFault::Closed
        ));
    });
}

/// Every piece holds its part of `sent`, and no byte between pieces was touched.
fn check_landed(memory: &VolatileSlice<'_>, cut: &[(usize, VolatileSlice<'_>)], sent: &[u8]) {
    let mut expected = vec![0xee_u8; memory.len()];
    let mut from = 0;
    for (at, slice) in cut {
        expected[*at..at + slice.len()].copy_from_slice(&sent[from..from + slice.len()]);
        from += slice.len();
    }
    let mut found = vec![0; memory.len()];
    memory.copy_to(&mut found);
    assert_eq!(from, sent.len());
    assert!(
        found == expected,
        "bytes went astray among {} pieces",
        cut.len()
    );
}

fn streams_come_in_the_order_of_their_numbers(world: &World) {
    let mut listener = world.listener();
    let endpoint = listener.endpoint().clone();
    let sending: Vec<_> = [2, 0, 3, 1]
        .map(|stream| world.connect(&endpoint, stream, &bind(4)))
        .into();
    let receiving = listener.accept_streams(&expected(4), &soon()).unwrap();
    for link in sending {
        let number = link.stream().get();
        sender(link).send(vec![number as u8; 64]).unwrap();
    }
    for (number, link) in receiving.into_iter().enumerate() {
        assert_eq!(usize::from(link.stream().get()), number);
        let mut header = [0; 64];
        receiver(link).recv_header(&mut header).unwrap();
        assert_eq!(header, [number as u8; 64]);
    }
}

fn a_close_midway_is_told_from_one_between_frames(world: &World) {
    for (sent, missing) in [(64, None), (10, Some(54)), (1000, Some(4096 + 64 - 1000))] {
        let (sending, receiving) = world.stream();
        // Whoever could stop the stream does not keep it open.
        let _stop = sending.stop_handle();
        let mut from = sender(sending);
        from.send(vec![1; sent]).unwrap();
        from.flush().unwrap();
        drop(from);
        let mut to = receiver(receiving);
        let first = to.recv_header(&mut [0; 64]);
        let fault = match sent {
            64 => {
                first.unwrap();
                to.recv_header(&mut [0; 64]).unwrap_err().fault
            }
            10 => first.unwrap_err().fault,
            _ => {
                first.unwrap();
                let region = MmapRegion::<()>::new(4096).unwrap();
                to.recv_into(&[region.as_volatile_slice()])
                    .unwrap_err()
                    .fault
            }
        };
        match (fault, missing) {
            (TransportFault::Closed, None) => {}
            (TransportFault::ClosedMidway { missing_bytes }, Some(missing)) => {
                assert!(missing_bytes >= missing, "{missing_bytes} of {missing}");
            }
            (other, _) => panic!("after {sent} bytes: {other:?}"),
        }
    }
}

fn a_peer_that_gives_up_is_a_reset(world: &World) {
    let (sending, receiving) = world.stream();
    drop(receiving);
    let mut from = sender(sending);
    let fault = (0..100)
        .find_map(|_| from.send(vec![0; 1 << 20]).err())
        .unwrap()
        .fault;
    assert!(matches!(fault, TransportFault::Reset), "{fault:?}");
}

/// Between one and two bounds, and some time for a busy machine.
fn check_silence(fault: &TransportFault, took: Duration) {
    assert!(
        matches!(fault, TransportFault::Silent { silence } if *silence == SILENCE),
        "{fault:?}"
    );
    let least = SILENCE - Duration::from_millis(20);
    assert!(
        took >= least && took < SILENCE * 2 + Duration::from_secs(3),
        "{took:?}"
    );
}

fn silence_midway_is_noticed(world: &mut World) {
    world.config.io_silence_max = SILENCE;
    let (sending, receiving) = world.stream();
    let mut from = sender(sending);
    let mut to = receiver(receiving);
    from.send(vec![1; 100]).unwrap();
    to.recv_header(&mut [0; 64]).unwrap();
    let (error, took) = timed(|| to.recv_exact(&mut [0; 64]).unwrap_err());
    check_silence(&error.fault, took);
}

fn silence_between_frames_is_in_order(world: &mut World) {
    world.config.io_silence_max = SILENCE;
    let (sending, receiving) = world.stream();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = sender(sending);
            thread::sleep(SILENCE * 3);
            from.send(vec![1; 64]).unwrap();
            from.flush().unwrap();
        });
        receiver(receiving).recv_header(&mut [0; 64]).unwrap();
    });
}

fn a_slow_peer_is_not_a_silent_one(world: &mut World) {
    world.config.io_silence_max = SILENCE;
    let (sending, receiving) = world.stream();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = sender(sending);
            for _ in 0..8 {
                from.send(vec![1; 8]).unwrap();
                from.flush().unwrap();
                thread::sleep(SILENCE * 2 / 3);
            }
        });
        receiver(receiving).recv_header(&mut [0; 64]).unwrap();
    });
}

fn a_peer_that_takes_nothing_is_noticed(world: &mut World) {
    world.config.io_silence_max = SILENCE;
    let (sending, _receiving) = world.stream();
    let mut from = sender(sending);
    let begun = Instant::now();
    let mut last = begun;
    let fault = loop {
        match from.send(vec![0; 256 << 10]) {
            Ok(_) => last = Instant::now(),
            Err(error) => break error.fault,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never noticed");
    };
    check_silence(&fault, last.elapsed());
}

fn a_stop_frees_who_is_blocked(world: &World) {
    let free = |link: PageLink, work: fn(PageLink) -> TransportFault| {
        let stop = link.stop_handle();
        thread::scope(|scope| {
            let blocked = scope.spawn(move || work(link));
            thread::sleep(Duration::from_millis(150));
            assert!(!blocked.is_finished());
            stop.stop();
            let (fault, took) = timed(|| blocked.join().unwrap());
            assert!(matches!(fault, TransportFault::Stopped), "{fault:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
        });
    };
    let (sending, receiving) = world.stream();
    free(sending, |link| {
        let mut from = sender(link);
        loop {
            if let Err(error) = from.send(vec![0; 256 << 10]) {
                return error.fault;
            }
        }
    });
    drop(receiving);
    let (_sending, receiving) = world.stream();
    free(receiving, |link| {
        let error = receiver(link).recv_header(&mut [0; 64]);
        error.unwrap_err().fault
    });
    let (_sending, receiving) = world.stream();
    free(receiving, |link| {
        let region = MmapRegion::<()>::new(4096).unwrap();
        let error = receiver(link).recv_into(&[region.as_volatile_slice()]);
        error.unwrap_err().fault
    });
}

fn frames_dropped_on_their_way_are_cut_off_and_let_go(world: &World) {
    let (sending, receiving) = world.stream();
    let (dropped, drops) = mpsc::channel();
    let stop = sending.stop_handle();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let sent = thread::spawn(move || {
        let mut from = sending.into_sender::<Inline>().unwrap();
        let mut sent = 0;
        loop {
            let frame = Inline {
                bytes: [7; 4096],
                _dropped: dropped.clone(),
            };
            sent += 1;
            counted.store(sent, Ordering::Relaxed);
            if from.send(frame).is_err() {
                return sent;
            }
        }
    });
    // Some are on their way, however busy the machine; soon the link is full.
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) <= 8 && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(100));
    stop.stop();
    let sent: usize = sent.join().unwrap();
    drop(receiving);
    assert!(sent > 8, "{sent} frames only");
    // Nobody holds a frame any more, so the channel ends.
    assert_eq!(
        drops.recv_timeout(Duration::from_secs(5)),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

fn strangers_disturb_nobody(world: &mut World) {
    world.config.newcomer_max = Duration::from_millis(400);
    world.config.newcomers_max = 24;
    let mut listener = world.listener();
    let endpoint = listener.endpoint().clone();
    let right = bind(2).frame(support::MIGRATION, limosa_wire::StreamIndex::new(0));
    let mut other_secret = bind(2);
    other_secret.secret = limosa_wire::StreamSecret::new([9; 16]);
    let other_id = limosa_wire::MigrationId::new([9; 16]);
    let first = limosa_wire::StreamIndex::new(0);
    let words: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"LM".to_vec(),
        b"LMSC".to_vec(),
        b"LMSF".to_vec(),
        right[..63].to_vec(),
        right[..right.len() - 1].to_vec(),
        bind(2).frame(other_id, first).to_vec(),
        other_secret.frame(support::MIGRATION, first).to_vec(),
        bind(3).frame(support::MIGRATION, first).to_vec(),
        [&right[..64], &[0; 18]].concat(),
        support::hello()[..30].to_vec(),
        Dice(5).bytes(100_000),
    ];
    let (result, took) = timed(|| {
        thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept_streams(&expected(2), &soon()));
            let mut strangers = Vec::new();
            for turn in 0..8 {
                for words in &words {
                    let mut stranger = Stranger::connect(&endpoint);
                    stranger.say(words);
                    strangers.push(stranger);
                }
                if turn == 3 {
                    strangers.push(dripping(&endpoint, &right, scope));
                }
            }
            let links = [1, 0].map(|stream| world.connect(&endpoint, stream, &bind(2)));
            let accepted = accepting.join().unwrap().unwrap();
            (links, accepted, strangers)
        })
    });
    let (links, accepted, strangers) = result;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let [second, first] = links;
    for (to, from) in accepted.into_iter().zip([first, second]) {
        sender(from).send(vec![3; 64]).unwrap();
        receiver(to).recv_header(&mut [0; 64]).unwrap();
    }
    // The next wait still finds those that were silent, and lets them go in time.
    let _ = listener.accept_control(&limosa_transport::Wait::at_most(Duration::from_secs(1)));
    let counts = listener.strangers();
    assert_eq!(counts.total(), strangers.len() as u64, "{counts:?}");
    assert!(counts.garbage >= 8 && counts.unbidden >= 8, "{counts:?}");
    assert!(counts.slow + counts.crowded_out >= 8, "{counts:?}");
    for mut stranger in strangers {
        assert!(stranger.is_dropped());
    }
}

/// A stranger that sends a right `Bind` frame so slowly that it never gets through.
fn dripping<'scope>(
    endpoint: &limosa_transport::Endpoint,
    frame: &[u8],
    scope: &'scope thread::Scope<'scope, '_>,
) -> Stranger {
    let stranger = Stranger::connect(endpoint);
    let mut hand = match &stranger {
        Stranger::Tcp(socket) => Stranger::Tcp(socket.try_clone().unwrap()),
        Stranger::Unix(socket) => Stranger::Unix(socket.try_clone().unwrap()),
    };
    let frame = frame.to_vec();
    scope.spawn(move || {
        for byte in frame {
            if hand.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    stranger
}

/// The body, once for a world.
macro_rules! conforms {
    ($name:ident, $net:expr, $io:expr) => {
        mod $name {
            use super::*;

            fn world() -> Option<World> {
                if let Err(reason) = probe_io($io) {
                    eprintln!("SKIPPED: {reason}");
                    return None;
                }
                Some(World::new($net, $io))
            }

            conforms! { @each
                frames_arrive_whole_and_in_order
                streams_come_in_the_order_of_their_numbers
                a_close_midway_is_told_from_one_between_frames
                a_peer_that_gives_up_is_a_reset
                silence_midway_is_noticed
                silence_between_frames_is_in_order
                a_slow_peer_is_not_a_silent_one
                a_peer_that_takes_nothing_is_noticed
                a_stop_frees_who_is_blocked
                frames_dropped_on_their_way_are_cut_off_and_let_go
                strangers_disturb_nobody
            }

            #[test]
            fn it_is_the_way_that_was_chosen() {
                let Some(world) = world() else { return };
                let (sending, receiving) = world.stream();
                let chosen = match $io {
                    IoChoice::Uring => PageIo::Uring,
                    _ => PageIo::Blocking,
                };
                assert_eq!(sender(sending).io(), chosen);
                assert_eq!(receiver(receiving).io(), chosen);
            }
        }
    };
    (@each $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                let Some(mut world) = world() else { return };
                super::$test(&mut world);
            }
        )*
    };
}

conforms!(tcp_v4_uring, Net::Tcp4, IoChoice::Uring);
conforms!(tcp_v4_blocking, Net::Tcp4, IoChoice::Blocking);
conforms!(tcp_v6_uring, Net::Tcp6, IoChoice::Uring);
conforms!(tcp_v6_blocking, Net::Tcp6, IoChoice::Blocking);
conforms!(unix_uring, Net::Unix, IoChoice::Uring);
conforms!(unix_blocking, Net::Unix, IoChoice::Blocking);
