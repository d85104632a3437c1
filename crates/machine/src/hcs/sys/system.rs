//! Decides how compute systems and operations are owned, and how an operation is waited for.
//!
//! Handles are closed when their owners go. An operation's wait has an end; what is asked of the service
//! after that runs on, and its outcome is nobody's. The callback's context is a number: a call that comes
//! after its owner is gone finds nobody under it.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT, HCS_OPERATION, HCS_SYSTEM, HcsEventOptionNone, HcsEventServiceDisconnect,
    HcsEventSystemCrashReport, HcsEventSystemExited,
};
use windows_sys::core::PCWSTR;

use super::library::Library;
use super::wide;
use crate::error::Result;
use crate::hcs::outcome::{HResult, failure};

/// What the service tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The machine has ended; the document says why.
    Exited(String),
    /// The guest has crashed; the document says how.
    Crashed(String),
    /// The service itself is gone, and with it the machine.
    Disconnected,
}

type Hear = Arc<dyn Fn(News) + Send + Sync>;

static HEARERS: Mutex<Option<HashMap<usize, Hear>>> = Mutex::new(None);
static NEXT_HEARER: AtomicUsize = AtomicUsize::new(1);

/// How long one wait is at most: in between it is seen whether anybody still wants to know.
const TURN: Duration = Duration::from_millis(500);

/// All access, for a system that is opened to be ended.
const GENERIC_ALL: u32 = 0x1000_0000;

struct Operation<'a> {
    library: &'a Library,
    handle: HCS_OPERATION,
}

impl<'a> Operation<'a> {
    fn new(library: &'a Library) -> Self {
        // SAFETY: neither a context nor a callback is given.
        let handle = unsafe { (library.create_operation)(std::ptr::null(), None) };
        Self { library, handle }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle is open and ours, and is not used any more.
            unsafe { (self.library.close_operation)(self.handle) };
        }
    }
}

/// Begins an operation and waits for it, for at most `limit`, or until `gone`. Gives its result document.
fn operate(
    library: &Library,
    what: &str,
    limit: Duration,
    gone: Option<&AtomicBool>,
    begin: impl FnOnce(HCS_OPERATION) -> i32,
) -> Result<Option<String>> {
    let operation = Operation::new(library);
    if operation.handle.is_null() {
        return Err(failure(what, HResult::from_code(0x8007_000E), None));
    }
    let begun = HResult(begin(operation.handle));
    if begun.failed() {
        return Err(failure(what, begun, None));
    }
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let turn = left.min(TURN);
        let (began, milliseconds) = (Instant::now(), u32::try_from(turn.as_millis()).unwrap_or(0));
        let mut document = std::ptr::null_mut();
        // SAFETY: the operation is open and has been begun, and there is a place for the document.
        let ended = HResult(unsafe {
            (library.wait_for_operation_result)(operation.handle, milliseconds, &raw mut document)
        });
        // SAFETY: the service allocates the document by LocalAlloc and hands it over.
        let document = unsafe { wide::take(document) };
        if !ended.failed() {
            return Ok(document);
        }
        // A wait that took its whole turn is one that was not answered, whatever the code for that is. If
        // the failure came just then, the next turn has it at once.
        let waited = began.elapsed() >= turn;
        let given_up = gone.is_some_and(|gone| gone.load(Ordering::Relaxed));
        if waited && left > turn && !given_up {
            continue;
        }
        // Of no use where it has ended already, and no harm.
        // SAFETY: the operation is open.
        unsafe { (library.cancel_operation)(operation.handle) };
        tracing::debug!(
            what,
            code = format_args!("{:#010x}", ended.code()),
            ?document,
            "hyper-v says no"
        );
        return Err(failure(what, ended, document.as_deref()));
    }
}

