//! Hands out slots: which regions there are, and which of their slots are free.

#![expect(unsafe_code, reason = "declares a written slot to hold a value, and owns a lazily made box")]

use std::{
    collections::BTreeSet,
    mem, ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

use crate::{
    error::{InitError, MemoryError, OsError},
    region::{Refusals, Region},
    sentinel::ForkSentinel,
    slot::{Place, Slot},
    stack::{WIPED_BYTES_INIT, on_stack_wiped_to},
    sys::page_bytes,
};

/// Whether keys must be locked in RAM, and excluded from dumps and from forked children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LockPolicy {
    /// Makes no key without the lock, without its exclusion from core dumps or without its
    /// wiping in a forked child, as far as the platform has these at all.
    Require,
    /// Asks for all protections and goes on without those that the system refuses. Says so
    /// once in the log and always in [`Stats`].
    #[default]
    Prefer,
    /// Asks for no lock; otherwise as `Prefer`.
    Off,
}

/// A source of protected slots. Cheap to clone; clones share their memory.
#[derive(Clone, Debug)]
pub struct Arena {
    shared: Arc<Shared>,
}

impl Arena {
    /// Makes an arena without memory; makes no system call.
    #[must_use]
    pub fn new(policy: LockPolicy) -> Self {
        let sentinel = AtomicPtr::new(ptr::null_mut());
        Self { shared: Arc::new(Shared { policy, sentinel, state: Mutex::default() }) }
    }

    /// Runs `make` on a stack that is wiped afterwards and moves its value into a slot.
    ///
    /// The slot is reserved first, so that no key is made which has no place. `make` takes
    /// secrets by reference: what it captured by value stays in the caller's frame, and so
    /// does its error.
    ///
    /// It does not compile for values that need a drop, or are larger than
    /// [`SLOT_BYTES`](crate::SLOT_BYTES) or aligned more than
    /// [`SLOT_ALIGN`](crate::SLOT_ALIGN):
    ///
    /// ```compile_fail
    /// # use claviger_memory::{Arena, LockPolicy};
    /// let arena = Arena::new(LockPolicy::Off);
    /// let slot = arena.try_init(|| Ok::<_, ()>(vec![7_u8; 32]));
    /// ```
    ///
    /// # Errors
    /// [`InitError::Memory`] if there is no memory for it or it lacks what the policy
    /// requires, [`InitError::Make`] with the error of `make`.
    pub fn try_init<T, E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Slot<T>, InitError<E>>
    where
        T: Send + Sync + 'static,
    {
        let mut place = self.shared.reserve().map_err(InitError::Memory)?;
        // The value never leaves the wiped stack but into its slot.
        on_stack_wiped_to::<_, _, WIPED_BYTES_INIT>(|| make().map(|value| place.write(value)))
            .map_err(InitError::Make)?;
        if place.is_wiped() {
            return Err(InitError::Memory(MemoryError::Forked));
        }
        // SAFETY: the value was written above, and `write` compiles only for a `T` that
        // needs no drop.
        Ok(unsafe { Slot::holding(place) })
    }

    /// Returns what is in use now; all zero in a forked child.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.shared.is_forked() { Stats::default() } else { self.shared.lock().stats() }
    }
}

/// What an [`Arena`] has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Slots that hold a value, or wait for one.
    pub slots: usize,
    /// Mappings, one empty one kept in reserve among them.
    pub regions: usize,
    /// Address space of the regions with their guard pages.
    pub mapped_bytes: usize,
    /// Bytes of slots locked in RAM.
    pub locked_bytes: usize,
    /// Bytes of slots that are not locked, because the policy is `Off` or the lock was refused.
    pub unlocked_bytes: usize,
    /// `Prefer` has gone on without the lock at least once.
    pub lock_refused: bool,
    /// The arena has gone on without the exclusion from core dumps at least once.
    pub dump_exclusion_refused: bool,
    /// The arena has gone on without the kernel's wiping in a forked child at least once. A
    /// child still gets [`Wiped`](crate::Wiped) from those slots, at the price of a system
    /// call per use, but their bytes are in its memory until it drops them.
    pub fork_wipe_refused: bool,
}

/// What the clones of an arena and its slots share.
#[derive(Debug)]
pub(crate) struct Shared {
    policy: LockPolicy,
    /// Made by the first reservation; null before. Not a `OnceLock`, on which a child would
    /// wait for ever if it was forked while another thread was filling it.
    sentinel: AtomicPtr<ForkSentinel>,
    state: Mutex<State>,
}

