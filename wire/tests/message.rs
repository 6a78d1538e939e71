//! Control messages: there and back, and every way in which a damaged or hostile one is refused.

mod common;

use common::{decode_message, message, message_examples, reseal_message};
use limosa_wire::codec::{Codec, Writer};
use limosa_wire::limits::{self, BODY_BYTES_MAX};
use limosa_wire::{
    Abort, AbortReason, DecodeFault, ENVELOPE_BYTES, EncodeError, EncodingSet, Envelope, Message,
    MessageKind, Offer, ProtocolVersion, Reason, ReasonKind, Refuse, RoundEnd, SectionKind, State,
    StateSection, StreamSecret, StreamsBound, Verdict, checksum,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn a_message_comes_back_as_it_was(message in message()) {
        let bytes = message.encode().unwrap();
        prop_assert_eq!(decode_message(&bytes).unwrap().unwrap(), message);
    }

    #[test]
    fn a_body_that_ends_early_is_refused(
        message in message(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = message.encode().unwrap();
        prop_assume!(whole.len() > ENVELOPE_BYTES);
        let mut bytes = whole[..ENVELOPE_BYTES + cut.index(whole.len() - ENVELOPE_BYTES)].to_vec();
        prop_assert!(decode_message(&bytes).unwrap().is_err());
        // With honest length and checksum it is the fields that end too early.
        reseal_message(&mut bytes);
        let refused = decode_message(&bytes).unwrap().unwrap_err();
        let is_truncated = matches!(refused.what, DecodeFault::Truncated { .. });
        prop_assert!(is_truncated, "{refused}");
    }

    #[test]
    fn a_body_with_a_tail_is_refused(
        message in message(),
        tail in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut bytes = message.encode().unwrap();
        bytes.extend_from_slice(&tail);
        prop_assert!(decode_message(&bytes).unwrap().is_err());
        reseal_message(&mut bytes);
        let refused = decode_message(&bytes).unwrap().unwrap_err();
        let is_tail = match refused.what {
            DecodeFault::Tail { bytes } => bytes == tail.len(),
            // The bound of the kind comes first where no such body can be this long.
            DecodeFault::OutOfBounds { field, .. } => field == "body",
            _ => false,
        };
        prop_assert!(is_tail, "{refused}");
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode_message(&bytes).is_none_or(|decoded| decoded.is_err()));
    }

    #[test]
    fn what_a_random_body_decodes_to_is_that_body(
        kind in prop::sample::select(MessageKind::ALL),
        body in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..80),
    ) {
        let mut bytes = vec![0; ENVELOPE_BYTES];
        bytes[..4].copy_from_slice(b"LMSC");
        bytes[4] = if kind == MessageKind::Hello { 1 } else { 2 };
        bytes[6] = kind.number() as u8;
        bytes.extend_from_slice(&body);
        reseal_message(&mut bytes);
        if let Ok(message) = decode_message(&bytes).unwrap() {
            prop_assert_eq!(message.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    for (name, message) in message_examples() {
        let whole = message.encode().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                decode_message(&bytes).unwrap().is_err(),
                "bit {bit} of {name}"
            );
        }
    }
}

#[test]
fn the_envelope_says_what_is_wrong_with_it() {
    let whole = Message::StreamsBound(StreamsBound { stream_count: 4 })
        .encode()
        .unwrap();
    let damaged = |at: usize, byte: u8| {
        let mut front: [u8; ENVELOPE_BYTES] = whole[..ENVELOPE_BYTES].try_into().unwrap();
        front[at] = byte;
        let covered = [&front[..12], &front[16..]].concat();
        let crc = checksum(&covered).to_le_bytes();
        front[12..16].copy_from_slice(&crc);
        Envelope::decode(&front).unwrap_err()
    };
    assert!(matches!(damaged(0, b'X').what, DecodeFault::Magic { .. }));
    assert_eq!(damaged(4, 9).what, DecodeFault::Version { found: 9 });
    // The one version of a hello is no version of anything else.
    assert_eq!(damaged(4, 1).what, DecodeFault::Version { found: 1 });
    assert_eq!(damaged(4, 1).offset, 4);
    assert_eq!(
        damaged(6, 99).what,
        DecodeFault::Unknown {
            field: "message",
            found: 99
        }
    );
    let too_long = DecodeFault::OutOfBounds {
        field: "body",
        found: 3,
        min: 0,
        max: 2,
    };
    assert_eq!(damaged(8, 3).what, too_long);
    assert_eq!(damaged(8, 3).offset, 8);
    assert_eq!(
        damaged(8, 3).to_string(),
        "body is 3, not within 0 to 2, at byte 8"
    );
}