/// A compute system that this process holds.
#[derive(Debug)]
pub(crate) struct System {
    library: Arc<Library>,
    handle: HCS_SYSTEM,
    hearer: usize,
    /// It has ended: no answer is waited for any more, but to the wish that it end.
    gone: AtomicBool,
}

// SAFETY: HCS's handles may be used from any thread, and from several at once.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

/// What can be asked of a system with a document, or without one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Start,
    ShutDown,
    Terminate,
    Properties,
}

impl System {
    /// Creates a system. `hear` is told its news, on a thread of the service's, and must not wait.
    pub(crate) fn create(
        library: &Arc<Library>,
        id: &str,
        document: &str,
        limit: Duration,
        hear: Hear,
    ) -> Result<Self> {
        let what = "cannot create the machine";
        let (id, document) = (wide::encode(id), wide::encode(document));
        let mut handle = std::ptr::null_mut();
        let created = operate(library, what, limit, None, |operation| {
            // SAFETY: both texts end with a zero, no descriptor means the default one, and there is a
            // place for the handle.
            unsafe {
                (library.create_compute_system)(
                    id.as_ptr(),
                    document.as_ptr(),
                    operation,
                    std::ptr::null(),
                    &raw mut handle,
                )
            }
        });
        // From here on a failure closes what there is.
        let mut system = Self {
            library: Arc::clone(library),
            handle,
            hearer: 0,
            gone: AtomicBool::new(false),
        };
        created?;
        system.listen(hear)?;
        Ok(system)
    }

    fn listen(&mut self, hear: Hear) -> Result<()> {
        self.hearer = NEXT_HEARER.fetch_add(1, Ordering::Relaxed);
        let mut hearers = HEARERS.lock().unwrap_or_else(PoisonError::into_inner);
        hearers
            .get_or_insert_with(HashMap::new)
            .insert(self.hearer, hear);
        drop(hearers);
        let context = std::ptr::without_provenance(self.hearer);
        // SAFETY: the system is open; the context is a number, which nobody follows.
        let set = HResult(unsafe {
            (self.library.set_compute_system_callback)(
                self.handle,
                HcsEventOptionNone,
                context,
                Some(heard),
            )
        });
        if set.failed() {
            return Err(failure("cannot watch the machine", set, None));
        }
        Ok(())
    }

    /// Asks something and waits for at most `limit`. Gives the result document.
    pub(crate) fn ask(
        &self,
        ask: Ask,
        options: Option<&str>,
        what: &str,
        limit: Duration,
    ) -> Result<Option<String>> {
        let function = match ask {
            Ask::Start => self.library.start_compute_system,
            Ask::ShutDown => self.library.shut_down_compute_system,
            Ask::Terminate => self.library.terminate_compute_system,
            Ask::Properties => self.library.get_compute_system_properties,
        };
        let gone = (!matches!(ask, Ask::Terminate)).then_some(&self.gone);
        let options = options.map(wide::encode);
        let options: PCWSTR = options.as_ref().map_or(std::ptr::null(), Vec::as_ptr);
        operate(&self.library, what, limit, gone, |operation| {
            // SAFETY: system and operation are open; the text ends with a zero, or null is no options.
            unsafe { function(self.handle, operation, options) }
        })
    }

    /// Changes something and waits for at most `limit`.
    pub(crate) fn modify(&self, document: &str, what: &str, limit: Duration) -> Result<()> {
        tracing::debug!(document, "the machine is changed");
        let document = wide::encode(document);
        let gone = Some(&self.gone);
        let modified = operate(&self.library, what, limit, gone, |operation| {
            // SAFETY: system and operation are open, the text ends with a zero, and the identity is ours.
            unsafe {
                (self.library.modify_compute_system)(
                    self.handle,
                    operation,
                    document.as_ptr(),
                    std::ptr::null(),
                )
            }
        });
        modified.map(drop)
    }