impl Shared {
    fn reserve(self: &Arc<Self>) -> Result<Place, MemoryError> {
        // Before the mutex, which in a child may be held by a thread that exists no more.
        if self.sentinel()?.is_forked() {
            return Err(MemoryError::Forked);
        }
        let (reserved, news) = {
            let mut state = self.lock();
            let before = state.refused;
            (state.reserve(self.policy), state.refused.since(before))
        };
        let place = reserved.map(|Reserved { cell, region, index, owner }| {
            Place::new(cell, Arc::clone(self), (region, index), owner)
        });
        // Outside the mutex, since a subscriber may ask for our stats.
        news.report();
        place
    }

    pub(crate) fn put_back(&self, region: usize, index: u32) {
        let failed = self.lock().put_back(region, index);
        if let Some(error) = failed {
            tracing::warn!(%error, "cannot return empty protected memory; it is kept for later keys");
        }
    }

    fn is_forked(&self) -> bool {
        let sentinel = self.sentinel.load(Ordering::Acquire);
        // SAFETY: null, or a box that `sentinel()` leaked and that `drop` frees, which has
        // exclusive access.
        unsafe { sentinel.as_ref() }.is_some_and(ForkSentinel::is_forked)
    }

    fn sentinel(&self) -> Result<&ForkSentinel, MemoryError> {
        let mut sentinel = self.sentinel.load(Ordering::Acquire);
        if sentinel.is_null() {
            let made = Box::into_raw(Box::new(ForkSentinel::new()?));
            let old = ptr::null_mut();
            sentinel = match self.sentinel.compare_exchange(old, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made,
                Err(theirs) => {
                    // SAFETY: it came from `into_raw` above and was shown to nobody.
                    drop(unsafe { Box::from_raw(made) });
                    theirs
                }
            };
        }
        // SAFETY: not null, so that it is a leaked box, freed by `drop` alone.
        Ok(unsafe { &*sentinel })
    }

