//! Enforcement of `require_auth`: what the server asks for is read before the driver answers it with the password.
//!
//! The driver has no such setting. A wrapper around the connection's stream holds back the first message of the server
//! until it is known to be a request that the connection accepts.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connection::authentication::{Method, Methods};

/// Length of the first part of a request for authentication: its kind, its length, the number of the method.
const HEADER: usize = 9;

/// The server asks for a method that the connection does not accept.
#[derive(Debug, thiserror::Error)]
#[error("the server asks for authentication by {}, which require_auth does not accept", .0.name())]
pub(super) struct NotAccepted(Method);

/// What the next bytes of the server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The answer to the question for TLS, one byte.
    Answer,
    /// The first message of the protocol.
    Message,
    /// Anything: the decision was made, or another layer makes it.
    Anything,
}

/// A stream that ends before the driver reads a request which `methods` do not accept.
pub(super) struct Checked<S> {
    stream: S,
    methods: Methods,
    next: Next,
    held: Vec<u8>,
    /// How many of the held bytes the driver has read.
    given: usize,
}

impl<S> Checked<S> {
    /// Checks a stream. Where TLS is asked for on it, and the server agrees, the check is that of the stream inside.
    pub(super) fn new(stream: S, methods: Methods, asks_for_tls: AsksForTls) -> Self {
        let next = match asks_for_tls {
            AsksForTls::Yes => Next::Answer,
            AsksForTls::No => Next::Message,
        };
        Self {
            stream,
            methods,
            next,
            held: Vec::new(),
            given: 0,
        }
    }
}

/// Whether the driver asks for TLS before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AsksForTls {
    Yes,
    No,
}

impl<S: AsyncRead + Unpin> Checked<S> {
    /// Reads until the held bytes may be given on.
    fn poll_decision(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let needed = match (self.next, self.held.first()) {
                (Next::Anything, _) => return Poll::Ready(Ok(())),
                (Next::Answer, _) => 1,
                // An error or a notice: nothing is sent in answer to it.
                (Next::Message, Some(kind)) if *kind != b'R' => {
                    self.next = Next::Anything;
                    return Poll::Ready(Ok(()));
                }
                (Next::Message, _) => HEADER,
            };
            if self.held.len() < needed {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
                match buffer.filled() {
                    [] => {
                        self.next = Next::Anything;
                        return Poll::Ready(Ok(()));
                    }
                    [byte, ..] => self.held.push(*byte),
                }
                continue;
            }
            if self.next == Next::Answer {
                self.next = match self.held[0] {
                    b'S' => Next::Anything,
                    _ => Next::Message,
                };
                return Poll::Ready(Ok(()));
            }
            self.next = Next::Anything;
            let code = self.held[5..HEADER]
                .iter()
                .fold(0, |code, byte| code << 8 | u32::from(*byte));
            let method = Method::of_request(code);
            if !self.methods.accept(method) {
                return Poll::Ready(Err(io::Error::other(NotAccepted(method))));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Checked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given == this.held.len() {
            this.held.clear();
            this.given = 0;
            ready!(this.poll_decision(context))?;
        }
        let left = &this.held[this.given..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Checked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Checked<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// A connector whose TLS streams are checked.
pub(super) struct CheckedTls {
    /// What makes the streams.
    pub(super) connector: MakeRustlsConnect,
    /// What they accept.
    pub(super) methods: Methods,
}

impl CheckedTls {
    /// What connects one stream to a host.
    pub(super) fn to<S>(
        mut self,
        host: &str,
    ) -> CheckedConnect<<MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect>
    where
        MakeRustlsConnect: MakeTlsConnect<S, Error = Infallible>,
    {
        let Ok(connect) = MakeTlsConnect::<S>::make_tls_connect(&mut self.connector, host);
        CheckedConnect {
            connect,
            methods: self.methods,
        }
    }
}

/// Connects one stream.
pub(super) struct CheckedConnect<T> {
    connect: T,
    methods: Methods,
}

impl<S, T> TlsConnect<S> for CheckedConnect<T>
where
    T: TlsConnect<S>,
    T::Stream: Unpin,
    T::Future: Send + 'static,
{
    type Stream = Checked<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, T::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let (connecting, methods) = (self.connect.connect(stream), self.methods);
        Box::pin(async move { Ok(Checked::new(connecting.await?, methods, AsksForTls::No)) })
    }
}
