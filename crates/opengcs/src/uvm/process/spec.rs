//! What is to be run in the VM, and whether it makes sense.

use std::collections::BTreeMap;

use opengcs_bridge::message::{ConsoleSize, OciProcess, OciRlimit, OciUser, ProcessParameters};

use crate::error::{Error, ErrorKind, Result};
use crate::uvm::shortened;

/// The folders in which programs are looked for, as the seed has them.
pub(super) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USUAL_FOLDER: &str = "/bin";

/// What to run in the VM.
///
/// The environment is `PATH` with the usual folders, the working directory `/bin` (in a container:
/// `/`); all three streams are connected. It runs as root, and ends with its [`Process`](super::Process) handle.
///
/// ```
/// use opengcs::ProcessSpec;
///
/// let by_words = ProcessSpec::new(["sh", "-c", "echo $GREETING"]).env("GREETING", "hello");
/// let by_line = ProcessSpec::line("ls -l '/my folder'");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    words: Words,
    environment: BTreeMap<String, String>,
    folder: Option<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
    size: ConsoleSize,
    user: Option<String>,
    no_new_privileges: bool,
    limits: Vec<OciRlimit>,
    pub(super) kill_on_drop: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Words {
    Line(String),
    List(Vec<String>),
}

impl ProcessSpec {
    fn of(words: Words) -> Self {
        Self {
            words,
            environment: BTreeMap::from([("PATH".to_owned(), USUAL_PATH.to_owned())]),
            folder: None,
            stdin: true,
            stdout: true,
            stderr: true,
            terminal: false,
            size: ConsoleSize::default(),
            user: None,
            no_new_privileges: false,
            limits: Vec::new(),
            kill_on_drop: true,
        }
    }

