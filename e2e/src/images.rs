//! The images of the tests: built `FROM scratch` from Debian packages, npm packages and our own
//! binaries, kept as OCI archives, and pushed to the registry of the cluster that is worked on.
//!
//! Everything is skipped whose inputs have not changed, by hash.

mod image;
mod inputs;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use self::image::record;
pub use self::image::{Built, Image, built};
pub use self::table::{CRM_VERSIONS, UNLEASH_VERSIONS, all, of_the_story};
use crate::command::{run, without_proxy};
use crate::hex;
use crate::paths::Paths;
use crate::progress::{Progress, seconds};

/// The images with one of the names, or all of them when no name is given.
///
/// # Errors
/// When there is no image of that name.
pub fn named(names: &[String]) -> Result<Vec<Image>> {
    let all = all();
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|image| image.name == name.as_str()))
    {
        let known: std::collections::BTreeSet<_> = all.iter().map(|image| image.name).collect();
        bail!("there is no image {unknown}; there are {known:?}");
    }
    Ok(all
        .into_iter()
        .filter(|image| names.is_empty() || names.iter().any(|name| name == image.name))
        .collect())
}

/// Builds what has changed.
///
/// # Errors
/// When an input cannot be fetched or compiled, or an image cannot be built.
pub fn build(paths: &Paths, images: &[Image]) -> Result<()> {
    for folder in [paths.build(), paths.images()] {
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    inputs::compile(paths, images.iter().flat_map(|image| &image.inputs))?;
    let mut skipped = 0;
    for (index, image) in images.iter().enumerate() {
        let files = image
            .inputs
            .iter()
            .map(|input| {
                input
                    .fetch(paths)
                    .with_context(|| format!("prepare {} for {}", input.name(), image.reference()))
            })
            .collect::<Result<Vec<_>>>()?;
        let key = key(image, &files)?;
        if image.archive(paths).exists() && image.built(paths).is_some_and(|built| built.key == key) {
            skipped += 1;
            continue;
        }
        let progress = Progress::start(&format!(
            "image {} ({} of {})",
            image.reference(),
            index + 1,
            images.len()
        ));
        let digest =
            make(paths, image, &files).with_context(|| format!("build the image {}", image.reference()))?;
        fs::write(
            record(paths, image.name, image.tag),
            serde_json::to_vec(&Built { key, digest })?,
        )?;
        progress.done(&format!("built in {}", seconds(progress.elapsed())));
    }
    if skipped > 0 {
        eprintln!("{skipped} of {} images are up to date", images.len());
    }
    Ok(())
}

/// Pushes what the registry does not have yet.
///
/// # Errors
/// When an image was not built or the registry refuses it.
pub fn push(paths: &Paths, registry: &str, images: &[Image]) -> Result<()> {
    let progress = Progress::start(&format!("push images to {registry}"));
    for (index, image) in images.iter().enumerate() {
        let reference = image.reference();
        let built = image.built(paths).with_context(|| {
            format!(
                "the image {reference} is not built; run `cluster images {}`",
                image.name
            )
        })?;
        if digest_in(registry, image).as_ref() != Some(&built.digest) {
            run(skopeo(registry)
                .args(["copy", "--quiet", "--preserve-digests"])
                .args(plain_http(registry).then_some("--dest-tls-verify=false"))
                .arg(format!("oci-archive:{}", image.archive(paths).display()))
                .arg(format!("docker://{registry}/{reference}")))
            .with_context(|| {
                format!(
                    "push {reference} to {registry}; for a registry with a password run `skopeo login` first"
                )
            })?;
        }
        progress.step(&format!("{} of {}, {reference}", index + 1, images.len()));
    }
    progress.done(&format!("all {} are there", images.len()));
    Ok(())
}

/// The digest that the registry has under this name and tag; `None` also when it cannot be asked,
/// since the push that follows then tells why.
fn digest_in(registry: &str, image: &Image) -> Option<String> {
    let answer = run(skopeo(registry)
        .args(["inspect", "--no-tags", "--format", "{{.Digest}}"])
        .args(plain_http(registry).then_some("--tls-verify=false"))
        .arg(format!("docker://{registry}/{}", image.reference())));
    answer.ok().map(|digest| digest.trim().to_owned())
}

fn skopeo(registry: &str) -> Command {
    let mut command = Command::new("skopeo");
    if plain_http(registry) {
        without_proxy(&mut command);
    }
    command
}

/// A registry on the machine itself needs no TLS, as in Docker; any other must have it.
fn plain_http(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host == "localhost"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback() || address.is_link_local())
}

