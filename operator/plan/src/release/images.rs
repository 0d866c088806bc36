//! Which image each container of a release should run.

use super::view::View;
use std::collections::BTreeMap;

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
