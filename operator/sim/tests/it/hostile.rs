//! Tenants: what they make in the namespace of an App, and what the operator does with it.

use crate::play::{reference, story};
use fairway_engine::kinds::{Kind, Pod};
use fairway_sim::Sim;
use kube::ResourceExt;
use std::net::IpAddr;

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// Addresses to which the operator shows a token.
fn spoken_to(sim: &Sim) -> Vec<IpAddr> {
    let probes = sim.operators[0].engine.probes();
    probes
        .filter_map(|(probe, _)| probe.target.via.as_ref()?.address)
        .collect()
}

/// S1: a tenant deletes a probe pod and makes one with its name, its labels and its owner. The operator does not speak to
/// that one, but to another that it creates, and the release goes on.
#[test]
fn s1_a_pod_in_the_place_of_a_probe_pod_gets_no_token() {
    let story = story("secret-header");
    // Its second release is about to begin.
    let mut sim = reference(&story).unwrap().marks.last().unwrap().1.clone();
    let probe_pod = |sim: &Sim| {
        let mut pods = sim.cluster.objects().pods.values();
        pods.find(|pod| pod.name_any().contains("-probe-") && address(pod).is_some())
            .cloned()
    };
    while probe_pod(&sim).is_none_or(|pod| !spoken_to(&sim).contains(&address(&pod).unwrap())) {
        assert!(sim.step().unwrap(), "the probe pod is never asked");
    }
    let own = probe_pod(&sim).unwrap();
    let forged = Pod {
        metadata: own.metadata.clone(),
        spec: own.spec.clone(),
        status: None,
    };
    sim.cluster.api.remove(Kind::Pod, &own.name_any());
    let now = sim.cluster.now;
    sim.cluster.api.create(forged, now).unwrap();
    let forged = |sim: &Sim| sim.cluster.objects().pods.get(&own.name_any()).cloned();
    let mut was_running = false;
    loop {
        let forged = forged(&sim).and_then(|pod| address(&pod));
        if let Some(forged) = forged {
            was_running = true;
            let seen = sim.operators[0].engine.probes().all(|(probe, _)| {
                probe
                    .target
                    .via
                    .as_ref()
                    .is_none_or(|via| via.address != Some(forged))
            });
            assert!(seen, "the forged pod gets a token");
        }
        if !sim.step().unwrap() {
            break;
        }
    }
    assert!(was_running);
    let created: Vec<_> = sim.transcript.take();
    let created = created
        .iter()
        .filter(|line| line.contains("create Pod crm-2-probe-"));
    assert_eq!(created.count(), 2, "another probe pod takes its place");
    let live = sim.cluster.objects().apps["crm"]
        .status
        .as_ref()
        .unwrap()
        .live
        .as_ref()
        .unwrap()
        .release
        .clone();
    assert_eq!(live, "crm-2");
}
