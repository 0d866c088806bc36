//! Large objects, which a dump in a folder has as files without an end that could be missed.

use std::{fs, io, path::Path};

use tokio_postgres::Client;

use crate::session::cause;

/// Number and total size of large objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargeObjects {
    /// How many there are.
    pub(crate) count: u64,
    /// Bytes in all of them.
    pub(crate) bytes: u64,
}

impl LargeObjects {
    /// Those that the client's transaction sees; none where they could not be measured. Then the transaction can only be
    /// rolled back.
    pub(crate) async fn of(client: &Client) -> Option<Self> {
        // The end of each is looked for, and nothing read. 262144 is INV_READ, 2 is SEEK_END.
        let measured = client
            .query_one(
                "select count(*), coalesce(sum(bytes), 0)::int8 from ( \
                   select lo_lseek64(opened.descriptor, 0, 2) as bytes, lo_close(opened.descriptor) as closed from ( \
                     select lo_open(o.oid, 262144) as descriptor from pg_largeobject_metadata o offset 0 \
                   ) as opened offset 0 \
                 ) as measured",
                &[],
            )
            .await;
        match measured {
            Ok(row) => Some(Self {
                count: row.get::<_, i64>(0).unsigned_abs(),
                bytes: row.get::<_, i64>(1).unsigned_abs(),
            }),
            Err(error) => {
                tracing::warn!(
                    "the sizes of large objects are not compared with the dump: {}",
                    cause(&error)
                );
                None
            }
        }
    }

    /// Those in the folder of a dump that was not compressed.
    pub(crate) fn in_folder(folder: &Path) -> io::Result<Self> {
        let mut found = Self { count: 0, bytes: 0 };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_one = name
                .to_str()
                .and_then(|name| name.strip_prefix("blob_")?.strip_suffix(".dat"))
                .is_some();
            if is_one {
                found.count += 1;
                found.bytes += entry.metadata()?.len();
            }
        }
        Ok(found)
    }
}
