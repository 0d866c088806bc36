//! What a user agrees to lose: the value of the annotation `fairway.dev/restore`.

use crate::requester;
use fairway_crds::restore::{RestoreAgreement, RestoreLoss};

/// The bound of a user to whom no loss is too much.
pub(super) const ANY: &str = "any";

/// The answer of a user: `[<user>/]<rows>:<token>` or `[<user>/]any:<token>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    rows: Option<i64>,
    by: Option<String>,
}

impl Agreement {
    /// The agreement in a value; `None` when the value has another form.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let (by, rest) = requester::split(value);
        let (bound, token) = rest.split_once(':')?;
        let rows = match bound {
            ANY => None,
            rows => Some(rows.parse().ok().filter(|rows: &i64| *rows >= 0)?),
        };
        (!token.is_empty()).then(|| Self {
            rows,
            by: by.map(str::to_owned),
        })
    }

    /// Whether the user agrees to a loss.
    pub(super) fn covers(&self, loss: &RestoreLoss) -> bool {
        self.rows
            .is_none_or(|rows| loss.rows <= rows && loss.uncounted.is_none())
    }

    /// Why an agreement that does not cover a loss is none, as a sentence.
    pub(super) fn falls_short(&self) -> String {
        let rows = self.rows.unwrap_or_default();
        format!("The agreement to lose {rows} row changes is not enough.")
    }

    /// The agreement as the status has it.
    pub(super) fn recorded(self) -> RestoreAgreement {
        let Self { rows, by } = self;
        RestoreAgreement { rows, by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("11:1", Some((Some(11), None)))]
    #[case("any:1", Some((None, None)))]
    #[case("alice/0:1", Some((Some(0), Some("alice"))))]
    #[case("any", None)]
    #[case("any:", None)]
    #[case("-1:1", None)]
    #[case("all:1", None)]
    fn an_agreement_has_a_bound_and_a_token(
        #[case] value: &str,
        #[case] expected: Option<(Option<i64>, Option<&str>)>,
    ) {
        let expected = expected.map(|(rows, by)| Agreement {
            rows,
            by: by.map(str::to_owned),
        });
        assert_eq!(Agreement::parse(value), expected);
    }

    #[test]
    fn a_number_agrees_to_nothing_that_is_not_counted() {
        let loss = |rows, uncounted: Option<&str>| RestoreLoss {
            rows,
            tables: 1,
            largest: Vec::new(),
            uncounted: uncounted.map(str::to_owned),
        };
        let bound = |value| Agreement::parse(value).unwrap();
        assert!(bound("5:1").covers(&loss(5, None)));
        assert!(!bound("5:1").covers(&loss(6, None)));
        assert!(!bound("5:1").covers(&loss(0, Some("reset"))));
        assert!(bound("any:1").covers(&loss(6, Some("reset"))));
    }
}
