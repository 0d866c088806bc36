//! The content of a file on its way into a store or out of it: pieces in a bounded channel, between a thread that
//! compresses or decompresses and the store, which may be asynchronous.

use std::io::{self, ErrorKind, Read, Write};

use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

/// Size of one piece.
const PIECE: usize = 256 * 1024;
/// Number of pieces that may wait in the channel.
const PIECES: usize = 4;

/// A piece, the end, or why there is no more.
type Message = io::Result<Option<Vec<u8>>>;

/// The two ends of a file's content. Content whose writer is dropped before [`Writer::finish`] reads as cut off.
pub(crate) fn pipe() -> (Writer, Content) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let writer = Writer {
        sender,
        piece: Vec::with_capacity(PIECE),
    };
    let content = Content {
        receiver,
        piece: Vec::new(),
        read: 0,
        ended: false,
    };
    (writer, content)
}

/// The end of a pipe that is written to, by a thread that may block.
pub(crate) struct Writer {
    sender: mpsc::Sender<Message>,
    piece: Vec<u8>,
}

impl Writer {
    /// Writes the rest, and that it is the rest.
    ///
    /// # Errors
    /// When the content is no longer read.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.send_piece()?;
        self.send(Ok(None))
    }

    /// Writes everything from a reader, and that it is all, or why it is not.
    pub(crate) fn copy(mut self, from: &mut dyn Read) {
        // Nobody is left to tell when the content is no longer read.
        let _ = match io::copy(from, &mut self) {
            Ok(_) => self.finish(),
            Err(error) => self.send(Err(error)),
        };
    }

    /// Forwards what an asynchronous source yields, and that it is all, or why it is not.
    pub(super) async fn forward(self, mut source: impl Stream<Item = io::Result<Vec<u8>>> + Unpin) {
        let sent = loop {
            let message = source.next().await.transpose();
            let more = matches!(message, Ok(Some(_)));
            let sent = self.sender.send(message).await;
            if !more || sent.is_err() {
                break sent;
            }
        };
        // Nobody is left to tell when the content is no longer read.
        let _ = sent;
    }

    fn send_piece(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(Ok(Some(piece)))
    }

    fn send(&self, message: Message) -> io::Result<()> {
        self.sender
            .blocking_send(message)
            .map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send_piece()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a pipe that is read from: by an asynchronous task piece by piece, or by a thread that may block.
pub(crate) struct Content {
    receiver: mpsc::Receiver<Message>,
    piece: Vec<u8>,
    read: usize,
    ended: bool,
}

impl Content {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// Why there is no more: what the writer said, or `UnexpectedEof` when it was dropped before the end.
    pub(crate) async fn next(&mut self) -> Message {
        let received = self.receiver.recv().await;
        self.take(received)
    }

    fn take(&mut self, received: Option<Message>) -> Message {
        match received {
            Some(Ok(None)) => {
                self.ended = true;
                Ok(None)
            }
            Some(message) => message,
            None if self.ended => Ok(None),
            None => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the content was cut off",
            )),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            let received = self.receiver.blocking_recv();
            match self.take(received)? {
                Some(piece) => (self.piece, self.read) = (piece, 0),
                None => return Ok(0),
            }
        }
        let left = &self.piece[self.read..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(count)
    }
}
