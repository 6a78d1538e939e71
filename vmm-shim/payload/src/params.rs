//! From what an operator wants of a guest to checked [`Params`]; it lays out the guest's memory but
//! does not write it.

use core::time::Duration;

use crate::plan::{Plan, PlanFault};
use crate::protocol::{
    FLAG_SERIAL, Fill, HOLE, MAPPED_END, PAGE_BYTES, PARAMS_MAGIC, Params, Pattern, Probe,
    REGIONS_MAX, RESERVED_END, Span, TOUCHED_ALL, VERSION,
};

/// Whether the boot processor prints on COM1 and takes commands from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serial {
    /// It never touches a port: every access would be an exit.
    Off,
    /// A dot per heartbeat; `V` verifies, `G` asks for the longest gap.
    On,
}

/// What a guest is to be. The defaults are one idle spinning vCPU in random memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSpec {
    /// RAM of the guest, ascending; see [`pc_memory`]. Must cover the first 16 MiB and some more.
    pub memory: Vec<Span>,
    /// vCPUs, 1..=8. Default 1.
    pub vcpu_count: u32,
    /// Content of touched memory. Default random.
    pub fill: Fill,
    /// Share of memory that is filled, 0..=100. Default 100.
    pub touched_percent: u32,
    /// The same in bytes, all regions together, instead of the percentage. Default none. The
    /// payload itself lies in the first 16 MiB and is not counted.
    pub touched_bytes: Option<u64>,
    /// Past the last address that the guest may have memory at. Default [`MAPPED_END`]; guests
    /// without page tables of their own may have it up to
    /// [`PLANNED_END`](crate::protocol::PLANNED_END).
    pub end_max: u64,
    /// Chooses content and random writes. Default 1.
    pub seed: u64,
    /// Bytes written again and again, over all vCPUs; rounded down to pages. Default 0.
    pub working_set_bytes: u64,
    /// Page writes per second over all vCPUs; 0, the default, writes nothing. What falls due during
    /// a stall of more than 1 ms is dropped, not caught up.
    pub dirty_pages_per_second: u64,
    /// Order of the writes. Default sequential.
    pub pattern: Pattern,
    /// How stalls are noticed. Default spin. Sleep needs an in-kernel local APIC.
    pub probe: Probe,
    /// Timer period of the sleeping probe, 200 us to 10 s. Default 1 ms.
    pub tick: Duration,
    /// Distance of two dots on the serial port, 200 us to 10 s. Default 5 ms.
    pub heartbeat: Duration,
    /// Frequency of the guest's time stamp counter in kHz. 0, the default, makes the guest measure
    /// it, which takes 20 ms and trusts the APIC timer to count nanoseconds.
    pub tsc_khz: u32,
    /// The serial port. Default off.
    pub serial: Serial,
}

/// Why no guest can be made of a [`GuestSpec`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParamsError {
    /// Less memory than the payload itself needs plus one page to fill.
    #[error("the guest's memory is too small: at least {needed_bytes} bytes from address 0")]
    MemoryTooSmall {
        /// End that the first region must exceed.
        needed_bytes: u64,
    },
    /// More regions than fit in the parameters.
    #[error("{count} memory regions, at most {REGIONS_MAX}")]
    TooManyRegions {
        /// Regions that would be filled.
        count: usize,
    },
    /// Memory above what this kind of guest can have.
    #[error("memory ends at {end:#x}, such a guest can have it up to {end_max:#x}")]
    MemoryTooHigh {
        /// Where it ends.
        end: u64,
        /// Where it may end.
        end_max: u64,
    },
    /// More is to be written than is touched at all.
    #[error("a working set of {working_bytes} bytes is larger than the {touched_bytes} touched")]
    WorkingSetTooLarge {
        /// Asked for.
        working_bytes: u64,
        /// Touched memory.
        touched_bytes: u64,
    },
    /// Pages are to be written, but there is less than one for each vCPU.
    #[error("a dirty rate needs a working set of at least one page for each vCPU")]
    WorkingSetTooSmall,
    /// Any other rule of [`Plan::new`].
    #[error("the guest would reject its parameters: {0:?}")]
    Rejected(PlanFault),
}

/// RAM of a PC with so many bytes: from address 0, around the hole below 4 GiB.
#[must_use]
pub fn pc_memory(bytes: u64) -> Vec<Span> {
    let low = bytes.min(HOLE.start);
    let mut memory = vec![Span { start: 0, end: low }];
    if bytes > low {
        memory.push(Span {
            start: HOLE.end,
            end: HOLE.end + (bytes - low),
        });
    }
    memory
}

