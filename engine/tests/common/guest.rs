//! A guest for tests: memory, a thread that writes it, and faults on demand; and a host that takes
//! such guests in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use limosa::{
    DirtySource, GuestError, GuestMemory, Offer, SectionKind, Slowdown, SourceGuest, StateSection,
    TargetGuest, TargetHost, TargetPolicy,
};
use limosa_compat::HostCpu;
use limosa_dirty::VmmWrites;
use limosa_pages::MemoryMap;
use limosa_wire::EncodingSet;

use super::cpu::{guest_cpu, test_host};
use super::memory::{TestMemory, map_of, pattern};
use super::writer::Writer;

/// Two regions with a hole between them, neither of whole chunks, of 12 MiB in all.
pub(crate) fn test_map() -> MemoryMap {
    map_of(&[(0, 1000), (1600, 2100)])
}
/// Pages that hold data from the beginning; those behind, up to the end, were never touched.
pub(crate) const FILLED_PAGES: u64 = 900;
/// A page that nobody ever touches.
pub(crate) const ABSENT_PAGE: u64 = 3000;

/// What a guest does wrong, and what was done to it.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) fail_pause: AtomicBool,
    pub(crate) fail_export: AtomicBool,
    pub(crate) fail_prepare: AtomicBool,
    pub(crate) fail_restore: AtomicBool,
    pub(crate) fail_resume: AtomicBool,
    /// The guest sees another processor whenever it is asked again.
    pub(crate) change_cpu: AtomicBool,
    pub(crate) offers: AtomicU64,
    /// How long making a guest takes, in milliseconds.
    pub(crate) prepare_ms: AtomicU64,
    /// How large the state is, besides what it must have.
    pub(crate) state_bytes: AtomicU64,
    pub(crate) pauses: AtomicU64,
    pub(crate) resumes: AtomicU64,
    pub(crate) releases: AtomicU64,
    pub(crate) fail_slow: AtomicBool,
    /// How it was held back, in turn.
    pub(crate) slowdowns: Mutex<Vec<Slowdown>>,
}

impl Script {
    /// How the guest is held back now.
    pub(crate) fn slowdown(&self) -> Slowdown {
        self.slowdowns
            .lock()
            .unwrap()
            .last()
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn refuse_slowdowns(&self) {
        self.fail_slow.store(true, Ordering::SeqCst);
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (get(&self.pauses), get(&self.resumes), get(&self.releases))
    }
}

fn check(fails: &AtomicBool, what: &str) -> Result<(), GuestError> {
    if fails.load(Ordering::SeqCst) {
        return Err(GuestError::new(format!("{what} fails by wish")));
    }
    Ok(())
}

/// The guest, on either host.
pub(crate) struct TestGuest {
    writer: Writer,
    pub(crate) memory: Arc<TestMemory>,
    pub(crate) script: Arc<Script>,
}

impl TestGuest {
    fn empty(map: &MemoryMap, script: Arc<Script>) -> Self {
        let memory = TestMemory::new(map);
        Self {
            writer: Writer::new(Arc::clone(&memory)),
            memory,
            script,
        }
    }

    /// A guest that runs, with data in its first pages.
    pub(crate) fn running() -> Self {
        let guest = Self::empty(&test_map(), Arc::default());
        for page in 0..FILLED_PAGES {
            guest.memory.write(page, &pattern(page));
        }
        guest.go();
        guest
    }

    /// Starts the writing thread. A guest that has arrived waits for this, so that its memory can
    /// be compared.
    pub(crate) fn go(&self) {
        self.writer.let_run(true);
    }

    pub(crate) fn halt(&self) {
        self.writer.let_run(false);
    }

    /// Does it write its memory?
    pub(crate) fn runs(&self) -> bool {
        let before = *self.writer.steps.lock().unwrap();
        for _ in 0..500 {
            if *self.writer.steps.lock().unwrap() > before {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
            if !self.writer.runs.load(Ordering::Acquire) {
                return false;
            }
        }
        false
    }
}

fn section() -> SectionKind {
    SectionKind {
        name: "steps".into(),
        version: 1,
    }
}

fn filler() -> SectionKind {
    SectionKind {
        name: "filler".into(),
        version: 1,
    }
}

/// What a test guest tells of itself.
pub(crate) fn offer_of(map: &MemoryMap) -> Offer {
    Offer {
        cpu: guest_cpu(1_000_000).encode(),
        map: map.clone(),
        vcpu_count: 1,
        sections: vec![section(), filler()],
        stream_count: 1,
        encodings: EncodingSet::ALL,
        machine: "test".into(),
    }
}

impl SourceGuest for TestGuest {
    fn offer(&self) -> Result<Offer, GuestError> {
        let mut offer = offer_of(self.memory.map());
        let asked = self.script.offers.fetch_add(1, Ordering::SeqCst);
        if asked > 0 && self.script.change_cpu.load(Ordering::SeqCst) {
            offer.cpu = guest_cpu(1_000_001).encode();
        }
        Ok(offer)
    }

