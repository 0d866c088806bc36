//! What messages tell users to do: a verb that one names is heard at once.

use crate::Sim;
use crate::store::{NAMESPACE, Objects};
use fairway_crds::{Migration, Release, Restore};
use fairway_plan::release::history::has_ended;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::BTreeSet;

/// A token that no story uses.
const TOKEN: &str = "4102444800";

/// A command that a message names: an annotation of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    kind: String,
    name: String,
    key: String,
    value: String,
}

impl Sim {
    /// The commands that messages name at this moment and that nothing would answer. What is due already is done first.
    pub(crate) fn unheard(&self) -> Vec<String> {
        let mut calm = self.clone();
        calm.pass_all();
        let is_unheard = |named: &Named| {
            let mut sim = calm.clone();
            let writes = sim.traffic.writes.len();
            sim.annotate(named);
            sim.pass_all();
            sim.traffic.writes.len() == writes
        };
        let named = named(calm.cluster.objects());
        let unheard = named.into_iter().filter(is_unheard);
        unheard
            .map(|Named { kind, name, key, .. }| {
                format!("a message names {key} for {kind} {name}, which nothing hears")
            })
            .collect()
    }

    fn annotate(&mut self, named: &Named) {
        let (key, value) = (named.key.clone(), named.value.clone());
        let api = &mut self.cluster.api;
        match named.kind.as_str() {
            "release" => api.change::<Release>(&named.name, |object| {
                object.annotations_mut().insert(key, value);
            }),
            "frst" => api.change::<Restore>(&named.name, |object| {
                object.annotations_mut().insert(key, value);
            }),
            _ => api.change::<Migration>(&named.name, |object| {
                object.annotations_mut().insert(key, value);
            }),
        };
    }
}

/// Every command of a message that annotates an object.
fn named(objects: &Objects) -> BTreeSet<Named> {
    let mut named = BTreeSet::new();
    for app in objects.apps.values() {
        named.extend(app.status.iter().flat_map(|status| commands(&status.conditions)));
    }
    for release in objects.releases.values() {
        // What a Release said when it ended stays, also when its App is gone.
        if !objects.apps.contains_key(&release.spec.app) && has_ended(release) {
            continue;
        }
        named.extend(
            release
                .status
                .iter()
                .flat_map(|status| commands(&status.conditions)),
        );
    }
    for migration in objects.migrations.values() {
        named.extend(
            migration
                .status
                .iter()
                .flat_map(|status| commands(&status.conditions)),
        );
    }
    for restore in objects.restores.values() {
        named.extend(
            restore
                .status
                .iter()
                .flat_map(|status| commands(&status.conditions)),
        );
    }
    named
}

fn commands(conditions: &[Condition]) -> impl Iterator<Item = Named> {
    let begin = format!("kubectl -n {NAMESPACE} annotate ");
    conditions.iter().flat_map(move |condition| {
        let commands = condition.message.split(&begin).skip(1);
        commands.filter_map(parsed).collect::<Vec<_>>()
    })
}

/// `release crm-2 fairway.dev/abort="$(date +%s)" --overwrite …`
fn parsed(command: &str) -> Option<Named> {
    let mut words = command.splitn(3, ' ');
    let (kind, name, rest) = (words.next()?, words.next()?, words.next()?);
    let (key, rest) = rest.split_once("=\"")?;
    let (value, _) = rest.split_once('"')?;
    Some(Named {
        kind: kind.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        value: value.replace("$(date +%s)", TOKEN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_messages_give_them() {
        let abort = fairway_plan::kubectl::abort(NAMESPACE, "crm-2");
        let condition = Condition {
            message: format!("It waits. To abort: {abort} Or wait."),
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "Any".to_owned(),
            observed_generation: None,
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                jiff::Timestamp::UNIX_EPOCH,
            ),
        };
        let named: Vec<_> = commands(&[condition]).collect();
        let expected = Named {
            kind: "release".to_owned(),
            name: "crm-2".to_owned(),
            key: "fairway.dev/abort".to_owned(),
            value: TOKEN.to_owned(),
        };
        assert_eq!(named, [expected]);
    }
}
