//! The removal of a set from a store of objects.

use fairway_protocol::{Failure, Reason};
use opendal::{Entry, ErrorKind};

use super::{Objects, UNUSABLE, manifest_of, text};
use crate::{
    failure::environment as environment_failure,
    store::{
        http::Answer,
        port::{End, Own, Removal, SetPath, StoredManifest, is_pod},
    },
};

/// Name of the object by which an attempt has asked whether the server honours conditions.
const CONDITION: &str = ".condition";

/// What came of the deletion of an object.
enum Deletion {
    Done,
    /// The server refuses it.
    Refused {
        until: Option<String>,
    },
}

/// Whether this is the name of an attempt: the UID of a pod, and eight random hex digits.
fn is_attempt(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(pod, random)| {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        is_pod(pod) && random.len() == 8 && random.bytes().all(is_hex)
    })
}

/// What lies in the folder of a set.
#[derive(Default)]
struct Contents {
    /// Objects that the Backup has stored, and the folders in which they lie, in the order in which they go.
    own: Vec<Entry>,
    /// Paths of all else.
    foreign: Vec<String>,
    /// Folders of attempts of the Backup.
    folders: Vec<String>,
}

impl Objects {
    /// Removes a set, and what attempts at it have left.
    pub(super) async fn remove_set(&self, set: &SetPath, own: &Own) -> Result<Removal, Failure> {
        let mut removal = Removal::new();
        let manifest = manifest_of(set);
        let found = self.read_manifest(&manifest).await?;
        let is_other = |found: &StoredManifest| !(own.has_sealed)(&found.manifest);
        if found.as_ref().is_some_and(is_other) {
            return Ok(Removal {
                end: End::NotOwn,
                ..removal
            });
        }
        let contents = self.contents(set, own).await?;
        let is_listed = contents.own.iter().any(|object| object.path() == manifest);
        match (found, is_listed) {
            (Some(_), false) => {
                return Err(self.inconsistent(&format!("has {manifest} and does not list it")));
            }
            (None, true) => return Err(self.inconsistent(&format!("lists {manifest} and does not have it"))),
            _ => {}
        }
        // A stable sort: the manifests first, then the rest as it was listed.
        let mut objects = contents.own;
        objects.sort_by_key(|object| (object.path() != manifest, !object.name().ends_with(UNUSABLE)));
        for object in objects {
            match self.delete(object.path()).await? {
                Deletion::Done => removal.count(object.metadata().content_length()),
                Deletion::Refused { until } => {
                    return Ok(removal.refused(object.path().to_owned(), until));
                }
            }
        }
        self.end_uploads(&format!("{}/", set.as_str())).await;
        let left = self.contents(set, own).await?;
        if let Some(object) = left.own.first() {
            let what = format!("still lists {} after it was removed", object.path());
            return Err(self.inconsistent(&what));
        }
        self.remove_folders(set, &left.folders).await;
        removal.foreign = left.foreign;
        if self.keeps_versions(set).await {
            removal.end = End::Hidden;
        }
        Ok(removal)
    }

    /// What lies in the folder of a set, by its names and, where a manifest was set aside, by its seal. An attempt that a
    /// manifest of somebody else names is not touched.
    async fn contents(&self, set: &SetPath, own: &Own) -> Result<Contents, Failure> {
        let manifest = manifest_of(set);
        let set = set.as_str();
        let mut contents = Contents::default();
        let mut of_others = String::new();
        let mut folders = Vec::new();
        for entry in self.list(&format!("{set}/")).await? {
            let name = entry.name().to_owned();
            // A server that names other paths than it was asked for is not trusted with a deletion. The folder lists itself.
            if entry.path() != format!("{set}/{name}") {
                continue;
            }
            let unusable = name.strip_suffix(UNUSABLE).filter(|attempt| is_attempt(attempt));
            match (name.strip_suffix('/'), unusable) {
                (Some(folder), _) if is_attempt(folder) => folders.push(entry),
                (None, _) if entry.path() == manifest => contents.own.push(entry),
                (None, Some(_)) => match self.read_manifest(entry.path()).await? {
                    Some(found) if !(own.has_sealed)(&found.manifest) => {
                        of_others.push_str(&text(found));
                        contents.foreign.push(entry.path().to_owned());
                    }
                    _ => contents.own.push(entry),
                },
                _ => contents.foreign.push(entry.path().to_owned()),
            }
        }
        for folder in folders {
            if of_others.contains(folder.name()) {
                contents.foreign.push(folder.path().to_owned());
                continue;
            }
            contents.folders.push(folder.path().to_owned());
            for object in self.list(folder.path()).await? {
                let name = object.name();
                if object.path() != format!("{}{name}", folder.path()) {
                    continue;
                }
                match object.metadata().is_file() && (own.has_name(name) || name == CONDITION) {
                    true => contents.own.push(object),
                    false => contents.foreign.push(object.path().to_owned()),
                }
            }
        }
        Ok(contents)
    }

    /// What the store says does not fit together: nothing is removed on such a ground.
    fn inconsistent(&self, what: &str) -> Failure {
        environment_failure(
            Reason::StoreUnreachable,
            format!(
                "The backup store, {}, {what}. Check the service behind it.",
                self.name
            ),
        )
    }

    async fn list(&self, folder: &str) -> Result<Vec<Entry>, Failure> {
        match self.operator().list(folder).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| self.failure("listing a backup", &error)),
        }
    }

    async fn delete(&self, path: &str) -> Result<Deletion, Failure> {
        let Err(error) = self.operator().delete(path).await else {
            return Ok(Deletion::Done);
        };
        // The credentials are good: they were enough to list what is to be deleted. So this is a policy, or Object Lock.
        if !matches!(self.answers.latest(), Some(Answer::Status(403, None))) {
            return Err(self.failure("removing a backup", &error));
        }
        self.protection.take_until();
        // The answer's header says until when; without one, nothing does.
        let _ = self.operator().stat(path).await;
        Ok(Deletion::Refused {
            until: self.protection.take_until(),
        })
    }

    /// Removes the folders of attempts and that of the set where the server has folders and nothing is left in them. A server
    /// that removes a folder removes what is in it too.
    async fn remove_folders(&self, set: &SetPath, attempts: &[String]) {
        let of_set = format!("{}/", set.as_str());
        for folder in attempts.iter().chain([&of_set]) {
            let is_empty = match self.list(folder).await {
                Ok(entries) => entries.iter().all(|entry| entry.path() == folder),
                Err(_) => false,
            };
            // Only a folder that exists by itself is there when nothing is in it.
            if !is_empty || self.operator().stat(folder).await.is_err() {
                continue;
            }
            if let Err(error) = self.operator().delete(folder).await {
                tracing::warn!("the empty folder {folder} stays in the store: {}", error.kind());
            }
        }
    }

    /// Whether the bytes of what was removed are still there: a deletion was answered with a marker, by this agent or, as the
    /// list of versions shows, by an earlier one.
    async fn keeps_versions(&self, set: &SetPath) -> bool {
        if self.protection.has_marked() {
            return true;
        }
        let Some(versions) = &self.versions else {
            return false;
        };
        match versions.are_kept(&format!("{}/", set.as_str())).await {
            Ok(are_kept) => are_kept,
            Err(error) => {
                tracing::info!("the store does not list versions: {error}");
                false
            }
        }
    }
}
