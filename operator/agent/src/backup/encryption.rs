//! Encryption of a backup's files to recipients of age: <https://age-encryption.org/v1>.
//!
//! The agent has public keys alone: it cannot read again what it has encrypted. So a file is proven on its way into the
//! encryption, and what the store returns is compared with what was encrypted, byte for byte.

use std::{
    io::{self, Write},
    sync::Arc,
};

use age::{Encryptor, stream::StreamWriter, x25519};
use fairway_protocol::{Encryption, Failure, Reason};

use crate::failure::environment as environment_failure;

/// End of the name of an encrypted file.
pub(crate) const ENDING: &str = ".age";

/// To whom files are encrypted; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Recipients(Arc<[x25519::Recipient]>);

impl Recipients {
    /// Reads the recipients that the App names.
    ///
    /// # Errors
    /// `RecipientInvalid` when one of them is none: what is encrypted to it could never be read.
    pub(crate) fn parse(encryption: &Encryption) -> Result<Self, Failure> {
        let mut recipients: Vec<x25519::Recipient> = Vec::new();
        for recipient in &encryption.recipients {
            // A recipient is public, but what is in its place by mistake may not be.
            let number = recipients.len() + 1;
            recipients.push(recipient.parse().map_err(|what| {
                environment_failure(
                    Reason::RecipientInvalid,
                    format!(
                        "Recipient {number} of spec.backup.encryption of the App is not an age recipient ({what}). Copy the \
                         public key that age-keygen printed."
                    ),
                )
            })?);
        }
        match recipients.is_empty() {
            false => Ok(Self(recipients.into())),
            true => Err(environment_failure(
                Reason::RecipientInvalid,
                "spec.backup.encryption of the App names no recipient. Add the public key that age-keygen printed, or remove \
                 encryption.",
            )),
        }
    }

    /// A writer that encrypts to all recipients, with a key of its own. It holds one chunk of 64 KiB.
    pub(super) fn encrypt<W: Write>(&self, to: W) -> io::Result<StreamWriter<W>> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        Encryptor::with_recipients(recipients)
            .map_err(io::Error::other)?
            .wrap_output(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Recipients of these identities.
    fn recipients(identities: &[&x25519::Identity]) -> Recipients {
        Recipients::parse(&Encryption {
            recipients: identities
                .iter()
                .map(|identity| identity.to_public().to_string())
                .collect(),
        })
        .unwrap()
    }

    fn encrypted(recipients: &Recipients, content: &[u8]) -> Vec<u8> {
        let mut writer = recipients.encrypt(Vec::new()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn decrypted(identity: &x25519::Identity, content: &[u8]) -> io::Result<Vec<u8>> {
        let identity: &dyn age::Identity = identity;
        let decryptor = age::Decryptor::new(content).map_err(io::Error::other)?;
        let mut reader = decryptor
            .decrypt(std::iter::once(identity))
            .map_err(io::Error::other)?;
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn the_identity_of_each_recipient_opens_it_and_no_other() {
        let [first, second, other] = [(); 3].map(|()| x25519::Identity::generate());
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let stored = encrypted(&recipients(&[&first, &second]), &content);
        for identity in [&first, &second] {
            assert_eq!(decrypted(identity, &stored).unwrap(), content);
        }
        assert!(decrypted(&other, &stored).is_err());
    }

    #[test]
    fn what_was_cut_off_or_changed_does_not_open() {
        let identity = x25519::Identity::generate();
        let stored = encrypted(&recipients(&[&identity]), &[7; 200_000]);
        let mut changed = stored.clone();
        changed[100_000] ^= 1;
        for damaged in [&stored[..stored.len() - 1], &stored[..70_000], &[], &changed[..]] {
            assert!(decrypted(&identity, damaged).is_err(), "{} bytes", damaged.len());
        }
    }

    #[test]
    fn a_wrong_character_is_found_and_nothing_quoted() {
        let recipient = x25519::Identity::generate().to_public().to_string();
        let last = if recipient.ends_with('q') { 'p' } else { 'q' };
        let mut wrong = recipient.clone();
        wrong.pop();
        wrong.push(last);
        for recipient in [&*wrong, "age1", "AGE-SECRET-KEY-1QQQ", ""] {
            let encryption = Encryption {
                recipients: vec![recipient.to_owned()],
            };
            let failure = Recipients::parse(&encryption).unwrap_err();
            assert_eq!(failure.reason, Reason::RecipientInvalid);
            assert!(
                recipient.is_empty() || !failure.message.contains(recipient),
                "{}",
                failure.message
            );
        }
        let none = Encryption {
            recipients: Vec::new(),
        };
        assert_eq!(
            Recipients::parse(&none).unwrap_err().reason,
            Reason::RecipientInvalid
        );
    }
}