/// A length that promises more than is there, or more than is allowed, must be refused before
/// anything is allocated for it.
#[test]
fn hostile_lengths_are_refused() {
    for (name, message) in message_examples() {
        let whole = message.encode().unwrap();
        for at in ENVELOPE_BYTES..whole.len().saturating_sub(1) {
            let mut bytes = whole.clone();
            bytes[at..at + 2].fill(0xff);
            reseal_message(&mut bytes);
            if let Ok(decoded) = decode_message(&bytes).unwrap() {
                assert_eq!(
                    decoded.encode().unwrap(),
                    bytes,
                    "{name} with a changed byte {at}"
                );
            }
        }
    }
}

#[test]
fn every_number_stands_for_one_thing() {
    for kind in MessageKind::ALL {
        assert_eq!(MessageKind::from_number(kind.number()), Some(*kind));
        assert!(kind.body_bytes_max() <= BODY_BYTES_MAX);
    }
    let known = (0..=u16::MAX).filter_map(MessageKind::from_number);
    assert!(known.eq(MessageKind::ALL.iter().copied()));
    let known = (0..=u8::MAX).filter_map(AbortReason::from_number);
    assert!(known.eq(AbortReason::ALL.iter().copied()));
    let known = (0..=u8::MAX).filter_map(ReasonKind::from_number);
    assert!(known.eq(ReasonKind::ALL.iter().copied()));
}

fn section(bytes: usize) -> StateSection {
    let kind = SectionKind {
        name: "x".repeat(limits::SECTION_NAME_BYTES_MAX),
        version: 1,
    };
    StateSection {
        kind,
        bytes: vec![1; bytes],
    }
}

fn state_bytes(sizes: &[usize]) -> Result<Vec<u8>, EncodeError> {
    Message::State(State {
        cpu_digest: 0,
        sections: sizes.iter().copied().map(section).collect(),
    })
    .encode()
}

fn accepted(host_bytes: usize) -> Message {
    Message::Verdict(Verdict::Accepted {
        stream_count: 1,
        encodings: EncodingSet::ALL,
        secret: StreamSecret::new([1; 16]),
        host: vec![7; host_bytes],
        cpu_digest: u64::MAX,
    })
}

/// The bounds of bodies are reached exactly, so none is too tight and none too wide.
#[test]
fn the_largest_messages_reach_their_bounds() {
    let body = |bytes: &[u8]| bytes.len() - ENVELOPE_BYTES;
    let reason = Reason {
        kind: ReasonKind::Cpu,
        what: "x".repeat(limits::REASON_TEXT_BYTES_MAX),
        remedy: "y".repeat(limits::REASON_TEXT_BYTES_MAX),
    };
    let refused = |count| {
        Message::Verdict(Verdict::Refused {
            reasons: vec![reason.clone(); count],
        })
    };
    let largest = refused(limits::REASONS_MAX).encode().unwrap();
    assert_eq!(body(&largest), limits::VERDICT_BODY_BYTES_MAX);
    assert!(decode_message(&largest).unwrap().is_ok());
    assert!(refused(limits::REASONS_MAX + 1).encode().is_err());
    let refuse = |count| {
        Message::Refuse(Refuse {
            reasons: vec![reason.clone(); count],
        })
    };
    let largest = refuse(limits::REASONS_MAX).encode().unwrap();
    assert_eq!(body(&largest), limits::REFUSE_BODY_BYTES_MAX);
    assert!(decode_message(&largest).unwrap().is_ok());
    assert!(refuse(limits::REASONS_MAX + 1).encode().is_err());
    let largest = accepted(limits::CPU_BYTES_MAX).encode().unwrap();
    assert_eq!(body(&largest), limits::ACCEPTED_BODY_BYTES_MAX);
    assert!(decode_message(&largest).unwrap().is_ok());
    assert!(accepted(limits::CPU_BYTES_MAX + 1).encode().is_err());

    let full = limits::STATE_BYTES_MAX / limits::SECTION_BYTES_MAX;
    let mut sizes = vec![limits::SECTION_BYTES_MAX; full];
    sizes.resize(limits::SECTIONS_MAX, 0);
    let largest = state_bytes(&sizes).unwrap();
    assert_eq!(body(&largest), limits::STATE_BODY_BYTES_MAX);
    assert!(decode_message(&largest).unwrap().is_ok());
    sizes[full] = 1;
    assert!(state_bytes(&sizes).is_err());
    assert!(state_bytes(&[limits::SECTION_BYTES_MAX + 1]).is_err());
    assert!(state_bytes(&vec![0; limits::SECTIONS_MAX + 1]).is_err());

    let Some((_, Message::Offer(offer))) = message_examples().into_iter().nth(1) else {
        panic!("the second example is the offer");
    };
    let largest = largest_offer(&offer);
    let bytes = Message::Offer(largest.clone()).encode().unwrap();
    assert_eq!(body(&bytes), limits::OFFER_BODY_BYTES_MAX);
    assert!(decode_message(&bytes).unwrap().is_ok());
    let broken = |change: fn(&mut Offer)| {
        let mut offer = largest.clone();
        change(&mut offer);
        Message::Offer(offer).encode().unwrap_err()
    };
    broken(|offer| offer.cpu.push(0));
    broken(|offer| offer.sections.push(section(0).kind));
    broken(|offer| offer.machine.push('x'));
    broken(|offer| offer.machine.clear());
    broken(|offer| offer.machine = "kvm\n".into());
    broken(|offer| offer.stream_count = 0);
    broken(|offer| offer.stream_count = limits::STREAMS_MAX + 1);

    let frames = vec![0; usize::from(limits::STREAMS_MAX) + 1];
    let round = limosa_wire::Round::FIRST;
    assert!(
        Message::RoundEnd(RoundEnd {
            round,
            frames,
            pages: 0
        })
        .encode()
        .is_err()
    );
}

