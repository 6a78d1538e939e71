//! The source's way: a guest's pages through a corridor, into buffers that nobody sends.

use std::sync::Arc;

use limosa_pages::{CHUNK_PAGES, ChunkIndex, ChunkPages};
use limosa_pipeline::{
    BufferPool, ChunkOwners, ChunkWork, Codec, Corridor, FrameBuf, GuestMemory, PackConfig,
    PackError, scan,
};
use limosa_wire::{EncodingSet, MigrationId, Round, StreamIndex};

use crate::guest::{Fill, Guest};
use crate::kernel::{Amount, KernelError, Load, Pass};
use crate::streams::StreamCount;

pub(crate) const MIGRATION: MigrationId = MigrationId::new([1; 16]);

/// Of a chunk's 512 pages, how many a planted slow-down works on twice: one in ten.
const PLANTED_PAGES: u16 = (CHUNK_PAGES / 10) as u16;

/// Lifts, packs and seals a guest's pages: each stream its own, all of them in each pass.
pub(crate) fn pack(
    amount: Amount,
    streams: StreamCount,
    (fill, config): (Fill, PackConfig),
) -> Result<Vec<(Pass, u64)>, KernelError> {
    let guest = Guest::new(streams.chunks_of_all(amount.chunk_count), fill)?;
    let lists = work_of(&guest, streams, amount.load);
    let owners = owners_of(&guest, streams);
    let each = streams.indices().zip(lists).map(|(stream, work)| {
        let mut corridor = corridor_of(&guest, (stream, &owners), &config)?;
        let mut round = Round::FIRST;
        let guest = Arc::clone(&guest);
        let writes = config.codec() == Codec::Delta;
        let pass = move || {
            round = round.next();
            if writes {
                // Of a page that was not written there is nothing to say.
                write_to(&guest, &work, round)?;
            }
            send(&mut corridor, round, &work, |frames| {
                core::hint::black_box(frames);
            })
        };
        Ok((Box::new(pass) as Pass, amount.chunk_count * CHUNK_PAGES))
    });
    each.collect()
}

/// All that the corridors make of a guest in its first round, stream by stream.
pub(crate) fn recorded(
    guest: &Arc<Guest>,
    streams: StreamCount,
    codec: Codec,
) -> Result<Vec<Vec<u8>>, KernelError> {
    let lists = work_of(guest, streams, Load::Plain);
    let owners = owners_of(guest, streams);
    let each = streams.indices().zip(lists).map(|(stream, work)| {
        let mut tape = Vec::new();
        let mut corridor = corridor_of(guest, (stream, &owners), &config_of(codec))?;
        send(&mut corridor, Round::FIRST, &work, |frames| {
            tape.extend_from_slice(frames);
        })?;
        Ok(tape)
    });
    each.collect()
}

/// Every page in the buffer, with one codec.
pub(crate) fn config_of(codec: Codec) -> PackConfig {
    PackConfig::new(codec, EncodingSet::ALL)
}

fn corridor_of(
    guest: &Arc<Guest>,
    (stream, owners): (StreamIndex, &Arc<ChunkOwners>),
    config: &PackConfig,
) -> Result<Corridor, KernelError> {
    let buffer = BufferPool::new(1, config).take();
    let buffer = buffer.ok_or(PackError::NoBuffer { stream })?;
    let memory = Arc::clone(guest) as Arc<dyn GuestMemory>;
    let owners = Arc::clone(owners);
    Ok(Corridor::new(
        memory, MIGRATION, stream, owners, config, buffer,
    ))
}

fn owners_of(guest: &Guest, streams: StreamCount) -> Arc<ChunkOwners> {
    Arc::new(ChunkOwners::new(guest.map(), streams.get()))
}

fn work_of(guest: &Guest, streams: StreamCount, load: Load) -> Vec<Vec<ChunkWork>> {
    let mut lists = scan(&guest.map().full_set(), guest.map(), streams.get());
    if load == Load::Planted {
        let mut pages = ChunkPages::EMPTY;
        pages.insert_run(0, PLANTED_PAGES);
        let with_more = |work: ChunkWork| [work, ChunkWork { pages, ..work }];
        for list in &mut lists {
            *list = list.iter().copied().flat_map(with_more).collect();
        }
    }
    lists
}

/// A word into each of the pages.
fn write_to(guest: &Guest, work: &[ChunkWork], round: Round) -> Result<(), KernelError> {
    for chunk in work {
        let first = chunk.chunk.get() * CHUNK_PAGES;
        guest.write_words((first, CHUNK_PAGES), round.get().into())?;
    }
    Ok(())
}

fn send(
    corridor: &mut Corridor,
    round: Round,
    work: &[ChunkWork],
    mut frames: impl FnMut(&[u8]),
) -> Result<(), KernelError> {
    let mut rearm = |_: ChunkIndex, _: &mut ChunkPages| Ok::<(), KernelError>(());
    let mut sink = |mut buffer: FrameBuf| {
        frames(buffer.bytes());
        buffer.clear();
        Ok::<_, KernelError>(buffer)
    };
    corridor.run_round(round, work, &mut rearm, &mut sink)?;
    Ok(())
}
