//! The library's functions, as Microsoft's `computecore.h` declares them, and three of the test's.

use std::ffi::c_void;
use std::io::Write as _;

use serde_json::Value;
use windows_sys::Win32::System::HostComputeSystem::{HCS_EVENT, HcsEventSystemExited};
use windows_sys::Win32::System::Memory::{LMEM_FIXED, LocalAlloc};

use crate::script::{Operation, double};

const TIMED_OUT: u32 = 0x8037_0118;

/// The GUID by which sockets of the machine are reached.
const RUNTIME_ID: &str = "c2a5a1de-0000-4000-8000-0123456789ab";

unsafe fn read(text: *const u16) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let mut length = 0;
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    let units = unsafe { std::slice::from_raw_parts(text, length) };
    // A double is strict: half a character would be a mistake of the caller's.
    Some(String::from_utf16(units).unwrap())
}

fn encode(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

unsafe fn hand_over(text: &str) -> *mut u16 {
    let units = encode(text);
    let place: *mut u16 = unsafe { LocalAlloc(LMEM_FIXED, units.len() * 2) }.cast();
    unsafe { std::ptr::copy_nonoverlapping(units.as_ptr(), place, units.len()) };
    place
}

fn tell_exit(document: &str) {
    let Some((callback, context)) = double(|double| double.callback) else {
        return;
    };
    let data = encode(document);
    let event = HCS_EVENT {
        Type: HcsEventSystemExited,
        EventData: data.as_ptr(),
        Operation: std::ptr::null_mut(),
    };
    type Callback = unsafe extern "system" fn(*const HCS_EVENT, *const c_void);
    let callback: Callback = unsafe { std::mem::transmute(callback) };
    unsafe { callback(&raw const event, std::ptr::without_provenance(context)) };
}

/// Records a call and settles its operation. Gives the code of the call itself.
unsafe fn call(
    name: &'static str,
    operation: *mut Operation,
    texts: &[Option<String>],
    usual: Option<String>,
) -> i32 {
    let (begin, exit, outcome) = double(|double| {
        double.note(name, texts);
        (
            double.begin(name),
            double.exit(name),
            double.outcome(name, usual),
        )
    });
    if begin < 0 {
        return begin;
    }
    let operation = unsafe { &*operation };
    if let Some(document) = exit {
        // As the service does: on a thread of its own.
        let telling = std::thread::spawn(move || tell_exit(&document));
        if !outcome.never {
            telling.join().unwrap();
        }
    }
    operation.settle(outcome);
    begin
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateOperation(
    _context: *const c_void,
    _callback: *const c_void,
) -> *mut Operation {
    double(|double| double.operations += 1);
    Box::into_raw(Box::default())
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCloseOperation(operation: *mut Operation) {
    double(|double| double.operations -= 1);
    drop(unsafe { Box::from_raw(operation) });
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCancelOperation(_operation: *mut Operation) -> i32 {
    double(|double| double.note("cancel", &[]));
    0
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsWaitForOperationResult(
    operation: *mut Operation,
    milliseconds: u32,
    document: *mut *mut u16,
) -> i32 {
    let Some((result, text)) = (unsafe { &*operation }).wait(milliseconds) else {
        return TIMED_OUT.cast_signed();
    };
    if let Some(text) = text {
        unsafe { *document = hand_over(&text) };
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCreateComputeSystem(
    id: *const u16,
    document: *const u16,
    operation: *mut Operation,
    _security: *const c_void,
    system: *mut *mut u8,
) -> i32 {
    let texts = unsafe { [read(id), read(document)] };
    let parsed: Value = serde_json::from_str(texts[1].as_deref().unwrap()).unwrap();
    let pipe = &parsed["VirtualMachine"]["Devices"]["ComPorts"]["0"]["NamedPipe"];
    double(|double| double.pipe = pipe.as_str().map(str::to_owned));
    let code = unsafe { call("create", operation, &texts, None) };
    if code >= 0 {
        double(|double| double.systems += 1);
        unsafe { *system = Box::into_raw(Box::new(0)) };
    }
    code
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsOpenComputeSystem(
    id: *const u16,
    _access: u32,
    system: *mut *mut u8,
) -> i32 {
    let begin = double(|double| {
        double.note("open", &[unsafe { read(id) }]);
        double.begin("open")
    });
    if begin >= 0 {
        double(|double| double.systems += 1);
        unsafe { *system = Box::into_raw(Box::new(0)) };
    }
    begin
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsCloseComputeSystem(system: *mut u8) {
    double(|double| {
        double.systems -= 1;
        double.note("close", &[]);
    });
    drop(unsafe { Box::from_raw(system) });
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsStartComputeSystem(
    _system: *mut u8,
    operation: *mut Operation,
    options: *const u16,
) -> i32 {
    let (console, pipe) = double(|double| (double.text("console"), double.pipe.clone()));
    if let (Some(console), Some(pipe)) = (console, pipe) {
        let mut pipe = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(pipe)
            .unwrap();
        pipe.write_all(console.as_bytes()).unwrap();
    }
    unsafe { call("start", operation, &[read(options)], None) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsShutDownComputeSystem(
    _system: *mut u8,
    operation: *mut Operation,
    options: *const u16,
) -> i32 {
    unsafe { call("shut_down", operation, &[read(options)], None) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsTerminateComputeSystem(
    _system: *mut u8,
    operation: *mut Operation,
    options: *const u16,
) -> i32 {
    unsafe { call("terminate", operation, &[read(options)], None) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGetComputeSystemProperties(
    _system: *mut u8,
    operation: *mut Operation,
    query: *const u16,
) -> i32 {
    let usual = format!(r#"{{"SystemType":"VirtualMachine","RuntimeId":"{RUNTIME_ID}"}}"#);
    unsafe { call("properties", operation, &[read(query)], Some(usual)) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsModifyComputeSystem(
    _system: *mut u8,
    operation: *mut Operation,
    document: *const u16,
    _identity: *const c_void,
) -> i32 {
    unsafe { call("modify", operation, &[read(document)], None) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsSetComputeSystemCallback(
    _system: *mut u8,
    _options: i32,
    context: usize,
    callback: usize,
) -> i32 {
    double(|double| {
        let begin = double.begin("callback");
        if begin >= 0 {
            double.callback = (callback != 0).then_some((callback, context));
        }
        begin
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsEnumerateComputeSystems(
    query: *const u16,
    operation: *mut Operation,
) -> i32 {
    unsafe { call("enumerate", operation, &[read(query)], Some("[]".into())) }
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsGrantVmAccess(id: *const u16, path: *const u16) -> i32 {
    let texts = unsafe { [read(id), read(path)] };
    double(|double| {
        double.note("grant", &texts);
        double.begin("grant")
    })
}

#[unsafe(no_mangle)]
unsafe extern "system" fn HcsRevokeVmAccess(id: *const u16, path: *const u16) -> i32 {
    let texts = unsafe { [read(id), read(path)] };
    double(|double| {
        double.note("revoke", &texts);
        double.begin("revoke")
    })
}

/// Takes the script from now on.
#[unsafe(no_mangle)]
unsafe extern "system" fn DoubleScript(script: *const u16) {
    let script = unsafe { read(script) }.unwrap();
    double(|double| double.set(&script));
}

/// Gives the report, whose memory is the caller's.
#[unsafe(no_mangle)]
unsafe extern "system" fn DoubleReport() -> *mut u16 {
    let report = double(|double| double.report());
    unsafe { hand_over(&report) }
}

/// Ends the machine, as its guest would.
#[unsafe(no_mangle)]
unsafe extern "system" fn DoubleExit(document: *const u16) {
    let document = unsafe { read(document) }.unwrap();
    std::thread::spawn(move || tell_exit(&document))
        .join()
        .unwrap();
}
