//! The control link: whole messages, early bytes, ends told apart, silence, stops. What messages
//! mean is not tested here.

mod support;

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use limosa_transport::{IoChoice, LinkRole, TransportFault, connect_control};
use limosa_wire::{KeepAlive, Message, MessageKind, SectionKind, State, StateSection};
use support::{Dice, Net, SILENCE, Stranger, World, soon, timed};

const NETS: [Net; 3] = [Net::Tcp4, Net::Tcp6, Net::Unix];

fn world(net: Net) -> World {
    World::new(net, IoChoice::Auto)
}

fn keep_alive(sequence: u64) -> Message {
    Message::KeepAlive(KeepAlive { sequence })
}

/// As much state as a message may carry.
fn state() -> Message {
    let section = |index: u16, byte: u8| StateSection {
        kind: SectionKind {
            name: format!("section-{index}"),
            version: 1,
        },
        bytes: vec![byte; 1 << 20],
    };
    let sections = (0..16).map(|index| section(index, index as u8)).collect();
    Message::State(State {
        cpu_digest: 7,
        sections,
    })
}

#[test]
fn messages_of_all_sizes_cross_in_both_directions() {
    for net in NETS {
        let ((mut writer, mut reader), target) = world(net).control();
        let (mut back, mut front) = target.split();
        let (envelope, body) = front.recv().unwrap();
        assert_eq!(envelope.kind, MessageKind::Hello);
        assert_eq!([&envelope.encode()[..], &body].concat(), support::hello());
        let messages = [keep_alive(1), state(), keep_alive(2)];
        thread::scope(|scope| {
            scope.spawn(|| {
                for message in &messages {
                    writer.send(&message.encode().unwrap()).unwrap();
                }
            });
            for message in &messages {
                let (envelope, body) = front.recv().unwrap();
                assert!(Message::decode(&envelope, &body).unwrap() == *message);
            }
        });
        back.send(&keep_alive(3).encode().unwrap()).unwrap();
        let (envelope, body) = reader.recv().unwrap();
        assert_eq!(Message::decode(&envelope, &body).unwrap(), keep_alive(3));
    }
}

#[test]
fn ends_are_told_apart() {
    let whole = keep_alive(1).encode().unwrap();
    for net in NETS {
        for (sent, missing) in [(0, None), (7, Some(13)), (23, Some(5))] {
            let ((mut writer, reader), target) = world(net).control();
            let (_back, mut front) = target.split();
            front.recv().unwrap();
            writer.send(&whole[..sent]).unwrap();
            drop((writer, reader));
            match (front.recv().err().unwrap().fault, missing) {
                (TransportFault::Closed, None) => {}
                (TransportFault::ClosedMidway { missing_bytes }, Some(missing)) => {
                    assert_eq!(missing_bytes, missing);
                }
                (other, _) => panic!("{net:?} after {sent} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn silence_is_in_order_between_messages_and_noticed_inside_one() {
    for net in NETS {
        let mut world = world(net);
        world.config.io_silence_max = SILENCE;
        let ((mut writer, _reader), target) = world.control();
        let (_back, mut front) = target.split();
        front.recv().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(SILENCE * 3);
                writer.send(&keep_alive(1).encode().unwrap()).unwrap();
                writer.send(&state().encode().unwrap()[..5000]).unwrap();
            });
            front.recv().unwrap();
            let (error, took) = timed(|| front.recv().err().unwrap());
            let fault = error.fault;
            assert!(matches!(fault, TransportFault::Silent { .. }), "{fault:?}");
            assert!(took < SILENCE * 2 + Duration::from_secs(3), "{took:?}");
            assert_eq!(error.link.role, LinkRole::Control);
        });
    }
}

#[test]
fn a_stop_frees_the_reader_and_the_writer() {
    for net in NETS {
        let (_source, target) = world(net).control();
        let stop = target.stop_handle();
        let (mut back, mut front) = target.split();
        front.recv().unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(move || front.recv().err());
            let state = state().encode().unwrap();
            let writer = scope.spawn(move || (0..100).find_map(|_| back.send(&state).err()));
            thread::sleep(Duration::from_millis(150));
            assert!(!reader.is_finished() && !writer.is_finished());
            stop.stop();
            for blocked in [reader, writer] {
                let (error, took) = timed(|| blocked.join().unwrap().unwrap());
                assert!(took < Duration::from_secs(2), "{took:?}");
                assert!(matches!(error.fault, TransportFault::Stopped), "{error}");
            }
        });
    }
}

#[test]
fn nothing_is_received_after_a_stop() {
    for net in NETS {
        let ((mut writer, _reader), target) = world(net).control();
        writer.send(&keep_alive(1).encode().unwrap()).unwrap();
        target.stop_handle().stop();
        let (_back, mut front) = target.split();
        // The `Hello` was read before; what came after it is not.
        front.recv().unwrap();
        let fault = front.recv().err().unwrap().fault;
        assert!(matches!(fault, TransportFault::Stopped), "{fault:?}");
    }
}

#[test]
fn a_server_of_another_kind_is_named_garbage() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let link = connect_control(&endpoint, &world(Net::Tcp4).config, &soon()).unwrap();
    let (mut other, _) = listener.accept().unwrap();
    other
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .unwrap();
    let (_writer, mut reader) = link.split();
    let error = reader.recv().err().unwrap();
    assert!(matches!(error.fault, TransportFault::Garbage(_)), "{error}");
    assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
}

#[test]
fn strangers_do_not_keep_a_source_out() {
    for net in NETS {
        let mut world = world(net);
        world.config.newcomers_max = 8;
        let mut listener = world.listener();
        let endpoint = listener.endpoint().clone();
        let hello = support::hello();
        let keep_alive = keep_alive(1).encode().unwrap();
        let mut wrong_body = hello.clone();
        *wrong_body.last_mut().unwrap() ^= 1;
        let words: [&[u8]; 6] = [
            b"",
            b"LMSC",
            &hello[..hello.len() - 1],
            &keep_alive,
            &wrong_body,
            &Dice(1).bytes(5000),
        ];
        let mut strangers: Vec<_> = (0..60)
            .map(|index| {
                let mut stranger = Stranger::connect(&endpoint);
                stranger.say(words[index % words.len()]);
                stranger
            })
            .collect();
        let link = connect_control(&endpoint, &world.config, &soon()).unwrap();
        let (mut writer, _reader) = link.split();
        writer.send(&hello).unwrap();
        let (accepted, took) = timed(|| listener.accept_control(&soon()).unwrap());
        // Nobody was waited for: a newcomer's time alone would be five seconds.
        assert!(took < Duration::from_secs(2), "{took:?}");
        let (_back, mut front) = accepted.split();
        assert_eq!(front.recv().unwrap().0.kind, MessageKind::Hello);
        let counts = listener.strangers();
        assert!(
            counts.garbage >= 30 && counts.crowded_out >= 20,
            "{counts:?}"
        );
        drop(listener);
        assert!(strangers.iter_mut().all(Stranger::is_dropped));
    }
}
