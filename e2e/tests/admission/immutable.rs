//! What has happened cannot be rewritten: the spec of a Release, a Migration, a Backup and a Restore never changes, but for
//! how long a Backup is kept.

use super::{Effect, Refusal, backup, create, migration, patch, release, restore};
use anyhow::Result;
use fairway_e2e::ns::with_temp_ns;
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::release(release(), json!({"spec": {"images": {"web": "other:1"}}}), "a Release cannot be changed; edit the App instead")]
#[case::migration(migration(), json!({"spec": {"timeout": "1h"}}), "a Migration cannot be changed")]
#[case::backup(backup(), json!({"spec": {"reason": "another"}}), "a Backup cannot be changed")]
#[case::restore(restore(), json!({"spec": {"from": {"backup": "another"}}}), "a Restore cannot be changed")]
#[tokio::test]
async fn the_spec_is_refused_and_an_annotation_is_not(
    #[case] object: Value,
    #[case] change: Value,
    #[case] message: &'static str,
) -> Result<()> {
    with_temp_ns(|context| async move {
        let (client, namespace) = (&context.client, context.namespace.as_str());
        let stored = create(client, namespace, &object, Effect::Stored, None).await?;
        assert!(stored.is_ok(), "{stored:?}");

        let Err(Refusal { code, causes, .. }) = patch(client, namespace, &object, &change, None).await?
        else {
            panic!("the change was let in");
        };
        assert_eq!((code, causes.len()), (422, 1), "{causes:?}");
        assert_eq!(causes[0].0, "spec");
        assert!(causes[0].1.contains(message), "{causes:?}");

        let verb = json!({"metadata": {"annotations": {"fairway.dev/abort": "now"}}});
        let answer = patch(client, namespace, &object, &verb, None).await?;
        assert!(answer.is_ok(), "a user's verb is an annotation: {answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backup_may_be_kept_for_longer() -> Result<()> {
    with_temp_ns(|context| async move {
        let (client, namespace) = (&context.client, context.namespace.as_str());
        let stored = create(client, namespace, &backup(), Effect::Stored, None).await?;
        assert!(stored.is_ok(), "{stored:?}");
        for until in [
            json!("2027-01-31T00:00:00Z"),
            json!("2027-01-31T00:00:00.5+01:00"),
            json!("9998-12-31T23:59:59Z"),
            Value::Null,
        ] {
            let change = json!({"spec": {"keepUntil": until}});
            let answer = patch(client, namespace, &backup(), &change, None).await?;
            assert!(answer.is_ok(), "{answer:?}");
        }
        for until in [
            "2027-01-31",
            "2027-02-30T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "tomorrow",
        ] {
            let change = json!({"spec": {"keepUntil": until}});
            let answer = patch(client, namespace, &backup(), &change, None).await?;
            let refusal = answer.expect_err("it was let in");
            assert_eq!(refusal.code, 422, "{refusal:?}");
        }
        Ok(())
    })
    .await
}
