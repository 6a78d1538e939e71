//! Measures page streams over loopback: io_uring, blocking calls, and plain `write`/`read` as the
//! yardstick, turn by turn. It packs nothing: a frame is copied from a large memory and sent.
//!
//! `cargo run --release -p limosa-transport --example streams -- [mib=512] [turns=3] [net=tcp4]
//! [streams=1,2,4] [frame=64k,256k,1m] [io=uring,uring>blocking,blocking,plain] [cc=cubic]
//! [flight=4] [sndbuf=0] [rcvbuf=4194304]`; 0 leaves a buffer's size to the kernel, and `a>b`
//! sends by `a` and receives by `b`.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use limosa_transport::{
    Congestion, Endpoint, IoChoice, LinkConfig, Listener, PageLink, StreamsExpected, Wait,
    connect_stream,
};
use limosa_wire::{Bind, MigrationId, StreamIndex, StreamSecret};
use vm_memory::VolatileMemory as _;
use vm_memory::mmap::MmapRegion;

type Failure = Box<dyn Error + Send + Sync>;

const HEADER_BYTES: usize = 64;
/// What one stream's pages are read from and land in: more than the caches hold.
const MEMORY_BYTES: usize = 64 << 20;

struct Run {
    streams: u16,
    payload_bytes: usize,
    total_bytes: usize,
    config: LinkConfig,
    endpoint: Endpoint,
    flight: usize,
    receiving: IoChoice,
}

impl Run {
    fn frames(&self) -> usize {
        self.total_bytes / usize::from(self.streams) / self.payload_bytes
    }
}

/// What the command line says, as `key=value`.
struct Options(HashMap<String, String>);

impl Options {
    fn read() -> Self {
        let words = std::env::args().skip(1);
        let pair = |word: String| word.split_once('=').map(|(k, v)| (k.into(), v.into()));
        Self(words.filter_map(pair).collect())
    }

    fn word(&self, key: &str, default: &str) -> String {
        self.0
            .get(key)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, key: &str, default: usize) -> Result<usize, Failure> {
        Ok(self.word(key, &default.to_string()).parse()?)
    }

    fn config(&self) -> Result<LinkConfig, Failure> {
        let default = LinkConfig::default();
        let buffer = |key, default: Option<usize>| -> Result<_, Failure> {
            let bytes = self.number(key, default.unwrap_or(0))?;
            Ok((bytes > 0).then_some(bytes))
        };
        Ok(LinkConfig {
            congestion: match self.word("cc", "cubic").as_str() {
                "system" => Congestion::System,
                name => Congestion::Prefer(name.into()),
            },
            frames_in_flight_max: self.number("flight", default.frames_in_flight_max)?,
            send_buffer_bytes: buffer("sndbuf", default.send_buffer_bytes)?,
            receive_buffer_bytes: buffer("rcvbuf", default.receive_buffer_bytes)?,
            ..default
        })
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::read();
    let turns = options.number("turns", 3)?;
    let total_bytes = options.number("mib", 512)? << 20;
    let folder = tempfile::tempdir()?;
    let endpoint = match options.word("net", "tcp4").as_str() {
        "unix" => Endpoint::Unix(folder.path().join("streams.sock")),
        "tcp6" => "tcp://[::1]:0".parse()?,
        _ => "tcp://127.0.0.1:0".parse()?,
    };
    let config = options.config()?;
    let flight = config.frames_in_flight_max;
    println!("io             streams  frame     GiB/s: median   best  cpu s/GiB");
    for streams in options.word("streams", "1,2,4").split(',') {
        for frame in options.word("frame", "64k,256k,1m").split(',') {
            let ways = options.word("io", "uring,uring>blocking,blocking,plain");
            let mut rates: HashMap<&str, Vec<f64>> = HashMap::new();
            let mut costs: HashMap<&str, f64> = HashMap::new();
            for _ in 0..turns {
                for way in ways.split(',') {
                    let run = Run {
                        streams: streams.parse()?,
                        payload_bytes: bytes_of(frame)?,
                        total_bytes,
                        config: LinkConfig {
                            io: io_of(way.split('>').next().unwrap_or(way)),
                            ..config.clone()
                        },
                        endpoint: endpoint.clone(),
                        flight,
                        receiving: io_of(way.split('>').next_back().unwrap_or(way)),
                    };
                    let (seconds, cpu) = if way == "plain" {
                        plain(&run)?
                    } else {
                        links(&run)?
                    };
                    let gib = (run.frames() * run.payload_bytes * usize::from(run.streams)) as f64
                        / (1_u64 << 30) as f64;
                    rates.entry(way).or_default().push(gib / seconds);
                    *costs.entry(way).or_default() += cpu / gib / turns as f64;
                }
            }
            for way in ways.split(',') {
                let rates = rates.entry(way).or_default();
                rates.sort_by(f64::total_cmp);
                println!(
                    "{way:14} {streams:>7}  {frame:>5}  {:>13.2} {:>6.2}  {:>9.2}",
                    rates[rates.len() / 2],
                    rates.last().unwrap_or(&0.0),
                    costs[way]
                );
            }
        }
    }
    Ok(())
}

fn io_of(name: &str) -> IoChoice {
    match name {
        "uring" => IoChoice::Uring,
        _ => IoChoice::Blocking,
    }
}

fn bytes_of(text: &str) -> Result<usize, Failure> {
    let (digits, shift) = match text.strip_suffix('k') {
        Some(digits) => (digits, 10),
        None => (text.strip_suffix('m').unwrap_or(text), 20),
    };
    Ok(digits.parse::<usize>()? << shift)
}

/// User and system time of this process so far.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0.0))
        .sum();
    Ok(ticks / 100.0)
}

