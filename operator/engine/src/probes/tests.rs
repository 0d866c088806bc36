use super::*;
use fairway_plan::protocol::{HttpRequest, Scheme};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn target(port: u16) -> ProbeTarget {
    ProbeTarget {
        pod_uid: "p-1".into(),
        pod_name: "crm-web-2-x".into(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        requests: vec![(
            port,
            HttpRequest {
                scheme: Scheme::Http,
                path: "/health".into(),
                host: None,
                headers: Vec::new(),
                status: 200,
                json: Default::default(),
            },
        )],
        via: None,
        period: Duration::from_millis(1),
        success_threshold: 3,
        failure_threshold: 2,
    }
}

fn failed(what: &str) -> ProbeVerdict {
    ProbeVerdict::Failed(what.into())
}

/// The rounds that are news to the Release.
fn news(verdicts: impl IntoIterator<Item = ProbeVerdict>) -> (Vec<bool>, PodHealth) {
    let (mut health, target) = (PodHealth::default(), target(1));
    let news = verdicts
        .into_iter()
        .map(|verdict| count(&mut health, &target, verdict))
        .collect();
    (news, health)
}

#[test]
fn reaching_the_passes_in_a_row_is_news_and_going_on_is_not() {
    let (news, health) = news((0..5).map(|_| ProbeVerdict::Passed));
    assert_eq!(news, [false, false, true, false, false]);
    assert_eq!((health.passes, health.passed, health.failed), (5, 5, 0));
}

#[test]
fn the_first_failure_and_the_last_one_needed_are_news() {
    let (news, health) = news([ProbeVerdict::Passed, failed("503"), failed("503"), failed("503")]);
    assert_eq!(news, [false, true, true, false]);
    assert_eq!((health.passes, health.failures, health.failed), (0, 3, 3));
    assert!(!health.proven);
}

#[test]
fn what_has_passed_often_enough_is_proven_for_good() {
    let passed = || ProbeVerdict::Passed;
    assert!(!news([passed(), passed(), failed("503"), passed()]).1.proven);
    assert!(news([passed(), passed(), passed(), failed("503")]).1.proven);
}

#[test]
fn a_new_text_is_news() {
    let (news, health) = news([failed("503"), failed("503"), failed("503"), failed("404")]);
    assert_eq!(news, [true, true, false, true]);
    assert_eq!(health.last_failure.as_deref(), Some("404"));
}

#[test]
fn being_unreachable_is_neither_passing_nor_failing() {
    let unreachable = || ProbeVerdict::Unreachable("no route".into());
    let (news, health) = news([failed("503"), unreachable(), unreachable(), unreachable()]);
    assert_eq!(news, [true, true, true, false]);
    assert_eq!(
        (health.passes, health.failures, health.unreachable, health.failed),
        (0, 0, 3, 4)
    );
}

#[test]
fn a_pod_that_refuses_has_failed_if_it_ever_answered() {
    let refused = || ProbeVerdict::Refused("no connection".into());
    let (_, health) = news([refused(), refused()]);
    assert_eq!((health.failures, health.unreachable), (0, 2));
    let (news, health) = news([ProbeVerdict::Passed, refused(), refused()]);
    assert_eq!(news, [false, true, true]);
    assert_eq!((health.failures, health.unreachable), (2, 0));
}

#[test]
fn a_wrong_answer_weighs_more_than_none() {
    let unreachable = || ProbeVerdict::Unreachable("no route".into());
    let refused = || ProbeVerdict::Refused("no connection".into());
    assert_eq!(worse(unreachable(), refused()), refused());
    assert_eq!(worse(refused(), failed("503")), failed("503"));
    assert_eq!(worse(unreachable(), failed("503")), failed("503"));
    assert_eq!(worse(failed("503"), unreachable()), failed("503"));
    assert_eq!(worse(ProbeVerdict::Passed, unreachable()), unreachable());
    assert_eq!(
        worse(ProbeVerdict::Passed, ProbeVerdict::Passed),
        ProbeVerdict::Passed
    );
}

#[test]
fn a_pod_keeps_its_counts_while_it_is_asked_the_same() {
    let (mut probes, release) = (Probes::default(), NamespacedName::new("shop", "crm-2"));
    let begun = probes.set(&release, vec![target(1)]);
    let [probe] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!(probes.count(probe, ProbeVerdict::Passed), Some(false));
    assert!(probes.set(&release, vec![target(1)]).is_empty(), "it goes on");
    assert_eq!(probes.health(&release)["p-1"].passes, 1);

    let other = ProbeTarget {
        success_threshold: 5,
        ..target(1)
    };
    let begun = probes.set(&release, vec![other]);
    assert_eq!(begun.len(), 1, "another question starts over");
    assert_eq!(probes.health(&release)["p-1"].passes, 0);
    assert_eq!(
        probes.count(probe, ProbeVerdict::Passed),
        None,
        "the first one has ended"
    );
    assert!(!probes.is_wanted(probe) && probes.is_wanted(&begun[0]));

    probes.set(&release, Vec::new());
    assert!(probes.health(&release).is_empty() && !probes.is_wanted(&begun[0]));
}
