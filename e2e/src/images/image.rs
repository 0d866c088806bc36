//! One image, its files, and what is recorded when it is built.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::inputs::Input;
use crate::paths::{Paths, repository};

/// One image and what it is made of.
#[derive(Clone, Debug)]
pub struct Image {
    /// Repository of the image below the registry.
    pub name: &'static str,
    /// Tag of the image.
    pub tag: &'static str,
    /// Files that are put beside the Dockerfile.
    pub(super) inputs: Vec<Input>,
    /// `VERSION` in the image's Dockerfile.
    pub(super) version: Option<&'static str>,
}

/// What was built of an image, kept beside its archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// Hash of everything that the image is made of.
    pub(super) key: String,
    /// The digest of the image's manifest, the same in every registry.
    pub digest: String,
}

impl Image {
    /// `name:tag`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    /// The folder of the image's Dockerfile.
    pub(super) fn folder(&self) -> PathBuf {
        repository().join("e2e/images").join(self.name)
    }

    /// The archive in which the image is kept.
    #[must_use]
    pub fn archive(&self, paths: &Paths) -> PathBuf {
        paths.images().join(format!("{}-{}.tar", self.name, self.tag))
    }

    /// What was built last of this image, if anything.
    #[must_use]
    pub fn built(&self, paths: &Paths) -> Option<Built> {
        built(paths, self.name, self.tag)
    }
}

/// What was built last for this name and tag, if anything.
#[must_use]
pub fn built(paths: &Paths, name: &str, tag: &str) -> Option<Built> {
    serde_json::from_slice(&fs::read(record(paths, name, tag)).ok()?).ok()
}

/// The file that holds what was built last for this name and tag.
pub(super) fn record(paths: &Paths, name: &str, tag: &str) -> PathBuf {
    paths.images().join(format!("{name}-{tag}.json"))
}
