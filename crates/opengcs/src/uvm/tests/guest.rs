//! A guest that speaks the bridge, and what its processes do.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opengcs_bridge::frame::Decoder;
use opengcs_bridge::guest::{Incoming, Session};
use opengcs_bridge::message::{ExecuteResponse, PlainResponse, Request, Response, WaitResponse};
use opengcs_bridge::{Failure, HResult};
use opengcs_machine::local::Dialer;
use opengcs_machine::{Exit, ExitReason, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::machine::Fake;

/// What the guest in memory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    Good,
    /// Boots and never dials.
    Silent,
    /// Its kernel panics.
    Panics,
    /// Speaks another version.
    WrongVersion,
    /// Says what no agent says.
    Babbles,
    /// Refuses every disk.
    RefusesDisks,
    /// Unmounts nothing.
    HoldsDisks,
    /// Refuses every disk, and lets go of a device only when asked for the second time.
    KeepsDevices,
    /// Does not power off when asked.
    Stubborn,
    /// Answers the negotiation and nothing after it.
    FallsSilent,
    /// Signals no process of the VM itself, as the agent in Go, and tells no signal in an exit code.
    Foreign,
}

pub(super) type Exits = Arc<Mutex<HashMap<u32, watch::Sender<Option<u32>>>>>;

#[derive(Clone)]
pub(super) struct RunningGuest {
    pub(super) kind: Guest,
    pub(super) ports: Arc<Mutex<HashMap<u32, Dialer>>>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    pub(super) changes: Arc<Mutex<Vec<String>>>,
    pub(super) processes: Exits,
}

impl RunningGuest {
    /// One bridge connection.
    pub(super) async fn serve(&self) {
        let Ok(stream) = Fake::dial(&self.ports, 0x4000_0000) else {
            return;
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        if self.kind == Guest::Babbles {
            let _ = writer.write_all(&[0xff; 64]).await;
        }
        let (answers, mut queue) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        let mut session = Session::new();
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 4096];
        loop {
            let count = tokio::select! {
                Some(bytes) = queue.recv() => {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                    continue;
                }
                count = reader.read(&mut buffer) => match count {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                },
            };
            let mut input = &buffer[..count];
            while let Some(mut frame) = decoder.decode(&mut input).unwrap() {
                if self.kind == Guest::WrongVersion {
                    let text = String::from_utf8(frame.body).unwrap();
                    frame.body = text.replace(":4", ":9").into_bytes();
                }
                match session.receive(&frame) {
                    Incoming::Reply(bytes) => answers.send(bytes).unwrap(),
                    Incoming::Request(ticket, request) => {
                        let (guest, answers) = (self.clone(), answers.clone());
                        tokio::spawn(async move {
                            if let Some(outcome) = guest.handle(*request).await {
                                let _ = answers.send(ticket.answer(outcome));
                            }
                        });
                    }
                }
            }
        }
    }

    async fn handle(&self, request: Request) -> Option<Result<Response, Failure>> {
        if self.kind == Guest::FallsSilent {
            return None;
        }
        Some(match request {
            Request::ExecuteProcess(request) => self.execute(request).await,
            Request::WaitForProcess(request) => {
                let exit = self
                    .processes
                    .lock()
                    .unwrap()
                    .get(&request.process_id)
                    .map(watch::Sender::subscribe);
                match exit {
                    Some(mut exit) => {
                        let code = exit.wait_for(Option::is_some).await.ok()?.unwrap();
                        Ok(Response::Exited(WaitResponse {
                            exit_code: code,
                            ..WaitResponse::default()
                        }))
                    }
                    None => Err(Failure::new(HResult::NOT_FOUND, "no such process")),
                }
            }
            Request::ModifySettings(request) => {
                let change = format!(
                    "{} {} {}",
                    request.change.request_type,
                    request.change.resource_type,
                    request.change.settings
                );
                let disk = change.contains("MappedVirtualDisk");
                let add = change.starts_with("Add");
                let mut changes = self.changes.lock().unwrap();
                let first = !changes.contains(&change);
                changes.push(change);
                match self.kind {
                    Guest::KeepsDevices if disk && add => {
                        Err(Failure::new(HResult::FAIL, "bad superblock"))
                    }
                    Guest::KeepsDevices if !add && !disk && first => {
                        Err(Failure::new(HResult::FAIL, "in use by the mount at /x"))
                    }
                    Guest::RefusesDisks if disk && add => {
                        Err(Failure::new(HResult::FAIL, "bad superblock"))
                    }
                    Guest::HoldsDisks if disk && !add => {
                        Err(Failure::new(HResult::FAIL, "busy: process 7 (sh)"))
                    }
                    _ => Ok(Response::Plain(PlainResponse::default())),
                }
            }
            Request::ShutdownGraceful(_) => {
                if self.kind != Guest::Stubborn {
                    self.exit
                        .send_replace(Some(Exit::new(ExitReason::PoweredOff, "")));
                }
                return None;
            }
            Request::SignalProcess(_) if self.kind == Guest::Foreign => {
                Err(Failure::new(HResult::SYSTEM_NOT_FOUND, ""))
            }
            _ => Err(Failure::new(HResult::NOT_IMPLEMENTED, "not served")),
        })
    }

