//! What is watched.

use crate::kinds::Kind;
use std::fmt;
use std::sync::Arc;

/// What one watch shows: the objects of a kind, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// The namespace; `None` for all.
    pub namespace: Option<Arc<str>>,
}

impl Watched {
    /// A kind in that namespace, or in all.
    pub fn new(kind: Kind, namespace: Option<&str>) -> Self {
        Self {
            kind,
            namespace: namespace.map(Arc::from),
        }
    }

    /// Every kind in each of these namespaces; without any, in all.
    pub(crate) fn all(namespaces: &[String]) -> impl Iterator<Item = Self> {
        let everywhere = namespaces.is_empty().then_some(None);
        let namespaces = namespaces.iter().map(|namespace| Some(&**namespace));
        let namespaces = everywhere.into_iter().chain(namespaces);
        namespaces.flat_map(|namespace| Kind::ALL.map(|kind| Self::new(kind, namespace)))
    }
}

/// In all namespaces.
impl From<Kind> for Watched {
    fn from(kind: Kind) -> Self {
        Self::new(kind, None)
    }
}

/// `Pod`, or `Pod in namespace shop`.
impl fmt::Display for Watched {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(self.kind.as_str())?;
        match &self.namespace {
            Some(namespace) => write!(text, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}
