//! How mounted layers and a scratch disk become one root file system in the guest.

use opengcs_bridge::message::{CombinedLayers, Layer, Modification, RequestType};

use super::UtilityVm;
use crate::config::check_guest_path;
use crate::error::{Error, Result};

/// An overlay of layers that are mounted in the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySpec {
    root: String,
    layers: Vec<String>,
    scratch: Option<String>,
}

impl OverlaySpec {
    /// An overlay that is to be seen at `root`; read-only while it has no scratch.
    pub fn new(root: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            layers: Vec::new(),
            scratch: None,
        }
    }

    /// Puts a layer, by its path in the guest, below those that it has.
    #[must_use]
    pub fn layer(mut self, path: impl Into<String>) -> Self {
        self.layers.push(path.into());
        self
    }

    /// Lets changes go to this folder in the guest, into its `upper`; its `work` is the kernel's.
    #[must_use]
    pub fn scratch(mut self, path: impl Into<String>) -> Self {
        self.scratch = Some(path.into());
        self
    }
}

impl UtilityVm {
    /// Stacks layers with overlayfs.
    ///
    /// ```no_run
    /// # async fn example(vm: opengcs::UtilityVm) -> opengcs::Result<()> {
    /// use opengcs::OverlaySpec;
    ///
    /// vm.hot_add_vhd("layer.vhd", "/mnt/layer", true, true).await?;
    /// vm.hot_add_vhd("sandbox.vhdx", "/mnt/scratch", false, true).await?;
    /// let overlay = OverlaySpec::new("/mnt/root").layer("/mnt/layer").scratch("/mnt/scratch");
    /// vm.combine_layers(&overlay).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There is no layer, a path makes no sense, or the guest refuses.
    #[doc(alias = "CombinedLayers")]
    pub async fn combine_layers(&self, overlay: &OverlaySpec) -> Result<()> {
        check_guest_path(&overlay.root)?;
        if overlay.layers.is_empty() {
            return Err(Error::invalid(format!(
                "the overlay at {} has no layer",
                overlay.root
            )));
        }
        for path in overlay.layers.iter().chain(&overlay.scratch) {
            check_guest_path(path)?;
        }
        let settings = CombinedLayers {
            container_id: String::new(),
            container_root_path: overlay.root.clone(),
            layers: overlay
                .layers
                .iter()
                .enumerate()
                .map(|(index, path)| Layer {
                    id: index.to_string(),
                    path: path.clone(),
                })
                .collect(),
            scratch_path: overlay.scratch.clone().unwrap_or_default(),
        };
        self.change_layers(RequestType::add(), settings, "stack layers at")
            .await
    }

    /// Takes an overlay apart; its layers and scratch stay mounted.
    ///
    /// # Errors
    /// The path makes no sense, or the guest refuses, as when something there is in use.
    pub async fn uncombine_layers(&self, root: &str) -> Result<()> {
        check_guest_path(root)?;
        let settings = CombinedLayers {
            container_root_path: root.to_owned(),
            ..CombinedLayers::default()
        };
        self.change_layers(RequestType::remove(), settings, "unmount the overlay at")
            .await
    }

    async fn change_layers(
        &self,
        request_type: RequestType,
        settings: CombinedLayers,
        what: &str,
    ) -> Result<()> {
        let root = settings.container_root_path.clone();
        self.inner
            .modify(request_type, Modification::CombinedLayers(settings))
            .await
            .map_err(|error| {
                Error::new(error.kind(), format!("cannot {what} {root} in the VM")).caused_by(error)
            })
    }
}