    /// `cat`, `exit N`, `say WORDS`, `hang`, `slow` (to start), `die`, `exportSandbox -path PATH`, and for
    /// a foreign agent `kill -N PID`; else no such program.
    async fn execute(
        &self,
        request: opengcs_bridge::message::ExecuteRequest,
    ) -> Result<Response, Failure> {
        static NEXT: AtomicU32 = AtomicU32::new(100);
        let parameters = request.settings.process_parameters.0;
        let words: Vec<String> = if parameters.command_args.is_empty() {
            parameters
                .command_line
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        } else {
            parameters.command_args.clone()
        };
        if words.is_empty() {
            return Err(Failure::new(HResult::FAIL, "there is no command"));
        }
        let mut known = vec!["cat", "exit", "say", "hang", "slow", "die", "exportSandbox"];
        if self.kind == Guest::Foreign {
            known.push("kill");
        }
        if !known.contains(&words[0].as_str()) {
            return Err(Failure::new(
                HResult::FAIL,
                format!("{}: no such program", words[0]),
            ));
        }
        let stdio = request.settings.stdio;
        let dial = |port: u32| {
            (port != 0).then(|| {
                Fake::dial(&self.ports, port).map_err(|error| {
                    Failure::new(HResult::FAIL, format!("port {port:#x}: {error}"))
                })
            })
        };
        let stdin = dial(stdio.stdin).transpose()?;
        let stdout = dial(stdio.stdout).transpose()?;
        let stderr = dial(stdio.stderr).transpose()?;
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sender = watch::Sender::new(None);
        self.processes.lock().unwrap().insert(id, sender.clone());
        let machine = self.exit.clone();
        let streams = [stdin, stdout, stderr];
        if words[0] == "slow" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if words[0] == "kill" {
            let target: u32 = words[2].parse().unwrap();
            let processes = self.processes.lock().unwrap();
            processes[&target].send_replace(Some(u32::MAX));
        }
        tokio::spawn(async move {
            let code = act(&words, &parameters, streams, &machine).await;
            sender.send_replace(Some(code));
        });
        Ok(Response::Executed(ExecuteResponse {
            process_id: id,
            ..ExecuteResponse::default()
        }))
    }
}

async fn act(
    words: &[String],
    parameters: &opengcs_bridge::message::ProcessParameters,
    [stdin, mut stdout, mut stderr]: [Option<Stream>; 3],
    machine: &watch::Sender<Option<Exit>>,
) -> u32 {
    match words[0].as_str() {
        "cat" => {
            let (mut from, mut to) = (stdin.unwrap(), stdout.take().unwrap());
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
            0
        }
        "exit" => words[1].parse().unwrap(),
        "kill" => 0,
        "say" => {
            let said = format!("{} in {}\n", words[1], parameters.working_directory);
            stdout
                .as_mut()
                .unwrap()
                .write_all(said.as_bytes())
                .await
                .unwrap();
            let path = &parameters.environment["PATH"];
            stderr
                .as_mut()
                .unwrap()
                .write_all(path.as_bytes())
                .await
                .unwrap();
            0
        }
        "exportSandbox" => {
            let out = stdout.as_mut().unwrap();
            out.write_all(&[b't'; 100_000]).await.unwrap();
            if words[2].contains("bad") {
                let err = stderr.as_mut().unwrap();
                err.write_all(b"upper: no such folder\n").await.unwrap();
                return 1;
            }
            0
        }
        "die" => {
            machine.send_replace(Some(Exit::new(ExitReason::Killed(9), "")));
            std::future::pending().await
        }
        _ => std::future::pending().await,
    }
}
