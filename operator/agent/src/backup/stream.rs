//! Streams between PostgreSQL's programs and the store, hashed on both sides of the compression.

use std::io::{self, BufReader, ErrorKind, Read, Write};

use fairway_protocol::{Failure, Reason};
use sha2::{Digest as _, Sha256};

use super::manifest::StoredFile;
use crate::{
    blocking::blocking,
    failure::environment as environment_failure,
    store::{Attempt, PutError, ReadFailed, Writer, pipe},
    text::hex,
};

/// The level of compression: zstd's default, fast enough not to slow a dump down.
const LEVEL: i32 = 3;
/// Size of one read.
const CHUNK: usize = 256 * 1024;

/// A reader or writer that counts and hashes the bytes that pass.
pub(crate) struct Meter<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Meter<T> {
    /// A meter around a reader or a writer.
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Number and SHA-256 of the bytes that passed.
    pub(crate) fn finish(self) -> (u64, String) {
        (self.bytes, hex(&self.hash.finalize()))
    }

    fn count(&mut self, passed: &[u8]) {
        self.hash.update(passed);
        self.bytes += passed.len() as u64;
    }
}

impl<T: Write> Write for Meter<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.count(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Meter<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count(&buffer[..read]);
        Ok(read)
    }
}

/// Why a file was not filled.
#[derive(Debug)]
pub(crate) enum FillError {
    /// Reading or writing failed: the store takes no more, or the scratch volume cannot be read.
    Io(io::Error),
    /// Anything else.
    Failure(Failure),
}

impl From<io::Error> for FillError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Failure> for FillError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl FillError {
    /// The failure to report, where the store did not fail.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Io(error) => environment_failure(
                Reason::DumpFailed,
                format!("The dump could not be read ({error}). Check the scratch volume, if there is one."),
            ),
            Self::Failure(failure) => failure,
        }
    }
}

/// Stores a file of an attempt: what `fill` writes, compressed.
///
/// # Errors
/// Those of the store, and of `fill` where the store did not fail.
pub(crate) async fn upload(
    attempt: &dyn Attempt,
    file: &str,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), FillError> + Send + 'static,
) -> Result<StoredFile, Failure> {
    let (writer, content) = pipe();
    let filling = blocking(move || compress(writer, fill));
    match tokio::join!(filling, attempt.put(file, content)) {
        // When the store takes no more, the writer fails too, but not by itself.
        (_, Err(PutError::Store(failure))) => Err(failure),
        (Err(error), _) => Err(error.failure()),
        (Ok(compressed), Ok(objects)) => Ok(compressed.stored_as(file, objects)),
        (Ok(_), Err(PutError::Incomplete)) => Err(environment_failure(
            Reason::AgentFailed,
            format!("The store received only part of {file}."),
        )),
    }
}

/// Sizes and hashes of what was compressed.
pub(crate) struct Compressed {
    bytes: u64,
    sha256: String,
    plain_bytes: u64,
    plain_sha256: String,
}

impl Compressed {
    /// The stored file of this name, in these objects.
    pub(crate) fn stored_as(self, name: &str, objects: Vec<String>) -> StoredFile {
        let Self {
            bytes,
            sha256,
            plain_bytes,
            plain_sha256,
        } = self;
        StoredFile {
            name: name.to_owned(),
            objects,
            bytes,
            sha256,
            plain_bytes,
            plain_sha256,
        }
    }
}

/// Compresses whatever `fill` writes.
pub(crate) fn compress(
    mut writer: Writer,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), FillError>,
) -> Result<Compressed, FillError> {
    let encoder = zstd::Encoder::new(Meter::new(&mut writer), LEVEL)?;
    let mut plain = Meter::new(encoder);
    fill(&mut plain)?;
    let Meter {
        inner: encoder,
        hash,
        bytes: plain_bytes,
    } = plain;
    let (bytes, sha256) = encoder.finish()?.finish();
    writer.finish()?;
    Ok(Compressed {
        bytes,
        sha256,
        plain_bytes,
        plain_sha256: hex(&hash.finalize()),
    })
}

/// The hashes of a stored file that was read to its end.
pub(crate) struct ReadBack {
    /// SHA-256 as stored.
    pub(crate) sha256: String,
    /// SHA-256 of what it decompressed to, if all of it did.
    pub(crate) plain_sha256: io::Result<String>,
}

/// Reads a stored file once: hashes it, decompresses it and lets `take` read the result, as far as that wants to. Returns
/// what `take` returned beside the hashes.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn read_through<T>(
    content: impl Read,
    take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<(ReadBack, io::Result<T>)> {
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(CHUNK, Meter::new(content)))?;
    let (taken, plain_sha256) = take_all(&mut decoder, take)?;
    let sha256 = rest_of(decoder)?;
    Ok((ReadBack { sha256, plain_sha256 }, taken))
}

