//! What is put together when somebody asks what is wrong with a VM.

use std::fmt;
use std::time::Duration;

use super::{ProcessSpec, Timeline, UtilityVm};
use crate::environment::Environment;

/// Variable of the environment: whether [`UtilityVm::debug_gcs`] also writes to the log.
pub const DEBUG_VARIABLE: &str = "OPENGCS_DEBUG_ENABLE";
/// Variable of the environment: the command that is run in the guest instead of the usual one.
pub const DEBUG_COMMAND_VARIABLE: &str = "OPENGCS_DEBUG_COMMAND";

/// What the usual command shows. Each part works without the others.
const USUAL_COMMAND: &str = "\
for file in /tmp/gcs.log /tmp/gcs/*; do [ -f \"$file\" ] && echo \"== $file\" && tail -c 65536 \"$file\"; done
echo '== processes'; ps
echo '== mounts'; cat /proc/mounts
echo '== memory'; cat /proc/meminfo
echo '== kernel log'; dmesg | tail -n 1000
true";
const MOST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the host has recorded about a VM: it is there also for a guest that never came up.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Diagnostics {
    /// The VM's name.
    pub name: String,
    /// Its configuration.
    pub configuration: String,
    /// How the machine is run, and its command line.
    pub machine: opengcs_machine::Description,
    /// What the hypervisor said.
    pub hypervisor_messages: String,
    /// The end of the console.
    pub console: String,
    /// The end of the agent's log.
    pub agent_log: String,
    /// The end of the kernel's log, as far as the agent passed it on; what came before is on the console.
    pub kernel_log: String,
    /// When each stage of the start was reached.
    pub timeline: Timeline,
    /// What was found in the guest: the agent's stacks, and the debug command's output.
    pub guest: Vec<(String, String)>,
}

impl UtilityVm {
    /// What the host has recorded so far. It never waits and never fails.
    #[must_use]
    pub fn diagnostics(&self) -> Diagnostics {
        let inner = &self.inner;
        Diagnostics {
            name: inner.config.name.clone(),
            configuration: format!("{:#?}", inner.config),
            machine: inner.machine.describe(),
            hypervisor_messages: inner.machine.stderr_tail(),
            console: inner.machine.console_tail(),
            agent_log: inner.logs.agent.text(),
            kernel_log: inner.logs.kernel.text(),
            timeline: self.timeline(),
            guest: Vec::new(),
        }
    }

    /// Puts together everything that can be known about the VM: what the host has recorded, and, as
    /// far as the agent still answers, its stacks and the output of a command in the guest
    /// (`OPENGCS_DEBUG_COMMAND`, or one that shows logs, processes, mounts and the kernel's log).
    ///
    /// With `OPENGCS_DEBUG_ENABLE` set it is also written to the log, at debug level. It takes half a
    /// minute at worst.
    #[doc(alias = "DebugGCS")]
    pub async fn debug_gcs(&self) -> Diagnostics {
        let environment = &self.inner.config.environment;
        let (name, command) = debug_command(environment);
        let (stacks, output) = tokio::join!(
            tokio::time::timeout(PATIENCE, self.stacks()),
            tokio::time::timeout(PATIENCE, self.output(command, MOST)),
        );
        let stacks = match stacks {
            Ok(Ok(stacks)) => stacks,
            Ok(Err(error)) => error.report(),
            Err(_) => "the agent does not answer".into(),
        };
        let output = match output {
            Ok(Ok(output)) => format!(
                "{}{}{}\n",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                output.status
            ),
            Ok(Err(error)) => error.report(),
            Err(_) => "the command did not end".into(),
        };
        let mut all = self.diagnostics();
        all.guest = vec![("agent's stacks".into(), stacks), (name, output)];
        if environment.get(DEBUG_VARIABLE).is_some() {
            tracing::debug!("{all}");
        }
        all
    }
}

fn debug_command(environment: &Environment) -> (String, ProcessSpec) {
    let given = environment
        .get(DEBUG_COMMAND_VARIABLE)
        .and_then(|command| command.into_string().ok());
    match given {
        Some(command) => (format!("output of {command}"), ProcessSpec::line(command)),
        None => (
            "guest".into(),
            ProcessSpec::new(["sh", "-c", USUAL_COMMAND]).current_dir("/"),
        ),
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = |title: &str, text: &str| {
            writeln!(f, "==== {title}")?;
            if text.is_empty() {
                writeln!(f, "(nothing)")
            } else {
                writeln!(f, "{}", text.trim_end())
            }
        };
        section("VM", &self.name)?;
        section(
            "machine",
            &format!(
                "{} on {}, {}: {}",
                self.machine.hypervisor,
                self.machine.chipset,
                self.machine.acceleration,
                self.machine.acceleration_reason
            ),
        )?;
        section("command line", &self.machine.command_line.join(" "))?;
        section("configuration", &self.configuration)?;
        section("hypervisor's messages", &self.hypervisor_messages)?;
        section("console", &self.console)?;
        section("agent's log", &self.agent_log)?;
        section("kernel's log", &self.kernel_log)?;
        let stages: Vec<_> = self
            .timeline
            .stages
            .iter()
            .map(|stage| format!("{:10.1} ms {}", stage.at_ms, stage.name))
            .collect();
        section("stages of the start", &stages.join("\n"))?;
        for (title, text) in &self.guest {
            section(title, text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_comes_from_the_environment_or_is_the_usual_one() {
        let given = Environment::fixed([(DEBUG_COMMAND_VARIABLE, "ps aux")]);
        assert_eq!(debug_command(&given).1, ProcessSpec::line("ps aux"));
        let none = Environment::fixed::<&str, &str>([]);
        assert_eq!(debug_command(&none).0, "guest");
    }
}
