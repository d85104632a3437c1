//! Decides how a descriptor chain of the guest's becomes checked slices of its memory.

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::packet::{HEADER_LEN, HEADER_LEN_U32, Header};

/// The slices of one packet, at most; Linux uses up to 19.
pub(crate) const MAX_CHAIN: usize = 64;

/// Appends the slices of one chain to `slices`, leaving out `skip` bytes at its start, which go to `head`.
/// Gives their length, or `None` for a chain that is not all of the one direction, too long, too short or
/// not in guest memory; then nothing is appended.
fn collect<'a>(
    mem: &'a GuestMemoryMmap,
    chain: DescriptorChain<&'a GuestMemoryMmap>,
    writable: bool,
    head: &mut Vec<VolatileSlice<'a>>,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Option<usize> {
    let start = slices.len();
    let mut skip = HEADER_LEN;
    let mut total = 0_usize;
    let take = || {
        for (index, descriptor) in chain.enumerate() {
            if index >= MAX_CHAIN || descriptor.is_write_only() != writable {
                return None;
            }
            let len = usize::try_from(descriptor.len()).ok()?;
            if len == 0 {
                continue;
            }
            let slice = GuestMemoryBackend::get_slice(mem, descriptor.addr(), len).ok()?;
            let part = skip.min(len);
            let (first, rest) = slice.split_at(part).ok()?;
            if part > 0 {
                head.push(first);
                skip -= part;
            }
            if !rest.is_empty() {
                total = total.checked_add(rest.len())?;
                slices.push(rest);
            }
        }
        (skip == 0).then_some(total)
    };
    let taken = take();
    if taken.is_none() {
        slices.truncate(start);
    }
    taken
}

/// A packet that the guest sends.
pub(crate) struct Outgoing {
    pub(crate) header: Header,
    /// Its payload: `slices` from here …
    pub(crate) first: usize,
    /// … to here.
    pub(crate) end: usize,
    /// The payload's length in bytes, whatever the header says.
    pub(crate) payload: usize,
}

/// Reads a transmitted chain: the header by value (it could change under us), the payload as slices.
pub(crate) fn outgoing<'a>(
    mem: &'a GuestMemoryMmap,
    chain: DescriptorChain<&'a GuestMemoryMmap>,
    slices: &mut Vec<VolatileSlice<'a>>,
) -> Option<Outgoing> {
    let mut head = Vec::with_capacity(2);
    let first = slices.len();
    let payload = collect(mem, chain, false, &mut head, slices)?;
    let mut bytes = [0; HEADER_LEN];
    let mut at = 0;
    for slice in head {
        let end = at + slice.len();
        slice.copy_to(bytes.get_mut(at..end)?);
        at = end;
    }
    Some(Outgoing {
        header: Header::parse(&bytes),
        first,
        end: slices.len(),
        payload,
    })
}

/// A buffer that the guest offers for a packet of ours.
pub(crate) struct Buffer<'a> {
    pub(crate) head_index: u16,
    head: Vec<VolatileSlice<'a>>,
    /// Bytes of payload it can take.
    pub(crate) capacity: usize,
}

impl<'a> Buffer<'a> {
    /// Reads a receive chain, appending the room for payload to `slices`.
    pub(crate) fn new(
        mem: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
        slices: &mut Vec<VolatileSlice<'a>>,
    ) -> Option<Self> {
        let mut head = Vec::with_capacity(2);
        let head_index = chain.head_index();
        let capacity = collect(mem, chain, true, &mut head, slices)?;
        Some(Self {
            head_index,
            head,
            capacity,
        })
    }

    /// Writes the packet's header and gives the bytes the chain now holds.
    pub(crate) fn finish(&self, header: &Header) -> u32 {
        let bytes = header.encode();
        let mut at = 0;
        for slice in &self.head {
            let end = (at + slice.len()).min(HEADER_LEN);
            if let Some(part) = bytes.get(at..end) {
                slice.copy_from(part);
            }
            at = end;
        }
        header.len.saturating_add(HEADER_LEN_U32)
    }
}