    /// A program and its arguments. No shell is between.
    pub fn new<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::of(Words::List(words.into_iter().map(Into::into).collect()))
    }

    /// A command line, which the agent splits into words as a shell would. No shell runs.
    pub fn line(command_line: impl Into<String>) -> Self {
        Self::of(Words::Line(command_line.into()))
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Takes every variable away, `PATH` too.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.environment.clear();
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<String>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Whether its standard input is connected; if not, it is empty.
    #[must_use]
    pub fn stdin(mut self, connected: bool) -> Self {
        self.stdin = connected;
        self
    }

    /// Whether its standard output is connected; if not, it goes nowhere.
    #[must_use]
    pub fn stdout(mut self, connected: bool) -> Self {
        self.stdout = connected;
        self
    }

    /// Whether its standard error is connected; if not, it goes nowhere.
    #[must_use]
    pub fn stderr(mut self, connected: bool) -> Self {
        self.stderr = connected;
        self
    }

    /// Gives it a terminal. What it writes is then all on its standard output.
    #[must_use]
    pub fn terminal(mut self, terminal: bool) -> Self {
        self.terminal = terminal;
        self
    }

    /// The size of its terminal from the start, in characters.
    #[must_use]
    pub fn terminal_size(mut self, rows: u16, columns: u16) -> Self {
        self.size = ConsoleSize {
            height: rows,
            width: columns,
        };
        self
    }

    /// Whom it runs as: `user` or `user:group`, each by name or number, as the guest's own lists have
    /// them. Without a group it is the user's own, with all groups that name the user. By default
    /// it is root.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Lets it gain no rights by running other programs, such as those that run as their owner.
    #[must_use]
    pub fn no_new_privileges(mut self, none: bool) -> Self {
        self.no_new_privileges = none;
        self
    }

    /// Sets a resource limit by its name in Linux, such as `NOFILE`: the soft one, and the hard one
    /// to which it may be raised; `u64::MAX` is "none".
    #[must_use]
    pub fn limit(mut self, name: impl AsRef<str>, soft: u64, hard: u64) -> Self {
        let name = name.as_ref().to_ascii_uppercase();
        let name = name.strip_prefix("RLIMIT_").unwrap_or(&name);
        self.limits.push(OciRlimit {
            kind: format!("RLIMIT_{name}"),
            hard,
            soft,
        });
        self
    }

    /// Whether it is killed when its [`Process`](super::Process) is dropped before it has ended, as
    /// it is by default. One that is kept has no streams any more.
    #[must_use]
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// The command as people would write it.
    pub(in crate::uvm) fn shown(&self) -> String {
        let text = match &self.words {
            Words::Line(line) => line.clone(),
            Words::List(words) => words.join(" "),
        };
        shortened(&text.replace(char::is_control, " "))
    }

    pub(in crate::uvm) fn check(&self) -> Result<()> {
        let (empty, all): (bool, Vec<&String>) = match &self.words {
            Words::Line(line) => (line.trim().is_empty(), vec![line]),
            Words::List(words) => (
                words.first().is_none_or(String::is_empty),
                words.iter().collect(),
            ),
        };
        if empty {
            return Err(Error::invalid("there is no command to run in the VM"));
        }
        let nul = |text: &String| text.contains('\0');
        if all.into_iter().any(nul)
            || self.folder.as_ref().is_some_and(nul)
            || self.user.as_ref().is_some_and(nul)
            || self
                .environment
                .iter()
                .any(|(name, value)| nul(name) || nul(value))
        {
            return Err(Error::invalid(format!(
                "the command {:?}, its environment, user or working directory has a NUL in it",
                self.shown()
            )));
        }
        if let Some(name) = self
            .environment
            .keys()
            .find(|name| name.is_empty() || name.contains('='))
        {
            return Err(Error::invalid(format!(
                "{name:?} is no name for an environment variable"
            )));
        }
        Ok(())
    }

    /// What the agent is told of a process of the VM itself.
    ///
    /// Agents that know nothing of users and limits pass over the OCI process. One that restricts the
    /// process therefore has the command in it and nowhere else: such an agent finds nothing to run,
    /// instead of running it with all rights.
    pub(super) fn parameters(&self) -> Result<ProcessParameters> {
        let restricted = self.user.is_some() || self.no_new_privileges || !self.limits.is_empty();
        let mut parameters = self.streams();
        parameters.create_in_utility_vm = true;
        if restricted {
            parameters.oci_process = document(&self.oci_process(USUAL_FOLDER)?)?;
            return Ok(parameters);
        }
        match &self.words {
            Words::Line(line) => parameters.command_line.clone_from(line),
            Words::List(words) => parameters.command_args.clone_from(words),
        }
        self.folder_or(USUAL_FOLDER)
            .clone_into(&mut parameters.working_directory);
        parameters.environment.clone_from(&self.environment);
        parameters.emulate_console = self.terminal;
        if self.size != ConsoleSize::default() {
            parameters.oci_process = document(&OciProcess {
                console_size: self.size,
                ..OciProcess::default()
            })?;
        }
        Ok(parameters)
    }

    /// What the agent is told of a process in a container, which has its own root.
    pub(in crate::uvm) fn parameters_in_container(&self) -> Result<ProcessParameters> {
        let mut parameters = self.streams();
        parameters.oci_process = document(&self.oci_process("/")?)?;
        Ok(parameters)
    }

    fn folder_or<'a>(&'a self, usual: &'a str) -> &'a str {
        self.folder.as_deref().unwrap_or(usual)
    }

    /// Only which streams are connected.
    pub(in crate::uvm) fn streams(&self) -> ProcessParameters {
        ProcessParameters {
            create_stdin_pipe: self.stdin,
            create_stdout_pipe: self.stdout,
            // A terminal has one output.
            create_stderr_pipe: self.stderr && !self.terminal,
            ..ProcessParameters::default()
        }
    }

    /// All of it but the streams, as containers' processes are described.
    fn oci_process(&self, usual_folder: &str) -> Result<OciProcess> {
        let args = match &self.words {
            Words::List(words) => words.clone(),
            Words::Line(line) => shlex::split(line).ok_or_else(|| {
                Error::invalid("the command line has a quote or a backslash without its end")
            })?,
        };
        let variable = |(name, value): (&String, &String)| format!("{name}={value}");
        Ok(OciProcess {
            terminal: self.terminal,
            console_size: self.size,
            user: OciUser {
                username: self.user.clone().unwrap_or_default(),
                ..OciUser::default()
            },
            args,
            env: self.environment.iter().map(variable).collect(),
            cwd: self.folder_or(usual_folder).to_owned(),
            rlimits: self.limits.clone(),
            no_new_privileges: self.no_new_privileges,
            ..OciProcess::default()
        })
    }
}

fn document(process: &OciProcess) -> Result<serde_json::Value> {
    serde_json::to_value(process).map_err(|error| {
        Error::new(ErrorKind::Protocol, "a process has no JSON form").caused_by(error)
    })
}

impl From<&str> for ProcessSpec {
    fn from(command_line: &str) -> Self {
        Self::line(command_line)
    }
}

impl From<String> for ProcessSpec {
    fn from(command_line: String) -> Self {
        Self::line(command_line)
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for ProcessSpec {
    fn from(words: [S; N]) -> Self {
        Self::new(words)
    }
}

impl<S: Into<String>> From<Vec<S>> for ProcessSpec {
    fn from(words: Vec<S>) -> Self {
        Self::new(words)
    }
}