/// The sections' own bounds leave room for more than all may have, so the sum is judged too.
#[test]
fn more_state_than_may_cross_is_refused() {
    let full = limits::STATE_BYTES_MAX / limits::SECTION_BYTES_MAX;
    let mut writer = Writer::new();
    writer.u64(0);
    writer.u16(full as u16 + 1);
    for bytes in [vec![limits::SECTION_BYTES_MAX; full], vec![1]].concat() {
        section(bytes).encode(&mut writer).unwrap();
    }
    let body = writer.into_bytes();
    let envelope = Envelope {
        version: ProtocolVersion::CURRENT,
        kind: MessageKind::State,
        body_bytes: body.len() as u32,
        body_crc: checksum(&body),
    };
    assert!(body.len() <= limits::STATE_BODY_BYTES_MAX);
    let refused = Message::decode(&envelope, &body).unwrap_err();
    let max = limits::STATE_BYTES_MAX as u64;
    let too_much = DecodeFault::OutOfBounds {
        field: "state",
        found: max + 1,
        min: 0,
        max,
    };
    assert_eq!(refused.what, too_much);
}

fn largest_offer(offer: &Offer) -> Offer {
    use limosa_pages::{MemoryMap, PageIndex, PageRange, REGIONS_MAX};
    let region = |n: u64| PageRange::new(PageIndex::new(2 * n), PageIndex::new(2 * n + 1)).unwrap();
    Offer {
        cpu: vec![1; limits::CPU_BYTES_MAX],
        map: MemoryMap::new((0..REGIONS_MAX as u64).map(region).collect()).unwrap(),
        sections: vec![section(0).kind; limits::SECTIONS_MAX],
        machine: "m".repeat(limits::MACHINE_BYTES_MAX),
        ..offer.clone()
    }
}

/// An abort must reach the peer whatever its text is.
#[test]
fn a_text_is_cut_to_fit_and_made_readable() {
    let text = format!("\u{1b}[31mno\r\n{}", "é".repeat(2000));
    let sent = Message::Abort(Abort {
        reason: AbortReason::Kernel,
        text,
    });
    let bytes = sent.encode().unwrap();
    let Message::Abort(seen) = decode_message(&bytes).unwrap().unwrap() else {
        panic!("an abort came back as something else");
    };
    assert!(seen.text.starts_with(" [31mno  éé"));
    assert!(seen.text.len() > limits::ABORT_TEXT_BYTES_MAX - 2);
    assert!(seen.text.len() <= limits::ABORT_TEXT_BYTES_MAX);
}

#[test]
fn control_characters_and_broken_utf8_are_refused() {
    let abort = Abort {
        reason: AbortReason::Guest,
        text: "text".into(),
    };
    let whole = Message::Abort(abort).encode().unwrap();
    for byte in [0x1b, b'\n', 0, 0xff] {
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() = byte;
        reseal_message(&mut bytes);
        let refused = decode_message(&bytes).unwrap().unwrap_err();
        assert_eq!(
            refused.what,
            DecodeFault::Unreadable {
                field: "text of an abort"
            }
        );
        assert_eq!(refused.offset, 3);
    }
}

/// A host's description that is longer than any may be is refused before anything is allocated for
/// it, though the body's length would allow it.
#[test]
fn a_description_beyond_its_bound_is_refused() {
    let mut bytes = accepted(8).encode().unwrap();
    let at = ENVELOPE_BYTES + 1 + 2 + 4 + 16;
    bytes[at..at + 4].copy_from_slice(&(limits::CPU_BYTES_MAX as u32 + 1).to_le_bytes());
    bytes.resize(bytes.len() + limits::CPU_BYTES_MAX, 0);
    reseal_message(&mut bytes);
    let refused = decode_message(&bytes).unwrap().unwrap_err();
    let too_long = DecodeFault::OutOfBounds {
        field: "host",
        found: limits::CPU_BYTES_MAX as u64 + 1,
        min: 0,
        max: limits::CPU_BYTES_MAX as u64,
    };
    assert_eq!((refused.what, refused.offset), (too_long, 23));
}