impl GuestSpec {
    /// A spec with the defaults and the memory map of a PC.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory: pc_memory(memory_bytes),
            vcpu_count: 1,
            fill: Fill::Random,
            touched_percent: 100,
            touched_bytes: None,
            end_max: MAPPED_END,
            seed: 1,
            working_set_bytes: 0,
            dirty_pages_per_second: 0,
            pattern: Pattern::Sequential,
            probe: Probe::Spin,
            tick: Duration::from_millis(1),
            heartbeat: Duration::from_millis(5),
            tsc_khz: 0,
            serial: Serial::Off,
        }
    }

    /// Lays out the memory and checks everything that the guest would check.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn params(&self) -> Result<Params, ParamsError> {
        let working_pages = self.working_set_bytes / PAGE_BYTES;
        let counters = self.counters(working_pages);
        let regions = self.regions(counters.end.max(RESERVED_END))?;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let params = Params {
            magic: PARAMS_MAGIC,
            version: VERSION,
            vcpu_count: self.vcpu_count,
            fill: self.fill.number(),
            pattern: self.pattern.number(),
            probe: self.probe.number(),
            touched_parts: self.touched_parts(),
            flags: match self.serial {
                Serial::Off => 0,
                Serial::On => FLAG_SERIAL,
            },
            region_count: regions.1,
            seed: self.seed,
            working_set_bytes: working_pages * PAGE_BYTES,
            dirty_pages_per_second: self.dirty_pages_per_second,
            tick_ns: nanoseconds(self.tick),
            apic_counts_per_tick: nanoseconds(self.tick),
            tsc_khz: u64::from(self.tsc_khz),
            heartbeat_ns: nanoseconds(self.heartbeat),
            counters,
            regions: regions.0,
        };
        self.judge(&params)?;
        Ok(params)
    }

    /// The write counters lie between the payload and the memory to fill.
    fn counters(&self, working_pages: u64) -> Span {
        if self.pattern == Pattern::Sequential || working_pages == 0 {
            return Span::EMPTY;
        }
        let bytes = working_pages.saturating_mul(size_of::<u32>() as u64);
        let end = RESERVED_END
            .saturating_add(bytes)
            .div_ceil(PAGE_BYTES)
            .saturating_mul(PAGE_BYTES);
        Span {
            start: RESERVED_END,
            end,
        }
    }

    /// How much of each region is touched, in parts of [`TOUCHED_ALL`].
    fn touched_parts(&self) -> u32 {
        let percent = u64::from(self.touched_percent) * u64::from(TOUCHED_ALL) / 100;
        let parts = self.touched_bytes.map_or(percent, |bytes| {
            let all: u64 = self.memory.iter().copied().map(Span::bytes).sum();
            let parts = u128::from(bytes) * u128::from(TOUCHED_ALL);
            let parts = parts.div_ceil(u128::from(all.max(1)));
            u64::try_from(parts)
                .unwrap_or(u64::MAX)
                .min(u64::from(TOUCHED_ALL))
        });
        u32::try_from(parts).unwrap_or(u32::MAX)
    }

    fn regions(&self, floor: u64) -> Result<([Span; REGIONS_MAX], u32), ParamsError> {
        let too_small = ParamsError::MemoryTooSmall {
            needed_bytes: floor + PAGE_BYTES,
        };
        let first = self.memory.first().ok_or(too_small)?;
        if first.start != 0 || first.end < floor + PAGE_BYTES {
            return Err(too_small);
        }
        let end_max = self.end_max;
        if let Some(Span { end, .. }) = self.memory.iter().find(|span| span.end > end_max) {
            return Err(ParamsError::MemoryTooHigh { end: *end, end_max });
        }
        let mut regions = [Span::EMPTY; REGIONS_MAX];
        if self.memory.len() > regions.len() {
            return Err(ParamsError::TooManyRegions {
                count: self.memory.len(),
            });
        }
        for (into, span) in regions.iter_mut().zip(&self.memory) {
            *into = Span {
                start: span.start.max(floor),
                end: span.end,
            };
        }
        Ok((
            regions,
            u32::try_from(self.memory.len()).unwrap_or(u32::MAX),
        ))
    }

    fn judge(&self, params: &Params) -> Result<(), ParamsError> {
        let Err(fault) = Plan::new(params) else {
            return Ok(());
        };
        let idle = Params {
            working_set_bytes: 0,
            dirty_pages_per_second: 0,
            ..*params
        };
        match (fault, Plan::new(&idle)) {
            (PlanFault::WorkingSet, Ok(plan)) => {
                let touched_bytes = plan.touched_pages() * PAGE_BYTES;
                let working_bytes = params.working_set_bytes;
                if working_bytes > touched_bytes {
                    Err(ParamsError::WorkingSetTooLarge {
                        working_bytes,
                        touched_bytes,
                    })
                } else {
                    Err(ParamsError::WorkingSetTooSmall)
                }
            }
            _ => Err(ParamsError::Rejected(fault)),
        }
    }
}