/// Each stream's memory, touched.
fn memory() -> Result<MmapRegion<()>, Failure> {
    let region = MmapRegion::new(MEMORY_BYTES)?;
    region
        .as_volatile_slice()
        .copy_from(&vec![1_u8; MEMORY_BYTES]);
    Ok(region)
}

/// Runs `send` and `receive` for every stream, each on a thread, and tells wall and CPU time, in
/// seconds.
fn race<S: Send, R: Send>(
    run: &Run,
    ends: Vec<(S, R)>,
    send: impl Fn(S, &MmapRegion<()>, &Run) -> Result<(), Failure> + Sync,
    receive: impl Fn(R, &MmapRegion<()>, &Run) -> Result<(), Failure> + Sync,
) -> Result<(f64, f64), Failure> {
    let start = Barrier::new(ends.len() * 2 + 1);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (sender, receiver) in ends {
            let (start, send, receive) = (&start, &send, &receive);
            threads.push(scope.spawn(move || {
                let memory = memory()?;
                start.wait();
                start.wait();
                let begun = Instant::now();
                send(sender, &memory, run).map(|()| begun)
            }));
            threads.push(scope.spawn(move || {
                let memory = memory()?;
                start.wait();
                start.wait();
                let begun = Instant::now();
                receive(receiver, &memory, run).map(|()| begun)
            }));
        }
        start.wait();
        let cpu = cpu_seconds()?;
        start.wait();
        let mut earliest = Instant::now();
        for thread in threads {
            // This thread may be the last to run on: theirs say when it began.
            earliest = earliest.min(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok((earliest.elapsed().as_secs_f64(), cpu_seconds()? - cpu))
    })
}

fn links(run: &Run) -> Result<(f64, f64), Failure> {
    let receiving = LinkConfig {
        io: run.receiving,
        ..run.config.clone()
    };
    let mut listener = Listener::bind(&run.endpoint, &receiving)?;
    let migration_id = MigrationId::new([1; 16]);
    let stream_count = run.streams;
    let secret = StreamSecret::new([2; 16]);
    let bind = Bind {
        secret,
        stream_count,
    };
    let wait = Wait::forever();
    let mut senders = Vec::new();
    for stream in 0..stream_count {
        let stream = StreamIndex::new(stream);
        let at = listener.endpoint();
        senders.push(connect_stream(
            at,
            &run.config,
            migration_id,
            stream,
            &bind,
            &wait,
        )?);
    }
    let expected = StreamsExpected {
        migration_id,
        secret,
        stream_count,
    };
    let receivers = listener.accept_streams(&expected, &wait)?;
    let ends = senders.into_iter().zip(receivers).collect();
    race(run, ends, send_frames, receive_frames)
}

fn send_frames(link: PageLink, memory: &MmapRegion<()>, run: &Run) -> Result<(), Failure> {
    let memory = memory.as_volatile_slice();
    let mut sender = link.into_sender::<Vec<u8>>()?;
    let fresh = || vec![0; HEADER_BYTES + run.payload_bytes];
    let mut free: Vec<_> = (0..=run.flight).map(|_| fresh()).collect();
    let mut at = 0;
    for _ in 0..run.frames() {
        let mut frame = match free.pop() {
            Some(frame) => frame,
            None => sender.reclaim()?.ok_or("a buffer is lost")?,
        };
        memory
            .subslice(at, run.payload_bytes)?
            .copy_to(&mut frame[HEADER_BYTES..]);
        free.extend(sender.send(frame)?);
        at = (at + run.payload_bytes) % MEMORY_BYTES;
    }
    Ok(sender.flush()?)
}

fn receive_frames(link: PageLink, memory: &MmapRegion<()>, run: &Run) -> Result<(), Failure> {
    let memory = memory.as_volatile_slice();
    let mut receiver = link.into_receiver()?;
    let mut at = 0;
    for _ in 0..run.frames() {
        receiver.recv_header(&mut [0; HEADER_BYTES])?;
        receiver.recv_into(&[memory.subslice(at, run.payload_bytes)?])?;
        at = (at + run.payload_bytes) % MEMORY_BYTES;
    }
    Ok(())
}

/// The same bytes by the standard library, over TCP.
fn plain(run: &Run) -> Result<(f64, f64), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ends = Vec::new();
    for _ in 0..run.streams {
        let sender = TcpStream::connect(listener.local_addr()?)?;
        if let Congestion::Prefer(name) = &run.config.congestion {
            socket2::SockRef::from(&sender).set_tcp_congestion(name.as_bytes())?;
        }
        ends.push((sender, (listener.accept()?.0, vec![1; MEMORY_BYTES])));
    }
    race(
        run,
        ends,
        |mut sender, memory, run| {
            let memory = memory.as_volatile_slice();
            let mut frame = vec![0; HEADER_BYTES + run.payload_bytes];
            let mut at = 0;
            for _ in 0..run.frames() {
                memory
                    .subslice(at, run.payload_bytes)?
                    .copy_to(&mut frame[HEADER_BYTES..]);
                sender.write_all(&frame)?;
                at = (at + run.payload_bytes) % MEMORY_BYTES;
            }
            Ok(())
        },
        |(mut receiver, mut memory), _, run| {
            let mut at = 0;
            for _ in 0..run.frames() {
                receiver.read_exact(&mut [0; HEADER_BYTES])?;
                receiver.read_exact(&mut memory[at..at + run.payload_bytes])?;
                at = (at + run.payload_bytes) % MEMORY_BYTES;
            }
            Ok(())
        },
    )
}
