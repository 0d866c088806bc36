//! Which image each container of a release should run.

use super::verdict::Failure;
use super::view::View;
use fairway_crds::Reason;
use std::collections::BTreeMap;

/// Why the Release names an image for a container that the App does not have, with those that it has.
pub(super) fn for_no_container(view: &View) -> Option<Failure> {
    let containers: Vec<_> = view.snapshot.containers().map(|(name, _)| name).collect();
    let is_one = |name: &&String| {
        let short = |container: &String| container.split_once('/').is_some_and(|(_, short)| short == *name);
        containers
            .iter()
            .any(|container| container == *name || short(container))
    };
    let named = view.release().spec.images.keys();
    let unknown: Vec<_> = named.filter(|name| !is_one(name)).map(String::as_str).collect();
    if unknown.is_empty() {
        return None;
    }
    let message = format!(
        "spec.images of Release {} names {}, and App {} has no such container. Its containers are {}. Apply a Release of the next revision with one of these.",
        view.name(),
        unknown.join(", "),
        view.app_name(),
        containers.join(", ")
    );
    Some(Failure::new(Reason::ContainerMissing, message))
}

/// What each container should run, by `component/container`: the App's images, and over them those that the
/// Release names.
pub(super) fn images(view: &View) -> BTreeMap<String, String> {
    let mut images = view.snapshot.images();
    let containers = images
        .keys()
        .cloned()
        .chain(view.snapshot.without_image())
        .collect::<Vec<_>>();
    for container in containers {
        let short = container
            .split_once('/')
            .map_or(container.as_str(), |(_, name)| name);
        let named = &view.release().spec.images;
        if let Some(image) = named.get(&container).or_else(|| named.get(short)) {
            images.insert(container, image.clone());
        }
    }
    images
}