fn make(paths: &Paths, image: &Image, files: &[PathBuf]) -> Result<String> {
    let context = paths
        .build()
        .join(format!("context-{}-{}", image.name, image.tag));
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    fs::create_dir_all(&context)?;
    for entry in fs::read_dir(image.folder())? {
        let entry = entry?;
        fs::copy(entry.path(), context.join(entry.file_name()))?;
    }
    for (input, file) in image.inputs.iter().zip(files) {
        let name = context.join(input.name());
        // The same file under a second name; only another file system needs a copy.
        fs::hard_link(file, &name).or_else(|_| fs::copy(file, &name).map(|_| ()))?;
    }
    let reference = image.reference();
    // Equal inputs give equal digests: neither times nor history tell one build from another.
    let mut build = buildah(paths);
    build.args([
        "bud",
        "--isolation",
        "chroot",
        "--layers=false",
        "--timestamp",
        "0",
        "--tag",
        &reference,
    ]);
    build.args(
        image
            .version
            .map(|version| format!("--build-arg=VERSION={version}")),
    );
    run(build.arg(&context))?;

    let digest_file = context.join("digest");
    let unfinished = image.archive(paths).with_extension("unfinished");
    // An archive that exists would be added to.
    let _ = fs::remove_file(&unfinished);
    run(buildah(paths)
        .args(["push", "--quiet", "--compression-format", "zstd", "--digestfile"])
        .arg(&digest_file)
        .arg(&reference)
        .arg(format!("oci-archive:{}", unfinished.display())))?;
    let digest = fs::read_to_string(&digest_file)?.trim().to_owned();
    run(buildah(paths).args(["rmi", "--force", &reference]))?;
    fs::rename(&unfinished, image.archive(paths))?;
    fs::remove_dir_all(&context)?;
    Ok(digest)
}

/// buildah with a storage of its own, so that the user's images are not touched.
pub fn buildah(paths: &Paths) -> Command {
    let storage = paths.build().join("buildah");
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(storage.join("root"))
        .arg("--runroot")
        .arg(storage.join("run"));
    command
}

/// A hash of the Dockerfile, the files beside it, and every input.
fn key(image: &Image, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(image.version.unwrap_or_default());
    let mut beside: Vec<PathBuf> = fs::read_dir(image.folder())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    beside.sort();
    for file in &beside {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(file)?);
    }
    for (input, file) in image.inputs.iter().zip(files) {
        hash.update(input.key(file)?);
    }
    Ok(hex::encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registry_on_the_machine_itself_goes_without_tls() {
        for host in ["127.0.0.1:5000", "localhost:5000/team", "169.254.3.2:5000"] {
            assert!(plain_http(host), "{host}");
        }
        for host in ["ghcr.io/acme", "10.0.0.5:5000", "registry.example.com:5000/a"] {
            assert!(!plain_http(host), "{host}");
        }
    }

    #[test]
    fn no_two_images_share_a_name_and_tag_and_each_has_a_dockerfile() {
        let mut references: Vec<_> = all().iter().map(Image::reference).collect();
        references.sort();
        let count = references.len();
        references.dedup();
        assert_eq!(references.len(), count);
        for image in all() {
            assert!(
                image.folder().join("Dockerfile").is_file(),
                "{}",
                image.reference()
            );
        }
    }

    #[test]
    fn an_unknown_image_is_refused_with_the_names_that_exist() {
        let error = named(&["postgrse".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("postgrse") && error.contains("\"postgres\""),
            "{error}"
        );
    }
}
