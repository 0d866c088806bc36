//! People act at the worst moment: after each write of a release they delete the App, edit it, abort the release,
//! or the operator goes away for an hour.

use crate::play::{Named, Played, reference, story};
use fairway_crds::release::ReleaseOutcome;
use fairway_engine::kinds::Kind;
use fairway_sim::Sim;
use fairway_sim::script::{APP, Story};
use kube::ResourceExt;

/// Releases of every form.
const RELEASES: [&str; 5] = [
    "upgrade",
    "upgrade-with-migration",
    "upgrade-on-start",
    "worker-only",
    "secret-header",
];

/// Lets commands come after each write of each release, and looks at the end.
fn after_each_write(commands: &str, check: impl Fn(&Sim) -> Result<(), String>) {
    let mut failures = Vec::new();
    for name in RELEASES {
        let story = story(name);
        let reference = reference(&story).unwrap();
        let last = reference.marks.last().unwrap().1.traffic.writes.len();
        for write in last..=reference.sim.traffic.writes.len() {
            if let Err(failure) = after_write(&story, &reference, write, commands, &check) {
                failures.push(format!("{name} after write {write}: {failure}"));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn after_write(
    story: &Named,
    reference: &Played,
    write: usize,
    commands: &str,
    check: &impl Fn(&Sim) -> Result<(), String>,
) -> Result<(), String> {
    let mut sim = reference.marks.last().unwrap().1.clone();
    while sim.traffic.writes.len() < write && sim.step().map_err(|stuck| format!("{stuck:?}"))? {}
    let mut text = sim.transcript.take().join("\n");
    let (played, result) = Story::parse(commands).play(&mut sim, 0, |_, _| ());
    text.push_str(&played);
    let complain = |what: String| {
        format!(
            "{what}\n{} …\n{text}",
            story.text.lines().next().unwrap_or_default()
        )
    };
    result.map_err(|error| complain(error.to_string()))?;
    if !sim.checker.violations.is_empty() {
        return Err(complain(sim.checker.violations.join("\n")));
    }
    let pending = sim.pending_writes();
    if !pending.is_empty() {
        return Err(complain(format!(
            "writes are pending at the end: {}",
            pending.join("\n")
        )));
    }
    check(&sim).map_err(complain)
}

fn live_image(sim: &Sim) -> Option<String> {
    let status = sim.cluster.objects().apps.get(APP)?.status.as_ref()?;
    status
        .live
        .as_ref()?
        .images
        .values()
        .next()
        .map(|image| sim.cluster.images.tag(image).to_owned())
}

fn live(sim: &Sim) -> Option<String> {
    let status = sim.cluster.objects().apps.get(APP)?.status.as_ref()?;
    Some(status.live.as_ref()?.release.clone())
}

/// Every pod and Deployment that runs belongs to what is live, and nothing else runs.
fn only_live_runs(sim: &Sim) -> Result<(), String> {
    let live = live(sim).ok_or("nothing is live")?;
    let objects = sim.cluster.objects();
    let others = objects.deployments.values().filter(|deployment| {
        let of_live = deployment.labels().get(fairway_plan::labels::RELEASE) == Some(&live);
        let replicas = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or_default();
        !of_live && replicas > 0 || of_live && replicas == 0
    });
    let wrong: Vec<_> = others.map(|deployment| deployment.name_any()).collect();
    let foreign = objects
        .services
        .values()
        .filter(|service| fairway_sim::traffic::destination(service).as_ref() != Some(&live));
    let foreign: Vec<_> = foreign.map(|service| service.name_any()).collect();
    if wrong.is_empty() && foreign.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{live} is live, but the replicas of {wrong:?} or the selectors of {foreign:?} say otherwise"
    ))
}

#[test]
fn the_app_is_deleted() {
    after_each_write("> delete app\n> settle", |sim| {
        let objects = sim.cluster.objects();
        let left = objects
            .all()
            .into_iter()
            .filter(|(kind, _)| *kind != Kind::Backup);
        let left: Vec<_> = left
            .map(|(kind, meta)| format!("{} {}", kind.as_str(), meta.name.clone().unwrap_or_default()))
            .collect();
        let running = sim.cluster.database.unsettled("").map(|row| format!("{row:?}"));
        if left.is_empty() && running.is_none() {
            Ok(())
        } else {
            Err(format!("left behind: {left:?}, not finished: {running:?}"))
        }
    });
}

#[test]
fn the_app_is_edited_again() {
    after_each_write("> edit image=crm:3\n> settle", |sim| {
        only_live_runs(sim)?;
        if live_image(sim).as_deref() == Some("crm:3") {
            Ok(())
        } else {
            Err(format!("live is {:?}", live(sim)))
        }
    });
}

#[test]
fn the_app_is_reverted() {
    after_each_write("> edit image=crm:1\n> settle", only_live_runs);
}

#[test]
fn the_release_is_aborted() {
    after_each_write("> annotate crm-2 abort=now\n> settle", |sim| {
        only_live_runs(sim)?;
        let release = sim
            .cluster
            .objects()
            .releases
            .get("crm-2")
            .ok_or("crm-2 is missing")?;
        let status = release.status.clone().unwrap_or_default();
        let is_answered = status.last_handled_abort.as_deref() == Some("now")
            || !release.annotations().contains_key("fairway.dev/abort");
        match status.outcome {
            Some(ReleaseOutcome::Aborted | ReleaseOutcome::RolledBack | ReleaseOutcome::Succeeded)
                if is_answered =>
            {
                Ok(())
            }
            outcome => Err(format!("outcome {outcome:?}, answered: {is_answered}")),
        }
    });
}

#[test]
fn the_release_is_rolled_back() {
    after_each_write("> annotate crm-2 rollback=now\n> settle", only_live_runs);
}

#[test]
fn the_operator_is_away_for_an_hour() {
    after_each_write("> operator away\n> wait 1h\n> operator back\n> settle", |sim| {
        only_live_runs(sim)?;
        if live(sim).as_deref() == Some("crm-2") {
            Ok(())
        } else {
            Err(format!("live is {:?}", live(sim)))
        }
    });
}

#[test]
fn the_app_loses_its_status() {
    after_each_write("> restore app\n> settle", |sim| {
        only_live_runs(sim)?;
        if live(sim).as_deref() == Some("crm-2") {
            Ok(())
        } else {
            Err(format!("live is {:?}", live(sim)))
        }
    });
}

#[test]
fn the_app_is_suspended_and_resumed() {
    after_each_write(
        "> edit suspend=true\n> settle\n> edit suspend=false\n> settle",
        |sim| {
            only_live_runs(sim)?;
            if live(sim).as_deref() == Some("crm-2") {
                Ok(())
            } else {
                Err(format!("live is {:?}", live(sim)))
            }
        },
    );
}

#[test]
fn the_new_version_crashes() {
    after_each_write("> image crm:2 crashing\n> settle", |sim| {
        // After the bake nobody watches any more.
        let release = sim
            .cluster
            .objects()
            .releases
            .get("crm-2")
            .ok_or("crm-2 is missing")?;
        if release
            .status
            .as_ref()
            .and_then(|status| status.outcome)
            .is_none()
        {
            return Err("crm-2 does not end".to_owned());
        }
        only_live_runs(sim)
    });
}
