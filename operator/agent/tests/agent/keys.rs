//! Identities of age, as a team keeps them.

use age::{secrecy::ExposeSecret as _, x25519};
use fairway_protocol::{BackupTask, Encryption, Task};

/// An identity and its public key.
pub(crate) struct Identity {
    /// What stands in the identity file.
    pub(crate) secret: String,
    /// The recipient that the App names.
    pub(crate) recipient: String,
}

impl Identity {
    pub(crate) fn generate() -> Self {
        let identity = x25519::Identity::generate();
        Self {
            secret: identity.to_string().expose_secret().to_owned(),
            recipient: identity.to_public().to_string(),
        }
    }
}

/// The task to take a backup that is encrypted to these.
pub(crate) fn encrypted(task: Task, to: &[&Identity]) -> Task {
    let Task::Backup(task) = task else {
        panic!("{task:?} takes no backup");
    };
    Task::Backup(BackupTask {
        encryption: Some(Encryption {
            recipients: to.iter().map(|identity| identity.recipient.clone()).collect(),
        }),
        ..task
    })
}