    fn memory(&self) -> Arc<dyn GuestMemory> {
        Arc::clone(&self.memory) as Arc<dyn GuestMemory>
    }

    fn dirty_source(&mut self) -> Result<Box<dyn DirtySource>, GuestError> {
        Ok(Box::new(VmmWrites::new(self.memory.recorder.clone())))
    }

    fn slow(&mut self, slowdown: Slowdown) -> Result<(), GuestError> {
        if self.script.fail_slow.load(Ordering::SeqCst) && slowdown != Slowdown::None {
            return Err(GuestError::new("this guest can't be held back"));
        }
        self.script.slowdowns.lock().unwrap().push(slowdown);
        Ok(())
    }

    fn pause(&mut self) -> Result<(), GuestError> {
        self.script.pauses.fetch_add(1, Ordering::SeqCst);
        self.halt();
        check(&self.script.fail_pause, "pause")
    }

    fn export_state(&mut self) -> Result<Vec<StateSection>, GuestError> {
        check(&self.script.fail_export, "export")?;
        let steps = *self.writer.steps.lock().unwrap();
        let mut sections = vec![StateSection {
            kind: section(),
            bytes: steps.to_le_bytes().to_vec(),
        }];
        let filler_bytes = self.script.state_bytes.load(Ordering::SeqCst).max(1) as usize;
        sections.extend(vec![0; filler_bytes].chunks(1 << 20).map(|bytes| {
            let (kind, bytes) = (filler(), bytes.to_vec());
            StateSection { kind, bytes }
        }));
        Ok(sections)
    }

    fn resume(&mut self) -> Result<(), GuestError> {
        self.script.resumes.fetch_add(1, Ordering::SeqCst);
        check(&self.script.fail_resume, "resume")?;
        self.go();
        Ok(())
    }

    fn release(&mut self) -> Result<(), GuestError> {
        self.script.releases.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl TargetGuest for TestGuest {
    fn memory(&self) -> Arc<dyn GuestMemory> {
        SourceGuest::memory(self)
    }

    fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), GuestError> {
        check(&self.script.fail_restore, "restore")?;
        let steps = sections.iter().find(|own| own.kind == section());
        let bytes = steps.and_then(|steps| steps.bytes.first_chunk());
        let bytes = bytes.ok_or_else(|| GuestError::new("the steps are missing"))?;
        *self.writer.steps.lock().unwrap() = u64::from_le_bytes(*bytes);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), GuestError> {
        self.script.resumes.fetch_add(1, Ordering::SeqCst);
        check(&self.script.fail_resume, "resume")
    }
}

/// What a host says of itself when it is asked for the second time.
#[derive(Clone, Default)]
pub(crate) enum Later {
    #[default]
    TheSame,
    /// The same, after so long.
    Slowly(Duration),
    Another(HostCpu),
    Fails,
    Panics,
}

/// A host that takes test guests in, and remembers the memory of the last.
pub(crate) struct TestHost {
    pub(crate) script: Arc<Script>,
    pub(crate) cpu: HostCpu,
    pub(crate) later: Later,
    /// How often it was asked what it can give.
    pub(crate) looks: AtomicU64,
    /// How often it was asked to make a guest.
    pub(crate) prepares: AtomicU64,
    last: Mutex<Weak<TestMemory>>,
}

impl Default for TestHost {
    fn default() -> Self {
        Self::of(test_host())
    }
}

impl TestHost {
    /// A host that can give this.
    pub(crate) fn of(cpu: HostCpu) -> Self {
        Self {
            script: Arc::default(),
            cpu,
            later: Later::TheSame,
            looks: AtomicU64::new(0),
            prepares: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    /// Does the memory of the last guest exist still?
    pub(crate) fn keeps_memory(&self) -> bool {
        self.last.lock().unwrap().strong_count() > 0
    }
}

impl TargetHost for TestHost {
    type Guest = TestGuest;

    fn policy(&self) -> Result<TargetPolicy, GuestError> {
        let mut host = self.cpu.clone();
        // Before it waits, when a source has come, and at the switchover.
        if self.looks.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            match self.later.clone() {
                Later::TheSame => {}
                Later::Slowly(wait) => std::thread::sleep(wait),
                Later::Another(other) => host = other,
                Later::Fails => return Err(GuestError::new("the kernel is gone")),
                Later::Panics => panic!("a host that panics by wish"),
            }
        }
        Ok(TargetPolicy {
            host,
            machine: "test".into(),
            memory_bytes_max: 1 << 30,
            vcpu_count_max: 4,
            stream_count_max: 64,
            sections: vec![section(), filler()],
        })
    }

    fn prepare(&mut self, offer: &Offer) -> Result<TestGuest, GuestError> {
        self.prepares.fetch_add(1, Ordering::SeqCst);
        let wait = self.script.prepare_ms.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(wait));
        check(&self.script.fail_prepare, "prepare")?;
        let script = Arc::clone(&self.script);
        let guest = TestGuest::empty(&offer.map, script);
        *self.last.lock().unwrap() = Arc::downgrade(&guest.memory);
        Ok(guest)
    }
}
