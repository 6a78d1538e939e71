//! All that a thread of a process guest is between two steps, and its form in bytes. Nothing of it
//! is on a stack, so it can be taken at any safe point and go on elsewhere.

use limosa_payload::content::scramble;
use limosa_payload::plan::Plan;
use limosa_payload::protocol::Params;
use limosa_payload::stats::CheckResult;
use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeError, DecodeFault, EncodeError, SectionKind, StateSection};
use zerocopy::{FromBytes, IntoBytes};

use crate::spec::VCPU_COUNT_MAX;
use crate::state::{StateError, open};

const PARAMS: &str = "process-params";
const THREADS: &str = "process-threads";

/// The sections that a process guest has.
pub(super) fn section_kinds() -> Vec<SectionKind> {
    let kind = |name: &str| SectionKind {
        name: name.into(),
        version: 1,
    };
    [PARAMS, THREADS].map(kind).to_vec()
}

/// A check that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Check {
    /// Pages of the thread's own that are done.
    pub(super) done: u64,
    /// When it began.
    pub(super) begun_ns: u64,
    /// What was found so far.
    pub(super) found: CheckResult,
}

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ThreadState {
    pub(super) index: u16,
    /// Own pages filled; the thread is at work once all are.
    pub(super) filled: u64,
    /// When the filling began; 0 before.
    pub(super) fill_begun_ns: u64,
    pub(super) random: u64,
    /// Next page of a sequential writer, among its own of the working set.
    pub(super) cursor: u64,
    /// Times that it went through all of them.
    pub(super) passes: u64,
    pub(super) writes: u64,
    /// The last command obeyed.
    pub(super) sequence: u64,
    /// The last time stamp.
    pub(super) last_ns: u64,
    pub(super) switchover: u64,
    /// When the next write is due, and the next tick.
    pub(super) due_ns: u64,
    pub(super) tick_ns: u64,
    pub(super) check: Option<Check>,
}

impl ThreadState {
    /// A thread that has done nothing yet.
    pub(super) fn new(index: u16, seed: u64) -> Self {
        Self {
            index,
            filled: 0,
            fill_begun_ns: 0,
            random: scramble(seed ^ (u64::from(index) + 1)) | 1,
            cursor: 0,
            passes: 0,
            writes: 0,
            sequence: 0,
            last_ns: 0,
            switchover: 0,
            due_ns: 0,
            tick_ns: 0,
            check: None,
        }
    }

    const fn numbers(&self) -> [u64; 11] {
        [
            self.filled,
            self.fill_begun_ns,
            self.random,
            self.cursor,
            self.passes,
            self.writes,
            self.sequence,
            self.last_ns,
            self.switchover,
            self.due_ns,
            self.tick_ns,
        ]
    }
}

impl Codec for ThreadState {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u16(self.index);
        self.numbers().iter().for_each(|number| writer.u64(*number));
        writer.u8(self.check.is_some().into());
        if let Some(check) = &self.check {
            writer.u64(check.done);
            writer.u64(check.begun_ns);
            writer.put(check.found.as_bytes());
        }
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut state = Self {
            index: reader.u16()?,
            filled: reader.u64()?,
            fill_begun_ns: reader.u64()?,
            random: reader.u64()?,
            cursor: reader.u64()?,
            passes: reader.u64()?,
            writes: reader.u64()?,
            sequence: reader.u64()?,
            last_ns: reader.u64()?,
            switchover: reader.u64()?,
            due_ns: reader.u64()?,
            tick_ns: reader.u64()?,
            check: None,
        };
        let field = "running check";
        state.check = match reader.u8()? {
            0 => None,
            1 => Some(Check {
                done: reader.u64()?,
                begun_ns: reader.u64()?,
                found: structure(reader)?,
            }),
            found => {
                let found = found.into();
                return Err(reader.error(DecodeFault::Unknown { field, found }));
            }
        };
        Ok(state)
    }
}

fn structure<T: FromBytes>(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
    let missing = size_of::<T>();
    let truncated = reader.error(DecodeFault::Truncated { missing });
    T::read_from_bytes(reader.take(missing)?).map_err(|_| truncated)
}