    /// Lets nobody wait for it any more.
    pub(crate) fn give_up(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Begins the end, and waits for nothing.
    pub(crate) fn terminate_now(&self) {
        let operation = Operation::new(&self.library);
        if !operation.handle.is_null() && !self.handle.is_null() {
            // SAFETY: both are open, and null is no options.
            unsafe {
                (self.library.terminate_compute_system)(
                    self.handle,
                    operation.handle,
                    std::ptr::null(),
                )
            };
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        if self.hearer != 0 {
            // SAFETY: the system is open, and no callback is one that is not called.
            unsafe {
                (self.library.set_compute_system_callback)(
                    self.handle,
                    HcsEventOptionNone,
                    std::ptr::null(),
                    None,
                )
            };
            let mut hearers = HEARERS.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = hearers.as_mut().and_then(|all| all.remove(&self.hearer));
            // What it holds may be the last of its kind, and its end is not for under the lock.
            drop(hearers);
            drop(gone);
        }
        // SAFETY: the handle is open and ours, and is not used any more.
        unsafe { (self.library.close_compute_system)(self.handle) };
    }
}

/// What the service calls.
unsafe extern "system" fn heard(event: *const HCS_EVENT, context: *const c_void) {
    let hearers = HEARERS.lock().unwrap_or_else(PoisonError::into_inner);
    let hear = hearers.as_ref().and_then(|all| all.get(&context.addr()));
    let hear = hear.cloned();
    drop(hearers);
    // SAFETY: the service gives an event that lives for the call, or nothing.
    let (Some(hear), Some(event)) = (hear, unsafe { event.as_ref() }) else {
        return;
    };
    // SAFETY: the event's text ends with a zero, or there is none.
    let data = unsafe { wide::decode(event.EventData) }.unwrap_or_default();
    #[allow(non_upper_case_globals, reason = "they are Microsoft's names")]
    let news = match event.Type {
        HcsEventSystemExited => News::Exited(data),
        HcsEventSystemCrashReport => News::Crashed(data),
        HcsEventServiceDisconnect => News::Disconnected,
        _ => return,
    };
    // A panic must not go through the service's frames.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hear(news)));
}

/// Lists machines, as a document.
pub(crate) fn enumerate(library: &Library, query: &str, limit: Duration) -> Result<Option<String>> {
    let query = wide::encode(query);
    operate(library, "cannot list machines", limit, None, |operation| {
        // SAFETY: the text ends with a zero, and the operation is open.
        unsafe { (library.enumerate_compute_systems)(query.as_ptr(), operation) }
    })
}

/// Ends a machine that another process has left.
pub(crate) fn end(library: &Arc<Library>, id: &str, limit: Duration) -> Result<()> {
    let what = format!("cannot end the machine {id} that an earlier process has left");
    let wide_id = wide::encode(id);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the text ends with a zero, and there is a place for the handle.
    let opened = HResult(unsafe {
        (library.open_compute_system)(wide_id.as_ptr(), GENERIC_ALL, &raw mut handle)
    });
    if opened.failed() {
        return Err(failure(&what, opened, None));
    }
    let system = System {
        library: Arc::clone(library),
        handle,
        hearer: 0,
        gone: AtomicBool::new(false),
    };
    system.ask(Ask::Terminate, None, &what, limit).map(drop)
}

/// Lets a machine use a file, or no longer.
pub(crate) fn access(
    library: &Library,
    id: &str,
    path: &std::path::Path,
    grant: bool,
) -> Result<()> {
    let (id, wide_path) = (wide::encode(id), wide::encode(path));
    let (function, verb) = if grant {
        (library.grant_vm_access, "let the machine use")
    } else {
        (library.revoke_vm_access, "take from the machine")
    };
    // SAFETY: both texts end with a zero.
    let code = HResult(unsafe { function(id.as_ptr(), wide_path.as_ptr()) });
    if code.failed() {
        return Err(failure(
            &format!("cannot {verb} {}", path.display()),
            code,
            None,
        ));
    }
    Ok(())
}
