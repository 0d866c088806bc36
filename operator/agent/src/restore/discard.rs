//! The step after a failure or an abort: the restored database that was not put in place is removed.

use fairway_protocol::{Failure, Reason};

use super::{Restore, mark::State, server::Server, sql, swap};
use crate::failure::version;

/// Removes the restored database and the role that loaded it, and opens the one in use if a swap had closed it.
pub(super) async fn discard(restore: &Restore<'_>) -> Result<(), Failure> {
    let server = Server::connect(&restore.connection).await?;
    server.locked_target().await?;
    if server.find(&restore.replaced).await?.is_some() {
        return Err(version(
            Reason::RestoreFailed,
            format!(
                "The restored database is in use: it was put in place before the restore was aborted. The one before it is \
                 kept as {:?}.",
                restore.replaced
            ),
        ));
    }
    if let Some(found) = server.find(&restore.beside).await?
        && let Some(mark) = found.mark(restore.uid())
    {
        if mark.state == State::Swapping {
            swap::reopen(restore, &server, &mark).await?;
        }
        server.drop_database(&restore.beside, found.oid).await?;
    }
    server.drop_loader(&sql::loader(restore.uid())).await
}
