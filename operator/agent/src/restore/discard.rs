//! The step after a failure or an abort: the restored database that was not put in place is removed.

use fairway_protocol::{Failure, SwappedDatabase};

use super::{context::Restore, mark::State, server::Server, sql, swap};

/// Removes the restored database and the role that loaded it, and opens the one in use if a swap had closed it. Returns what
/// was replaced where an earlier step had put the restored database in place: then nothing is removed.
pub(super) async fn discard(restore: &Restore<'_>) -> Result<Option<SwappedDatabase>, Failure> {
    let server = Server::connect(&restore.connection).await?;
    server.locked_target().await?;
    if let Some(swapped) = swap::swapped(restore, &server).await? {
        server.drop_loader(&sql::loader(restore.uid())).await?;
        return Ok(Some(swapped));
    }
    if let Some(found) = server.find(&restore.beside).await?
        && let Some(mark) = found.mark(restore.uid())
    {
        if mark.state == State::Swapping {
            server.reopen(&restore.beside, &mark).await?;
        }
        server.drop_database(&restore.beside, found.oid).await?;
    }
    server.drop_loader(&sql::loader(restore.uid())).await?;
    Ok(None)
}
