//! What is to be run in the VM, and whether it makes sense.

use std::collections::BTreeMap;

use opengcs_bridge::message::ProcessParameters;

use crate::error::{Error, Result};
use crate::uvm::shortened;

/// The folders in which programs are looked for, as the seed has them.
pub(super) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USUAL_FOLDER: &str = "/bin";

/// What to run in the VM.
///
/// The environment is `PATH` with the usual folders, the working directory `/bin`; all three streams
/// are connected.
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
    folder: String,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
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
            folder: USUAL_FOLDER.to_owned(),
            stdin: true,
            stdout: true,
            stderr: true,
            terminal: false,
            kill_on_drop: false,
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
        self.folder = folder.into();
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

    /// Kills it when its [`Process`](super::Process) is dropped before it has ended.
    #[must_use]
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// The command as people would write it.
    pub(super) fn shown(&self) -> String {
        let text = match &self.words {
            Words::Line(line) => line.clone(),
            Words::List(words) => words.join(" "),
        };
        shortened(&text.replace(char::is_control, " "))
    }

    pub(super) fn check(&self) -> Result<()> {
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
            || nul(&self.folder)
            || self
                .environment
                .iter()
                .any(|(name, value)| nul(name) || nul(value))
        {
            return Err(Error::invalid(format!(
                "the command {:?}, its environment or its working directory has a NUL in it",
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

    pub(super) fn parameters(&self) -> ProcessParameters {
        let (command_line, command_args) = match &self.words {
            Words::Line(line) => (line.clone(), Vec::new()),
            Words::List(words) => (String::new(), words.clone()),
        };
        ProcessParameters {
            command_line,
            command_args,
            working_directory: self.folder.clone(),
            environment: self.environment.clone(),
            emulate_console: self.terminal,
            create_stdin_pipe: self.stdin,
            create_stdout_pipe: self.stdout,
            // A terminal has one output.
            create_stderr_pipe: self.stderr && !self.terminal,
            create_in_utility_vm: true,
            ..ProcessParameters::default()
        }
    }
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
