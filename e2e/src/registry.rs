//! References of images at the registry of a target.

use anyhow::{Context, Result};

use crate::images;
use crate::target::Target;

impl Target {
    /// `registry/name:tag`.
    #[must_use]
    pub fn image(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.registry())
    }

    /// The digest of an image's manifest, such as `sha256:…`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn digest(&self, name: &str, tag: &str) -> Result<String> {
        let built = images::built(&self.paths, name, tag)
            .with_context(|| format!("the image {name}:{tag} is not built; run `make images`"))?;
        Ok(built.digest)
    }

    /// `registry/name@digest`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn image_by_digest(&self, name: &str, tag: &str) -> Result<String> {
        Ok(format!("{}/{name}@{}", self.registry(), self.digest(name, tag)?))
    }
}