/// What the guest is to do and how far its threads are, as sections.
pub(super) fn encode(
    params: &Params,
    threads: &[ThreadState],
) -> Result<Vec<StateSection>, StateError> {
    let mut writer = Writer::new();
    let listed = writer.list("threads", threads, VCPU_COUNT_MAX.into());
    listed.map_err(|source| StateError::Encode {
        section: THREADS.into(),
        source,
    })?;
    let bytes = [params.as_bytes().to_vec(), writer.into_bytes()];
    let sections = section_kinds().into_iter().zip(bytes);
    Ok(sections
        .map(|(kind, bytes)| StateSection { kind, bytes })
        .collect())
}

/// The way back, with every number checked that leads to a page.
pub(super) fn decode(
    mut sections: Vec<StateSection>,
    vcpu_count: u16,
) -> Result<(Params, Vec<ThreadState>), StateError> {
    let (params, plan) = open(&mut sections, PARAMS, |reader| {
        let params: Params = structure(reader)?;
        let plan = Plan::new(&params).map_err(|fault| {
            let (field, found) = ("rule of the parameters", fault as u64);
            reader.error(DecodeFault::Unknown { field, found })
        })?;
        Ok((params, plan))
    })?;
    let threads: Vec<ThreadState> = open(&mut sections, THREADS, |reader| {
        reader.list("threads", VCPU_COUNT_MAX.into(), 2 + 11 * 8 + 1)
    })?;
    if let Some(section) = sections.pop() {
        return Err(StateError::Surplus { kind: section.kind });
    }
    let (found, expected) = (threads.len(), usize::from(vcpu_count));
    if found != expected || params.vcpu_count as usize != expected {
        return Err(StateError::VcpuCount { found, expected });
    }
    for (index, thread) in (0..).zip(&threads) {
        check(index, thread, &plan)?;
    }
    Ok((params, threads))
}

fn check(index: u16, thread: &ThreadState, plan: &Plan) -> Result<(), StateError> {
    let share = plan.share(index.into());
    let working = share.working.end - share.working.start;
    let wrong = |field, found, max| {
        let what = DecodeFault::OutOfBounds {
            field,
            found,
            min: 0,
            max,
        };
        Err(StateError::Decode {
            section: THREADS.into(),
            source: DecodeError { what, offset: 0 },
        })
    };
    if thread.index != index {
        return wrong("thread", thread.index.into(), index.into());
    }
    if thread.cursor > 0 && thread.cursor >= working {
        return wrong("cursor", thread.cursor, working);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::GuestSpec;

    fn sections() -> Vec<StateSection> {
        let mut spec = GuestSpec::new(64 << 20);
        spec.vcpu_count = 2;
        spec.workload.working_set_bytes = 1 << 20;
        let params = spec.params(1_000_000).expect("params");
        let mut threads = [ThreadState::new(0, 7), ThreadState::new(1, 7)];
        threads[0].cursor = 5;
        threads[1].check = Some(Check {
            done: 3,
            begun_ns: 4,
            found: CheckResult::default(),
        });
        encode(&params, &threads).expect("encode")
    }

    #[test]
    fn a_state_survives_its_bytes() {
        let (params, threads) = decode(sections(), 2).expect("decode");
        assert_eq!(threads[0].cursor, 5);
        assert_eq!(encode(&params, &threads).expect("encode"), sections());
    }

    #[test]
    fn what_is_cut_short_too_long_or_missing_is_refused() {
        for at in 0..sections().len() {
            for cut in 0..sections()[at].bytes.len() {
                let mut short = sections();
                short[at].bytes.truncate(cut);
                assert!(decode(short, 2).is_err(), "{at} {cut}");
            }
            let mut long = sections();
            long[at].bytes.push(0);
            assert!(decode(long, 2).is_err());
            let mut less = sections();
            less.remove(at);
            assert!(decode(less, 2).is_err());
        }
        assert!(decode(sections(), 1).is_err(), "another number of vCPUs");
    }

    #[test]
    fn a_flipped_bit_leads_to_no_page_outside_the_share() {
        for at in 0..sections().len() {
            for bit in 0..sections()[at].bytes.len() * 8 {
                let mut flipped = sections();
                flipped[at].bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok((params, threads)) = decode(flipped, 2) else {
                    continue;
                };
                let plan = Plan::new(&params).expect("checked");
                for (index, thread) in (0..).zip(&threads) {
                    let share = plan.share(index).working;
                    assert!(thread.cursor == 0 || thread.cursor < share.end - share.start);
                }
            }
        }
    }
}
