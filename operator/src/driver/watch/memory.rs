//! How much memory lists and watches take of what tenants can make.

use super::tests::feed;
use super::*;
use crate::fake::Reply;
use crate::peak::peak_of;
use fairway_engine::kinds::*;
use futures::StreamExt as _;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};

/// Of the operator's 256 MiB, what lists of such objects may take.
const MOST: usize = 16 * 1024 * 1024;

fn object(name: &str, manager: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"fairway.dev/v1alpha1","kind":"App","metadata":{{"namespace":"shop","name":"{name}","uid":"{name}","resourceVersion":"7","labels":{{"fairway.dev/app":"crm"}},"managedFields":[{{"manager":"{manager}"}}]}},"spec":{spec}}}"#
    )
}

/// An object of a built-in kind, for which neither version nor kind is said in lists.
fn built_in(name: &str, manager: &str, spec: &str) -> String {
    object(name, manager, spec).replace(r#""apiVersion":"fairway.dev/v1alpha1","kind":"App","#, "")
}

/// So many of these, as a list.
fn list_of(item: &str, number: usize) -> String {
    format!("[{}{item}]", format!("{item},").repeat(number - 1))
}

/// A pod spec of about 0.9 MB.
fn pod_spec() -> String {
    let (long, empty) = ("x".repeat(450_000), list_of(r#"{"":0}"#, 64_000));
    format!(
        r#"{{"containers":[{{"name":"web","image":"crm:1","env":[{{"name":"A","value":"{long}"}}]}}],"volumes":{empty}}}"#
    )
}

fn app(name: &str, template: &str) -> String {
    let spec = format!(r#"{{"components":[{{"name":"web","template":{template}}}]}}"#);
    object(name, "kubectl", &spec)
}

fn page(items: &[String]) -> Bytes {
    format!(
        r#"{{"metadata":{{"resourceVersion":"9"}},"items":[{}]}}"#,
        items.join(",")
    )
    .into()
}

/// An answer that comes in pieces, as from a network, and that no copy was made for.
fn in_pieces(answer: Bytes) -> Reply {
    let starts = (0..answer.len()).step_by(PIECE);
    let pieces: Vec<_> = starts
        .map(|start| answer.slice(start..(start + PIECE).min(answer.len())))
        .collect();
    let pieces = futures::stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
    BodyExt::boxed(StreamBody::new(pieces))
}

struct Pages {
    apps: Bytes,
    deployments: Bytes,
    pods: Bytes,
    jobs: Bytes,
    services: Bytes,
}

fn hostile() -> Pages {
    let pod_spec = pod_spec();
    let of_each = |spec: &str| -> Vec<String> {
        let managers = ["kubectl", "fairway"].into_iter().cycle();
        (0..12)
            .zip(managers)
            .map(|(number, manager)| built_in(&format!("o-{number}"), manager, spec))
            .collect()
    };
    let workload = format!(r#"{{"selector":{{}},"template":{{"spec":{pod_spec}}}}}"#);
    let ports = format!(r#"{{"ports":{}}}"#, list_of(r#"{"port":1}"#, 80_000));
    Pages {
        apps: page(&[
            app(
                "empty-objects",
                &format!(r#"{{"a":{}}}"#, list_of(r#"{"":0}"#, 180_000)),
            ),
            app(
                "long",
                &format!(
                    r#"{{"spec":{{"containers":[{{"name":"{}"}}]}}}}"#,
                    "x".repeat(1_300_000)
                ),
            ),
            app("wide", &format!(r#"{{"a":{}}}"#, list_of("0", 650_000))),
        ]),
        deployments: page(&of_each(&workload)),
        pods: page(&of_each(&pod_spec)),
        jobs: page(&of_each(&workload)),
        services: page(&of_each(&ports)),
    }
}

/// S5: an App of 1.3 MB of empty objects, one of 1.3 MB of text, and twelve objects of 0.9 MB of each kind that a tenant
/// can give the label, listed at the same time, take at most 16 MiB. Half of the Deployments say that Fairway made them.
#[test]
fn s5_large_objects_of_every_kind_stay_within_16_mib() {
    let peak = peak_of(
        "driver::watch::memory::s5_large_objects_of_every_kind_stay_within_16_mib",
        hostile,
        |pages| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut apps, mut deployments) = (feed::<App>(), feed::<Deployment>());
                let (mut pods, mut jobs, mut services) = (feed::<Pod>(), feed::<Job>(), feed::<Service>());
                tokio::join!(
                    apps.server.answer_body(200, in_pieces(pages.apps.clone())),
                    deployments
                        .server
                        .answer_body(200, in_pieces(pages.deployments.clone())),
                    pods.server.answer_body(200, in_pieces(pages.pods.clone())),
                    jobs.server.answer_body(200, in_pieces(pages.jobs.clone())),
                    services
                        .server
                        .answer_body(200, in_pieces(pages.services.clone())),
                );
                tokio::join!(
                    apps.events(&[]),
                    deployments.events(&[]),
                    pods.events(&[]),
                    jobs.events(&[]),
                    services.events(&[]),
                );
                apps.engine.with(|engine, _| {
                    assert_eq!((engine.cached::<App>(), engine.unreadable()), (1, 2));
                });
                deployments
                    .engine
                    .with(|engine, _| assert_eq!(engine.cached::<Deployment>(), 6));
                pods.engine
                    .with(|engine, _| assert_eq!(engine.cached::<Pod>(), 12));
                services
                    .engine
                    .with(|engine, _| assert_eq!(engine.unreadable(), 12));
            });
        },
    );
    if let Some(peak) = peak {
        println!("{} KiB", peak / 1024);
        assert!(peak < MOST, "{} KiB", peak / 1024);
    }
}