/// What `take` returned for a plain stream, and the SHA-256 of all of it.
fn take_all<T>(
    plain: &mut dyn Read,
    take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<(io::Result<T>, io::Result<String>)> {
    let mut plain = Meter::new(plain);
    let taken = match take(&mut plain) {
        Err(error) if ReadFailed::of(&error).is_some() => return Err(error),
        outcome => outcome,
    };
    let rest = match pump(&mut plain, &mut io::sink()) {
        Err(error) if ReadFailed::of(&error).is_some() => return Err(error),
        outcome => outcome,
    };
    Ok((taken, rest.map(|()| plain.finish().1)))
}

/// SHA-256 of a stored file of which a decoder has read some: what follows a frame that cannot be read still belongs to it.
fn rest_of(decoder: zstd::Decoder<'_, BufReader<Meter<impl Read>>>) -> io::Result<String> {
    let mut stored = decoder.finish().into_inner();
    io::copy(&mut stored, &mut io::sink())?;
    Ok(stored.finish().1)
}

/// Reads a stored file once: hashes it, decompresses it and writes the result to `take`, as long as that accepts it.
pub(crate) fn read_back(content: impl Read, take: &mut dyn Write) -> io::Result<ReadBack> {
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(CHUNK, Meter::new(content)))?;
    let plain_sha256 = match decompress(&mut decoder, take) {
        Err(error) if ReadFailed::of(&error).is_some() => return Err(error),
        outcome => outcome,
    };
    let sha256 = rest_of(decoder)?;
    Ok(ReadBack { sha256, plain_sha256 })
}

fn decompress(decoder: &mut impl Read, take: &mut dyn Write) -> io::Result<String> {
    let mut plain = Meter::new(decoder);
    let mut buffer = vec![0; CHUNK];
    let mut taken = true;
    loop {
        match plain.read(&mut buffer)? {
            0 => return Ok(plain.finish().1),
            // A program that stopped reading says why by its exit status; the hash needs the rest all the same.
            count if taken => match take.write_all(&buffer[..count]) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => taken = false,
                outcome => outcome?,
            },
            _ => {}
        }
    }
}

/// Copies everything from a reader to a writer in large pieces.
pub(crate) fn pump(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a store has of this content, and how the content was stored.
    fn stored(content: &[u8]) -> (Vec<u8>, StoredFile) {
        let (writer, mut stored) = pipe();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stored.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let compressed = compress(writer, |to| Ok(to.write_all(content)?)).unwrap();
        (reader.join().unwrap(), compressed.stored_as("x", Vec::new()))
    }

    fn again(bytes: Vec<u8>, take: &mut dyn Write) -> ReadBack {
        let (writer, content) = pipe();
        std::thread::spawn(move || writer.copy(&mut bytes.as_slice()));
        read_back(content, take).unwrap()
    }

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (bytes, stored) = stored(&content);
        assert_eq!(stored.bytes, bytes.len() as u64);
        assert_eq!(stored.plain_bytes, content.len() as u64);
        let mut taken = Vec::new();
        let read = again(bytes, &mut taken);
        assert_eq!(taken, content);
        assert_eq!(read.sha256, stored.sha256);
        assert_eq!(read.plain_sha256.unwrap(), stored.plain_sha256);
    }

    #[test]
    fn a_flipped_bit_is_detected() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut bytes, written) = stored(&content);
        let middle = bytes.len() / 2;
        bytes[middle..middle + 3].copy_from_slice(&[0xAA, 0x55, 0xAA]);
        let read = again(bytes, &mut io::sink());
        assert_ne!(read.sha256, written.sha256);
        assert!(read.plain_sha256.ok() != Some(written.plain_sha256));
    }

    #[test]
    fn a_store_that_fails_while_it_is_read_is_not_taken_for_a_corrupt_one() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (bytes, _) = stored(&content);
        let (writer, content) = pipe();
        std::thread::spawn(move || {
            let unreachable = environment_failure(Reason::StoreUnreachable, "gone");
            let fails = Fails(Some(io::Error::other(ReadFailed(unreachable))));
            writer.copy(&mut bytes[..bytes.len() / 2].chain(fails));
        });
        let error = read_back(content, &mut io::sink()).err().unwrap();
        assert_eq!(ReadFailed::of(&error).unwrap().reason, Reason::StoreUnreachable);
    }

    struct Fails(Option<io::Error>);

    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or(Ok(0), Err)
        }
    }

    #[test]
    fn a_missing_end_is_detected() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut bytes, written) = stored(&content);
        bytes.truncate(bytes.len() - 10);
        let read = again(bytes, &mut io::sink());
        assert_ne!(read.sha256, written.sha256);
        assert!(read.plain_sha256.is_err(), "the frame has no end");
    }
}
