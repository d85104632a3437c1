//! `opengcs vm monitor`, which only `opengcs vm start` runs: the process that holds a VM.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use opengcs::Config;
use opengcs_monitor::{Claim, Error, ErrorKind, Folders, Name, Starter, Surroundings};
use serde::{Deserialize, Serialize};

use crate::command::vm_options::VmOptions;
use crate::context::Context;
use crate::failure;

/// Hold a VM; `opengcs vm start` runs this
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Monitor {
    /// The VM's name, for those who list processes
    #[arg(value_name = "NAME")]
    _name: Name,
}

/// What the starter says is to be started.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) name: Name,
    pub(super) vm: VmOptions,
}

impl Monitor {
    #[allow(
        clippy::unused_self,
        reason = "the name is for those who list processes"
    )]
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let (order, starter): (Order, Starter) = opengcs_monitor::order().await?;
        let (claim, config) = match prepare(&order, context) {
            Ok(prepared) => prepared,
            Err(error) => {
                opengcs_monitor::report(Err(&error));
                return Ok(failure::FAILED);
            }
        };
        tracing::info!(name = %order.name, "the monitor begins");
        let surroundings = Surroundings {
            stop: context.stop.told(),
            taken: starter.takes_over(),
            bundles: config.bundle_dir.clone(),
        };
        let held = opengcs_monitor::hold(claim, config, surroundings, opengcs_monitor::report);
        Ok(match held.await {
            Ok(_) => 0,
            // The starter was told.
            Err(_) => failure::FAILED,
        })
    }
}

/// Takes the name, and turns away from the starter's terminal and folder.
fn prepare(order: &Order, context: &Context) -> Result<(Claim, Config), Error> {
    opengcs_monitor::begin_session()?;
    let claim = Folders::of(&context.environment)?.claim(&order.name)?;
    let configured = opengcs_monitor::begin_log(claim.path()).and_then(|()| {
        let config = order.vm.config(context).map_err(plain)?;
        let config = absolute(config)?;
        // Nothing keeps the file system busy in which the starter was.
        std::env::set_current_dir("/").map_err(plain)?;
        Ok(config)
    });
    match configured {
        Ok(config) => Ok((claim, config)),
        Err(error) => {
            if let Err(error) = claim.release(None) {
                tracing::warn!(%error, "the VM's folder is not cleared away");
            }
            Err(error)
        }
    }
}

fn plain(error: impl Into<anyhow::Error>) -> Error {
    match error.into().downcast::<opengcs::Error>() {
        Ok(error) => error.into(),
        Err(error) => Error::new(ErrorKind::Other, format!("{error:#}")),
    }
}

/// The same with paths that mean the same in every folder.
fn absolute(mut config: Config) -> Result<Config, Error> {
    let absolute = |path: &Path| -> Result<PathBuf, Error> {
        if path.as_os_str().is_empty() {
            return Ok(PathBuf::new());
        }
        std::path::absolute(path).map_err(plain)
    };
    config.options.kird_path = absolute(&config.options.kird_path)?;
    config.options.vhdx = absolute(&config.options.vhdx)?;
    for disk in &mut config.mapped_virtual_disks {
        disk.host_path = absolute(&disk.host_path)?;
    }
    let others = [&mut config.bundle_dir, &mut config.hypervisor];
    for path in others.into_iter().flatten() {
        *path = absolute(path)?;
    }
    Ok(config)
}
