//! Decides what the guest does in this crate's tests: PID 1 of a machine that obeys the host over vsock.
//!
//! It loads the modules that `/modules/load` names, dials port 1000 of the host and takes commands there,
//! a line each. Built as a static program and put into an initrd by the tests.

#[cfg(target_os = "linux")]
fn main() {
    peer::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
#[allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's program: its panics are the test's failures, its output is the console"
)]
mod peer {
    use std::fs::File;
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::Shutdown;
    use std::path::Path;
    use std::time::Instant;

    use rustix::mount::{MountFlags, mount};
    use vsock::{VsockListener, VsockStream};

    const HOST: u32 = 2;
    const CONTROL: u32 = 1000;

    pub(super) fn main() {
        for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
            std::fs::create_dir_all(target).unwrap();
            let _ = mount(kind, target, kind, MountFlags::empty(), c"");
        }
        for path in std::fs::read_to_string("/modules/load").unwrap().lines() {
            let file = File::open(path).unwrap();
            if let Err(error) = rustix::system::finit_module(&file, c"", 0) {
                println!("peer: {path}: {error}");
            }
        }
        println!("peer: dialling");
        while let Next::Dial = controlled() {}
        println!("peer: the host has hung up");
        power_off();
    }

    enum Next {
        Dial,
        End,
    }

    /// Takes commands until the host hangs up, or the connection is lost with the driver.
    fn controlled() -> Next {
        let control = VsockStream::connect_with_cid_port(HOST, CONTROL).unwrap();
        let mut answers = control.try_clone().unwrap();
        for line in BufReader::new(control).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            if words == ["rebind"] {
                rebind().unwrap();
                return Next::Dial;
            }
            let answer = obey(&words).unwrap_or_else(|error| format!("error {error}"));
            writeln!(answers, "{answer}").unwrap();
        }
        Next::End
    }

    /// Takes the driver from the vsock device and gives it back.
    fn rebind() -> io::Result<()> {
        let driver = Path::new("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport");
        let device = std::fs::read_dir(driver)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.starts_with("virtio"))
            .ok_or_else(|| io::Error::other("no device"))?;
        std::fs::write(driver.join("unbind"), &device)?;
        std::fs::write(driver.join("bind"), &device)
    }

    fn power_off() {
        let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    }

    fn obey(words: &[&str]) -> io::Result<String> {
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let port = || number(1).and_then(|port| u32::try_from(port).ok()).unwrap();
        match words {
            // dial PORT MODE…: a connection to the host, on a thread of its own.
            ["dial", _, mode @ ..] => {
                let stream = VsockStream::connect_with_cid_port(HOST, port())?;
                let mode: Vec<String> = mode.iter().map(ToString::to_string).collect();
                std::thread::spawn(move || serve(stream, &mode));
                Ok("ok".to_owned())
            }
            // time PORT: how long a refused dial takes, in microseconds.
            ["time", ..] => {
                let start = Instant::now();
                let refused = VsockStream::connect_with_cid_port(HOST, port()).is_err();
                Ok(format!("{refused} {}", start.elapsed().as_micros()))
            }
            // listen PORT MODE…
            ["listen", _, mode @ ..] => {
                let listener = VsockListener::bind_with_cid_port(u32::MAX, port())?;
                let mode: Vec<String> = mode.iter().map(ToString::to_string).collect();
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        let (stream, mode) = (stream.unwrap(), mode.clone());
                        std::thread::spawn(move || serve(stream, &mode));
                    }
                });
                Ok("ok".to_owned())
            }
            // serial MODE…: the same over the port of a virtio-serial device.
            ["serial", mode @ ..] => {
                let port = std::fs::read_dir("/dev")?
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .find(|path| path.to_string_lossy().contains("/vport"))
                    .ok_or_else(|| io::Error::other("no port"))?;
                let port = File::options().read(true).write(true).open(port);
                let (mut port, mode) = (port?, mode.join(" "));
                std::thread::spawn(move || {
                    let mode: Vec<&str> = mode.split(' ').collect();
                    serial(&mut port, &mode).unwrap();
                });
                Ok("ok".to_owned())
            }
            ["disks"] => disks(),
            // head NAME: the first byte of a disk.
            ["head", name] => {
                let mut byte = [0];
                File::open(format!("/dev/{name}"))?.read_exact(&mut byte)?;
                Ok(byte[0].to_string())
            }
            // write NAME: a byte at the disk's start.
            ["write", name] => {
                let mut disk = File::options().write(true).open(format!("/dev/{name}"))?;
                disk.write_all(&[b'W'; 512])?;
                disk.sync_all()?;
                Ok("ok".to_owned())
            }
            // cat PATH: a file's first line.
            ["cat", path] => {
                let text = std::fs::read_to_string(path)?;
                Ok(text.lines().next().unwrap_or("").to_owned())
            }
            ["poweroff"] => {
                power_off();
                Ok(String::new())
            }
            ["panic"] => {
                std::fs::write("/proc/sysrq-trigger", "c")?;
                Ok(String::new())
            }
            ["stdout-then-poweroff", _, count] => {
                let mut stream = VsockStream::connect_with_cid_port(HOST, port())?;
                write_pattern(&mut stream, count.parse().unwrap(), 4096)?;
                power_off();
                Ok(String::new())
            }
            _ => Err(io::Error::other("what?")),
        }
    }

    /// `controller:lun name sectors ro`, a disk each, joined by commas.
    fn disks() -> io::Result<String> {
        let mut disks = Vec::new();
        for entry in std::fs::read_dir("/sys/class/scsi_device")? {
            let path = entry?.path();
            let address = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Ok(mut blocks) = std::fs::read_dir(path.join("device/block")) else {
                continue;
            };
            let Some(Ok(block)) = blocks.next() else {
                continue;
            };
            let read = |name| std::fs::read_to_string(block.path().join(name));
            let name = block.file_name().into_string().unwrap();
            let (size, ro) = (read("size")?, read("ro")?);
            disks.push(format!("{address} {name} {} {}", size.trim(), ro.trim()));
        }
        disks.sort();
        Ok(disks.join(","))
    }

    fn write_pattern(stream: &mut impl Write, mut left: usize, chunk: usize) -> io::Result<()> {
        // 251 is a prime, so that a lost or doubled block of any usual size shows.
        let pattern: Vec<u8> = (0..=250_u8).cycle().take(251 * 4096).collect();
        let mut at = 0;
        while left > 0 {
            let part = chunk.min(left).min(pattern.len() - at);
            stream.write_all(&pattern[at..at + part])?;
            at = (at + part) % pattern.len();
            left -= part;
        }
        Ok(())
    }

    fn serve(mut stream: VsockStream, mode: &[String]) {
        let mode: Vec<&str> = mode.iter().map(String::as_str).collect();
        let size = |word: &str| word.parse::<usize>().unwrap();
        let _ = match mode.as_slice() {
            // Sends back what comes, then closes.
            ["echo"] => {
                let mut from = stream.try_clone().unwrap();
                io::copy(&mut from, &mut stream).map(drop)
            }
            // source N CHUNK: sends N bytes, then closes.
            ["source", count, chunk] => write_pattern(&mut stream, size(count), size(chunk)),
            // linger N CHUNK: the same, with what comes unread and no time to close in.
            ["linger", count, chunk] => {
                let none = Some(std::time::Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&stream, none).unwrap();
                write_pattern(&mut stream, size(count), size(chunk))
            }
            // Closes its sending direction, then counts what comes until the end and prints the count.
            ["half"] => {
                stream.shutdown(Shutdown::Write).unwrap();
                count(&mut stream, 65536).map(|count| println!("peer: half {count}"))
            }
            // sink CHUNK: counts what comes until the end, and answers with the count.
            ["sink", chunk] => {
                let count = count(&mut stream, size(chunk)).unwrap();
                stream.write_all(format!("{count}\n").as_bytes())
            }
            // Answers 64 bytes with 64 bytes.
            ["ping"] => {
                let mut bytes = [0; 64];
                while stream.read_exact(&mut bytes).is_ok() {
                    stream.write_all(&bytes).unwrap();
                }
                Ok(())
            }
            // rtt N: N round trips from here; prints the median in microseconds.
            ["rtt", count] => {
                let mut times = Vec::new();
                let mut bytes = [0; 64];
                for _ in 0..size(count) {
                    let start = Instant::now();
                    stream.write_all(&bytes).unwrap();
                    stream.read_exact(&mut bytes).unwrap();
                    times.push(start.elapsed().as_micros());
                }
                times.sort_unstable();
                writeln!(
                    stream,
                    "{} {}",
                    times[times.len() / 2],
                    times[times.len() * 99 / 100]
                )
            }
            _ => Ok(()),
        };
    }

    /// A port has no end of file: both sides know how much comes.
    fn serial(port: &mut File, mode: &[&str]) -> io::Result<()> {
        let size = |word: &str| word.parse::<usize>().unwrap();
        match mode {
            ["source", count, chunk] => write_pattern(port, size(count), size(chunk)),
            ["sink", total, chunk] => {
                let mut limited = port.take(size(total) as u64);
                let count = count(&mut limited, size(chunk))?;
                limited
                    .into_inner()
                    .write_all(format!("{count}\n").as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn count(stream: &mut impl Read, chunk: usize) -> io::Result<usize> {
        let mut buffer = vec![0; chunk];
        let mut count = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(count),
                read => count += read,
            }
        }
    }
}