    /// A panic while it was held leaves at worst a slot that nobody uses again.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let is_forked = self.is_forked();
        let state = mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        let sentinel = *self.sentinel.get_mut();
        if !sentinel.is_null() {
            // SAFETY: it came from `into_raw`, and nobody else has `self` any more.
            drop(unsafe { Box::from_raw(sentinel) });
        }
        if is_forked {
            // Another thread of the parent may have been changing it.
            mem::forget(state);
            return;
        }
        for region in state.regions.into_iter().flatten() {
            if let Err((region, error)) = region.unmap() {
                mem::forget(region);
                tracing::warn!(%error, "cannot return protected memory; it is wiped and lost");
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// A region keeps its place, which its slots know; places are used again.
    regions: Vec<Option<Region>>,
    /// The regions with a free slot. Taking the first one packs the keys, so that later
    /// regions become empty.
    open: BTreeSet<usize>,
    slots: usize,
    refused: Refusals,
}

struct Reserved {
    cell: crate::slot::Cell,
    region: usize,
    index: u32,
    owner: Option<crate::sys::ProcessId>,
}

impl State {
    fn reserve(&mut self, policy: LockPolicy) -> Result<Reserved, MemoryError> {
        let at = match self.open.first() {
            Some(&at) => at,
            None => self.grow(policy)?,
        };
        let taken = self.regions.get_mut(at).and_then(Option::as_mut).and_then(|region| {
            let (index, cell) = region.take()?;
            Some((Reserved { cell, region: at, index, owner: region.protection().owner }, region.is_full()))
        });
        let Some((reserved, is_full)) = taken else {
            // `open` names regions with a free slot only; were it wrong, forget the entry.
            self.open.remove(&at);
            return Err(MemoryError::Map(OsError::NO_MEMORY));
        };
        if is_full {
            self.open.remove(&at);
        }
        self.slots += 1;
        Ok(reserved)
    }

    /// Adds a region as large as all before together, within bounds.
    fn grow(&mut self, policy: LockPolicy) -> Result<usize, MemoryError> {
        let in_use = self.regions.iter().flatten().map(Region::data_bytes).sum::<usize>();
        let wanted = in_use.next_power_of_two().clamp(REGION_BYTES_MIN, REGION_BYTES_MAX);
        let region = self.map(wanted.max(page_bytes()), policy)?;
        self.refused = self.refused.or(region.protection().refused);
        let vacant = self.regions.iter().position(Option::is_none);
        let at = vacant.unwrap_or(self.regions.len());
        match self.regions.get_mut(at) {
            Some(place) => *place = Some(region),
            None => self.regions.push(Some(region)),
        }
        self.open.insert(at);
        Ok(at)
    }

    /// Maps a region of the wanted size, or a smaller one if only that can be locked.
    ///
    /// Once the lock was refused for the smallest, it is tried once per region and no more
    /// than that: the limit may have been raised, or locked regions returned.
    fn map(&self, wanted: usize, policy: LockPolicy) -> Result<Region, MemoryError> {
        let smallest = REGION_BYTES_MIN.max(page_bytes());
        let mut region = Region::map(wanted, policy);
        let mut bytes = wanted;
        while bytes > smallest && self.refused.lock.is_none() && is_lock_refused(&region) {
            bytes = (bytes / 2).max(smallest);
            let smaller = Region::map(bytes, policy);
            if is_lock_refused(&smaller) {
                discard(smaller);
            } else {
                if smaller.is_ok() {
                    discard(mem::replace(&mut region, smaller));
                }
                break;
            }
        }
        region
    }

    /// Takes a slot back and returns an empty region to the system.
    fn put_back(&mut self, at: usize, index: u32) -> Option<OsError> {
        let region = self.regions.get_mut(at)?.as_mut()?;
        region.put_back(index);
        let is_empty = region.is_empty();
        self.slots = self.slots.saturating_sub(1);
        self.open.insert(at);
        if is_empty { self.release_all_but_one() } else { None }
    }

    /// Unmaps the empty regions but the smallest, which spares the next key the calls.
    fn release_all_but_one(&mut self) -> Option<OsError> {
        let mut failed = None;
        let empty = |(at, region): (usize, &Option<Region>)| {
            let region = region.as_ref().filter(|region| region.is_empty())?;
            Some((region.data_bytes(), at))
        };
        let spare = self.regions.iter().enumerate().filter_map(empty).min();
        for (at, place) in self.regions.iter_mut().enumerate() {
            let is_spare = spare.is_some_and(|(_, spare)| spare == at);
            if is_spare || !place.as_ref().is_some_and(Region::is_empty) {
                continue;
            }
            match place.take().map(Region::unmap) {
                Some(Err((region, error))) => {
                    *place = Some(region);
                    failed = Some(error);
                }
                _ => {
                    self.open.remove(&at);
                }
            }
        }
        failed
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            slots: self.slots,
            lock_refused: self.refused.lock.is_some(),
            dump_exclusion_refused: self.refused.dump_exclusion.is_some(),
            fork_wipe_refused: self.refused.fork_wipe.is_some(),
            ..Stats::default()
        };
        for region in self.regions.iter().flatten() {
            stats.regions += 1;
            stats.mapped_bytes += region.mapped_bytes();
            if region.protection().locked {
                stats.locked_bytes += region.data_bytes();
            } else {
                stats.unlocked_bytes += region.data_bytes();
            }
        }
        stats
    }
}

impl Refusals {
    fn or(self, later: Self) -> Self {
        Self {
            lock: self.lock.or(later.lock),
            dump_exclusion: self.dump_exclusion.or(later.dump_exclusion),
            fork_wipe: self.fork_wipe.or(later.fork_wipe),
        }
    }

    /// Returns those that were not there before.
    fn since(self, before: Self) -> Self {
        let new = |now: Option<OsError>, before: Option<OsError>| now.filter(|_| before.is_none());
        Self {
            lock: new(self.lock, before.lock),
            dump_exclusion: new(self.dump_exclusion, before.dump_exclusion),
            fork_wipe: new(self.fork_wipe, before.fork_wipe),
        }
    }

    fn report(self) {
        if let Some(error) = self.lock {
            tracing::warn!(%error, "cannot lock keys in memory; they may be swapped out");
        }
        if let Some(error) = self.dump_exclusion {
            tracing::warn!(%error, "cannot exclude keys from core dumps");
        }
        if let Some(error) = self.fork_wipe {
            tracing::warn!(%error, "cannot have keys wiped on fork; a child's copy is refused by process id");
        }
    }
}

fn is_lock_refused(mapped: &Result<Region, MemoryError>) -> bool {
    match mapped {
        Ok(region) => region.protection().refused.lock.is_some(),
        Err(error) => matches!(error, MemoryError::Lock(_)),
    }
}

/// Unmaps a region that was never used; if the system refuses, address space is lost.
fn discard(region: Result<Region, MemoryError>) {
    if let Ok(region) = region {
        drop(region.unmap());
    }
}

/// Four of them make up the usual small limit of locked memory, 64 KiB.
const REGION_BYTES_MIN: usize = 16 * 1024;

/// A million keys take about 600 regions of it, of three mappings each; the kernel's limit
/// is 65530.
const REGION_BYTES_MAX: usize = 1024 * 1024;
