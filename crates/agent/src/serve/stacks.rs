//! `DumpStacks`: what each thread of the agent is doing, as the kernel sees it.

use std::{fmt::Write as _, fs, path::Path};

/// The threads of this process: name, state, what they wait in, and their kernel stack.
pub(super) fn dump() -> String {
    let mut out = format!("gcs {}\n", std::process::id());
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        out.push_str("/proc/self/task is not readable\n");
        return out;
    };
    let mut threads: Vec<(u64, std::path::PathBuf)> = tasks
        .flatten()
        .filter_map(|task| Some((task.file_name().to_str()?.parse().ok()?, task.path())))
        .collect();
    threads.sort();
    for (id, path) in threads {
        let state = line(&path.join("status"), "State:");
        let call = read(&path.join("syscall"));
        let _ = writeln!(
            out,
            "\nthread {id} {} [{}] in {}, system call {}",
            read(&path.join("comm")),
            state,
            read(&path.join("wchan")),
            call.split(' ').next().unwrap_or_default()
        );
        let stack = read(&path.join("stack"));
        for frame in stack.lines() {
            let _ = writeln!(out, "    {frame}");
        }
    }
    out
}

fn read(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| "?".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
    )
}

fn line(path: &Path, name: &str) -> String {
    read(path)
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("?")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_thread_is_named() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("a-sleeper".to_owned())
            .spawn(move || {
                ready.send(()).unwrap();
                released.recv()
            })
            .unwrap();
        started.recv().unwrap();
        let text = super::dump();
        drop(release);
        let _ = thread.join();
        assert!(text.contains("a-sleeper"), "{text}");
    }
}
