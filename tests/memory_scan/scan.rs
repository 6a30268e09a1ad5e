//! Searches the process's own memory for keys, without holding one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Half a key, masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needle(pub(crate) [u64; 2]);

/// How many bytes make up a needle.
const NEEDLE_BYTES: usize = 16;

/// What is searched for and what is found differ from it by this, so that a needle at rest is no
/// hit.
const PAD: u64 = 0x3c6e_f372_fe94_f82b;

pub(crate) fn mask(word: u64) -> u64 {
    word ^ black_box(PAD)
}

/// Where needles lie.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// In memory that is locked, not dumped and wiped on fork.
    pub(crate) protected: usize,
    /// Anywhere else: the areas' names.
    pub(crate) elsewhere: Vec<String>,
}

/// A part of the address space, as `/proc/self/smaps` describes it.
#[derive(Debug)]
struct Area {
    name: String,
    range: Range<usize>,
    is_writable: bool,
    is_protected: bool,
}

/// Searches all memory that the process can have written to.
pub(crate) fn scan(needles: &[Needle]) -> Hits {
    let sought = Sought::new(needles);
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0; BUFFER_BYTES];
    // What is read into it may be a hit: it is not searched itself, and wiped.
    let own = buffer.as_ptr().addr()..buffer.as_ptr().addr() + buffer.len();
    let mut hits = Hits::default();
    for area in areas().into_iter().filter(|area| area.is_writable) {
        for part in without(&area.range, &own) {
            let found = search(&memory, part, &mut buffer, &sought);
            if area.is_protected {
                hits.protected += found.len();
            } else {
                hits.elsewhere.extend(found.iter().map(|at| format!("{at:#x} in {}", area.name)));
            }
        }
    }
    buffer.fill(0);
    black_box(&buffer);
    hits
}

/// Returns the addresses of the needles in `part`.
fn search(memory: &File, part: Range<usize>, buffer: &mut [u8], sought: &Sought) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = part.start;
    while at < part.end {
        let bytes = buffer.len().min(part.end - at);
        let chunk = &mut buffer[..bytes];
        // The stack's guard gap, for one, is mapped and cannot be read.
        if memory.read_exact_at(chunk, at as u64).is_ok() {
            found.extend(sought.in_bytes(chunk).into_iter().map(|offset| at + offset));
        }
        // A needle across the border is found in the next chunk.
        at += if at + bytes < part.end { bytes - NEEDLE_BYTES + 1 } else { bytes };
    }
    found
}

/// Needles by their first half.
struct Sought(HashMap<u64, Vec<u64>>);

impl Sought {
    fn new(needles: &[Needle]) -> Self {
        let mut sought: HashMap<u64, Vec<u64>> = HashMap::new();
        for Needle([first, second]) in needles {
            sought.entry(*first).or_default().push(*second);
        }
        Self(sought)
    }

    fn in_bytes(&self, bytes: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        for start in (0..bytes.len()).step_by(PAGE_BYTES) {
            let page = &bytes[start..bytes.len().min(start + PAGE_BYTES + NEEDLE_BYTES - 1)];
            // Most of memory is zeros.
            if *page == ZEROS[..page.len()] {
                continue;
            }
            let hits = page.windows(NEEDLE_BYTES).enumerate().filter(|(_, window)| self.is(window));
            found.extend(hits.map(|(offset, _)| start + offset));
        }
        found
    }

    fn is(&self, window: &[u8]) -> bool {
        let word = |at: usize| mask(u64::from_le_bytes(window[at..at + 8].try_into().unwrap()));
        self.0.get(&word(0)).is_some_and(|seconds| seconds.contains(&word(8)))
    }
}

fn without(range: &Range<usize>, hole: &Range<usize>) -> [Range<usize>; 2] {
    let before = range.start..range.end.min(hole.start);
    let after = range.start.max(hole.end)..range.end;
    [before, after]
}

fn areas() -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some((start, end)) = words[0].split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).unwrap();
            areas.push(Area {
                name: words.get(5).unwrap_or(&"anonymous memory").to_string(),
                range: address(start)..address(end),
                is_writable: words[1].contains('w'),
                is_protected: false,
            });
        } else if words[0] == "VmFlags:" {
            let area = areas.last_mut().unwrap();
            area.is_protected = ["lo", "dd", "wf"].iter().all(|flag| words.contains(flag));
        }
    }
    areas
}

const BUFFER_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
static ZEROS: [u8; PAGE_BYTES + NEEDLE_BYTES] = [0; PAGE_BYTES + NEEDLE_BYTES];
