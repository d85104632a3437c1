//! A host for one agent: its sockets, its bridge session, and the streams of processes.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use opengcs_bridge::{
    BRIDGE_PORT, FIRST_STDIO_PORT, Failure, LOG_PORT, WAIT_FOREVER,
    frame::{Decoder, Frame},
    host::{Incoming, RequestId, Session},
    message::{
        ExecuteRequest, ExecuteSettings, Nested, ProcessParameters, Request, RequestBase, Response,
        SignalOptions, SignalRequest, StdioPorts, WaitRequest,
    },
};

/// Longer than anything takes; a test that waits this long has failed.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub(crate) agent: Child,
    pub(crate) folder: tempfile::TempDir,
    bridge_listener: UnixListener,
    pub(crate) log: UnixListener,
    pub(crate) bridge: UnixStream,
    decoder: Decoder,
    unread: Vec<u8>,
    session: Session<()>,
    answers: HashMap<RequestId, Result<Response, Failure>>,
    next_port: u32,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

pub(crate) struct Streams {
    pub(crate) pid: u32,
    pub(crate) stdin: Option<UnixStream>,
    pub(crate) stdout: Option<UnixStream>,
    pub(crate) stderr: Option<UnixStream>,
}

impl Host {
    /// An agent whose bridge is connected and not negotiated.
    pub(crate) fn connected() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), &[])
    }

    /// The same with its sockets in a folder, and with more arguments.
    pub(crate) fn in_folder(folder: tempfile::TempDir, arguments: &[&OsStr]) -> Self {
        let listen = |port: u32| UnixListener::bind(folder.path().join(port.to_string())).unwrap();
        let bridge_listener = listen(BRIDGE_PORT);
        let log = listen(LOG_PORT);
        let agent = Command::new(env!("CARGO_BIN_EXE_gcs"))
            .args(["serve", "--unix"])
            .arg(folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let bridge = accept(&bridge_listener);
        Self {
            agent,
            folder,
            bridge_listener,
            log,
            bridge,
            decoder: Decoder::new(),
            unread: Vec::new(),
            session: Session::new(),
            answers: HashMap::new(),
            next_port: FIRST_STDIO_PORT,
        }
    }

    /// An agent that is ready for requests.
    pub(crate) fn negotiated() -> Self {
        let mut host = Self::connected();
        host.negotiate();
        host
    }

    pub(crate) fn negotiate(&mut self) {
        self.call(&Request::negotiate()).unwrap();
        assert!(self.session.is_negotiated());
    }

    /// Drops the bridge, and takes the next that the agent dials.
    pub(crate) fn reconnect(&mut self) {
        self.hang_up();
        self.take_bridge();
    }

    /// Drops the bridge.
    pub(crate) fn hang_up(&mut self) {
        self.bridge.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Takes the next bridge that the agent dials.
    pub(crate) fn take_bridge(&mut self) {
        self.bridge = accept(&self.bridge_listener);
        self.decoder = Decoder::new();
        self.unread.clear();
        self.session = Session::new();
        self.answers.clear();
    }

    pub(crate) fn send(&mut self, request: &Request) -> RequestId {
        let (id, bytes) = self.session.request(request, ()).unwrap();
        self.bridge.write_all(&bytes).unwrap();
        id
    }

    /// Sends a request whose answer is not looked at.
    pub(crate) fn send_unanswered(&mut self, request: &Request) {
        self.send(request);
    }

    pub(crate) fn call(&mut self, request: &Request) -> Result<Response, Failure> {
        let id = self.send(request);
        self.answer(id)
    }

    pub(crate) fn answer(&mut self, id: RequestId) -> Result<Response, Failure> {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            let frame = self.frame().expect("the bridge is open");
            match self.session.receive(&frame).unwrap() {
                Incoming::Response { id, response, .. } => {
                    self.answers.insert(id, response);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next frame, whatever it is; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut chunk = self.unread.as_slice();
            let frame = self.decoder.decode(&mut chunk).unwrap();
            self.unread = chunk.to_vec();
            if frame.is_some() {
                return frame;
            }
            let mut buffer = vec![0; 65_536];
            let size = self
                .bridge
                .read(&mut buffer)
                .ok()
                .filter(|size| *size > 0)?;
            self.unread.extend_from_slice(&buffer[..size]);
        }
    }

    pub(crate) fn listen(&mut self) -> (u32, UnixListener) {
        let port = self.next_port;
        self.next_port += 1;
        let path = self.folder.path().join(port.to_string());
        (port, UnixListener::bind(path).unwrap())
    }

    /// Starts a process with the streams that its parameters ask for.
    pub(crate) fn execute(&mut self, parameters: ProcessParameters) -> Result<Streams, Failure> {
        let mut listen = |wanted: bool| wanted.then(|| self.listen());
        let stdin = listen(parameters.create_stdin_pipe);
        let stdout = listen(parameters.create_stdout_pipe);
        let stderr = listen(parameters.create_stderr_pipe);
        let port = |listener: &Option<(u32, UnixListener)>| {
            listener.as_ref().map(|(port, _)| *port).unwrap_or_default()
        };
        let ports = StdioPorts {
            stdin: port(&stdin),
            stdout: port(&stdout),
            stderr: port(&stderr),
        };
        let pid = self.execute_at(parameters, ports)?;
        let stream =
            |listener: Option<(u32, UnixListener)>| listener.map(|(_, listener)| accept(&listener));
        Ok(Streams {
            pid,
            stdin: stream(stdin),
            stdout: stream(stdout),
            stderr: stream(stderr),
        })
    }

    pub(crate) fn execute_at(
        &mut self,
        parameters: ProcessParameters,
        stdio: StdioPorts,
    ) -> Result<u32, Failure> {
        match self.call(&Request::ExecuteProcess(ExecuteRequest {
            base: RequestBase::utility_vm(),
            settings: ExecuteSettings {
                process_parameters: Nested(parameters),
                stdio,
            },
        }))? {
            Response::Executed(executed) => Ok(executed.process_id),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn wait(&mut self, pid: u32) -> Result<u32, Failure> {
        let id = self.send(&wait(pid, WAIT_FOREVER));
        self.exit_code(id)
    }

    pub(crate) fn exit_code(&mut self, id: RequestId) -> Result<u32, Failure> {
        match self.answer(id)? {
            Response::Exited(exited) => Ok(exited.exit_code),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn signal(&mut self, process_id: u32, signal: i32) -> Result<Response, Failure> {
        self.call(&Request::SignalProcess(SignalRequest {
            base: RequestBase::utility_vm(),
            process_id,
            options: SignalOptions { signal },
        }))
    }

    /// Runs a shell script to its end: exit code, output, errors.
    pub(crate) fn run(&mut self, script: &str) -> (u32, String, String) {
        let streams = self.execute(shell(script)).unwrap();
        let stdout = text(streams.stdout.unwrap());
        let stderr = text(streams.stderr.unwrap());
        (self.wait(streams.pid).unwrap(), stdout, stderr)
    }
}

pub(crate) fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    stream
}

pub(crate) fn wait(process_id: u32, timeout_in_ms: u32) -> Request {
    Request::WaitForProcess(WaitRequest {
        base: RequestBase::utility_vm(),
        process_id,
        timeout_in_ms,
    })
}

pub(crate) fn command(words: &[&str]) -> ProcessParameters {
    ProcessParameters {
        command_args: words.iter().map(ToString::to_string).collect(),
        environment: [("PATH".to_owned(), "/bin:/usr/bin".to_owned())].into(),
        ..ProcessParameters::default()
    }
}

pub(crate) fn shell(script: &str) -> ProcessParameters {
    ProcessParameters {
        create_stdout_pipe: true,
        create_stderr_pipe: true,
        ..command(&["sh", "-c", script])
    }
}

pub(crate) fn text(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
