//! Decides how the device meets vhost-user: features, configuration space, kicks and interrupts.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringMutex, VringState, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::device::Device;
use super::host::Host;

#[cfg(test)]
mod tests;

const RX: usize = 0;
const TX: usize = 1;
/// rx, tx and event; the event queue only ever carries news of migrations, of which there are none.
const QUEUES: usize = 3;
const MAX_QUEUE_SIZE: usize = 1024;

/// The event of the device's own descriptors, after the queues' and the crate's own.
pub(crate) const HOST_EVENT: u16 = 4;

/// Turns in one go before the event loop sees to other things.
const TURNS: usize = 64;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringMutex<Memory>;

/// The vhost-user face of the device.
pub(crate) struct Backend {
    guest_cid: u64,
    host: Arc<Host>,
    device: Mutex<Option<Device>>,
    memory: Memory,
    vrings: OnceLock<[Vring; 2]>,
    /// A queue was stopped since the last turn.
    restarted: AtomicBool,
    stopped: AtomicBool,
}

impl Backend {
    pub(crate) fn new(guest_cid: u64, host: Arc<Host>, memory: Memory) -> io::Result<Self> {
        let device = Device::new(guest_cid, Arc::clone(&host))?;
        Ok(Self {
            guest_cid,
            host,
            device: Mutex::new(Some(device)),
            memory,
            vrings: OnceLock::new(),
            restarted: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    pub(crate) fn device(&self) -> MutexGuard<'_, Option<Device>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the worker's event loop.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.host.wake();
    }

    /// Turns until nothing is left to do.
    fn run(&self, rx: &Vring, tx: &Vring) {
        let mut device = self.device();
        let Some(device) = device.as_mut() else {
            return;
        };
        let memory = self.memory.memory();
        for _ in 0..TURNS {
            device.poll();
            let mut rx = rx.get_mut();
            let mut tx = tx.get_mut();
            if !(usable(&rx) && usable(&tx)) {
                return;
            }
            if self.restarted.swap(false, Ordering::AcqRel) && is_new(&rx) && is_new(&tx) {
                device.forget_guest();
            }
            let _ = tx.disable_notification();
            let turn = device.turn(&memory, rx.get_queue_mut(), tx.get_queue_mut());
            if turn.received {
                interrupt(&mut rx);
            }
            let size = tx.get_queue().size();
            if device.completions.used(turn.transmitted, size) {
                interrupt(&mut tx);
            }
            if turn.received || turn.transmitted > 0 {
                continue;
            }
            // Ask for kicks, then look once more: the guest may have acted in between.
            let more = (!turn.blocked && offers_more(&mut tx, &memory))
                || (turn.starved && offers_more(&mut rx, &memory));
            if !more {
                return;
            }
        }
        self.host.wake();
    }

    /// The guest's last words, transmitted but not taken when the queue was stopped.
    fn drain(&self) {
        let mut device = self.device();
        if let (Some(device), Some([_, tx])) = (device.as_mut(), self.vrings.get()) {
            let memory = self.memory.memory();
            let mut tx = tx.get_mut();
            let queue = tx.get_queue_mut();
            if queue.size() == 0 || queue.desc_table() == 0 {
                return;
            }
            let ready = queue.ready();
            queue.set_ready(true);
            for _ in 0..TURNS {
                if device.transmit(&memory, queue) == 0 {
                    break;
                }
            }
            queue.set_ready(ready);
        }
    }
}

/// Whether the driver has just set the queue up. After a mere pause it goes on where it was: both queues
/// being at their start then would take 65,536 packets each way, to the packet.
fn is_new(vring: &VringState<Memory>) -> bool {
    vring.get_queue().next_avail() == 0
}

/// Asks for kicks, and gives whether the guest has offered chains meanwhile. A guest that claims more than
/// the queue holds has broken it, and is not listened to until its driver begins anew.
fn offers_more(vring: &mut VringState<Memory>, memory: &GuestMemoryMmap) -> bool {
    if !vring.enable_notification().unwrap_or(false) {
        return false;
    }
    let queue = vring.get_queue();
    queue
        .avail_idx(memory, Ordering::Acquire)
        .is_ok_and(|index| index.0.wrapping_sub(queue.next_avail()) <= queue.size())
}

fn usable(vring: &VringState<Memory>) -> bool {
    vring.is_enabled() && vring.get_queue().ready()
}

fn interrupt(vring: &mut VringState<Memory>) {
    if vring.needs_notification().unwrap_or(true) {
        let _ = vring.signal_used_queue();
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn reset_device(&self) {
        if let Some(device) = self.device().as_mut() {
            device.forget_guest();
        }
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.guest_cid.to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        config.get(start..end).unwrap_or_default().to_vec()
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // `self.memory` is the same object.
        Ok(())
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        if usize::try_from(index) == Ok(TX) {
            self.drain();
        }
        self.restarted.store(true, Ordering::Release);
        Ok(())
    }

    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            // An error is this event loop's only way to an end that leaves no descriptor behind.
            return Err(io::ErrorKind::Interrupted.into());
        }
        if let [rx, tx, ..] = vrings {
            self.vrings.get_or_init(|| [rx.clone(), tx.clone()]);
            self.run(rx, tx);
        }
        Ok(())
    }
}

const _: () = assert!(RX == 0 && TX == 1 && QUEUES == 3);
