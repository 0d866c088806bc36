//! Streams between PostgreSQL's programs and the store, hashed on both sides of the compression.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Write},
};

use sha2::{Digest as _, Sha256};

use super::manifest::StoredFile;
use crate::fingerprint::hex;

/// zstd's default: fast enough not to slow a dump down.
const LEVEL: i32 = 3;
/// Size of one read.
const CHUNK: usize = 256 * 1024;

/// Counts and hashes what passes.
pub(crate) struct Meter<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Meter<T> {
    /// Around a reader or a writer.
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Bytes and SHA-256 of what passed.
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

/// Compresses into a file whatever `fill` writes.
pub(crate) fn compress<E: From<io::Error>>(
    name: &str,
    file: &mut File,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<StoredFile, E> {
    let encoder = zstd::Encoder::new(Meter::new(file), LEVEL)?;
    let mut plain = Meter::new(encoder);
    fill(&mut plain)?;
    let Meter {
        inner: encoder,
        hash,
        bytes: plain_bytes,
    } = plain;
    let (bytes, sha256) = encoder.finish()?.finish();
    Ok(StoredFile {
        name: name.to_owned(),
        bytes,
        sha256,
        plain_bytes,
        plain_sha256: hex(&hash.finalize()),
    })
}

/// What was found when a stored file was read to its end.
pub(crate) struct ReadBack {
    /// SHA-256 as stored.
    pub(crate) sha256: String,
    /// SHA-256 of what it decompressed to, if all of it did.
    pub(crate) plain_sha256: io::Result<String>,
}

/// Reads a stored file once: hashes it, decompresses it and gives the result to `take`, as long as that takes it.
pub(crate) fn read_back(file: File, take: &mut dyn Write) -> io::Result<ReadBack> {
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(CHUNK, Meter::new(file)))?;
    let plain_sha256 = decompress(&mut decoder, take);
    // What follows a frame that cannot be read still belongs to the stored hash.
    let mut stored = decoder.finish().into_inner();
    io::copy(&mut stored, &mut io::sink())?;
    let (_, sha256) = stored.finish();
    Ok(ReadBack { sha256, plain_sha256 })
}

fn decompress(decoder: &mut impl Read, take: &mut dyn Write) -> io::Result<String> {
    let mut plain = Meter::new(decoder);
    let mut buffer = vec![0; CHUNK];
    let mut taken = true;
    loop {
        match plain.read(&mut buffer)? {
            0 => return Ok(plain.finish().1),
            // Whoever stopped reading says why by its exit status; the hash needs the rest all the same.
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
    use std::io::{Seek as _, SeekFrom};

    use super::*;

    fn stored(content: &[u8]) -> (File, StoredFile) {
        let mut file = tempfile::tempfile().unwrap();
        let stored = compress::<io::Error>("x", &mut file, |to| to.write_all(content)).unwrap();
        file.rewind().unwrap();
        (file, stored)
    }

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (file, stored) = stored(&content);
        assert_eq!(stored.bytes, file.metadata().unwrap().len());
        assert_eq!(stored.plain_bytes, content.len() as u64);
        let mut taken = Vec::new();
        let read = read_back(file, &mut taken).unwrap();
        assert_eq!(taken, content);
        assert_eq!(read.sha256, stored.sha256);
        assert_eq!(read.plain_sha256.unwrap(), stored.plain_sha256);
    }

    #[test]
    fn a_flipped_bit_and_a_cut_end_are_noticed() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut file, written) = stored(&content);
        file.seek(SeekFrom::Start(written.bytes / 2)).unwrap();
        file.write_all(&[0xAA, 0x55, 0xAA]).unwrap();
        file.rewind().unwrap();
        let read = read_back(file, &mut io::sink()).unwrap();
        assert_ne!(read.sha256, written.sha256);
        assert!(read.plain_sha256.ok() != Some(written.plain_sha256));

        let (file, written) = stored(&content);
        file.set_len(written.bytes - 10).unwrap();
        let read = read_back(file, &mut io::sink()).unwrap();
        assert_ne!(read.sha256, written.sha256);
        assert!(read.plain_sha256.is_err(), "the frame has no end");
    }
}
