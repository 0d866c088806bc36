//! Whether somebody can open the App's encrypted backups.

use crate::backup::recipients_of;
use crate::conditions::{Desired, Status};
use fairway_crds::condition::ENCRYPTION_UNPROVEN;
use fairway_crds::{App, Reason};
use kube::ResourceExt;

/// The condition of an App whose backups are encrypted while no Restore has opened one: only the identity shows that it is
/// there, and Fairway never has it. A Restore that opened a set of these recipients is what ends it.
pub(super) fn unproven(app: &App) -> Option<Desired> {
    let encryption = app.spec.backup.as_ref()?.encryption.as_ref()?;
    let message = format!(
        "Backups of App {} are encrypted to {}, and no Restore has opened one yet. Restore one by hand with an identity of these \
         recipients, as docs/restore-by-hand.md shows.",
        app.name_any(),
        recipients_of(encryption),
    );
    Some(Desired::new(
        ENCRYPTION_UNPROVEN,
        Status::True,
        Reason::EncryptionUnproven,
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;
    use fairway_crds::encryption::Encryption;

    #[test]
    fn only_encrypted_backups_have_to_be_opened_once() {
        let mut app = bench::app();
        assert_eq!(unproven(&app), None);
        app.spec.backup.as_mut().unwrap().encryption = Some(Encryption {
            recipients: vec!["age1a".to_owned(), "age1b".to_owned()],
        });
        let condition = unproven(&app).unwrap();
        assert_eq!(condition.reason, Reason::EncryptionUnproven);
        assert!(
            condition.message.starts_with(
                "Backups of App crm are encrypted to 2 age recipients, and no Restore has opened one yet."
            ),
            "{}",
            condition.message
        );
    }
}
