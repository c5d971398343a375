//! The file that makes a directory a log store: format version and the store's random name.
//!
//! `magic 8 | format u32 | store u64 | crc32c u32`, little-endian; magic and format stay where they are for ever.
//! Invariant: written once, before the directory gets its final name; never changed.

use crate::envelope::StoreId;
use crate::error::{Doing, OpenError};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Name of the file.
pub(crate) const FILE: &str = "IDENTITY";
/// Format of the directory that this build writes and the highest it reads.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"PTNWAL\r\n";
const LEN: usize = 24;

/// Makes a name and writes it, synced.
pub(crate) fn create(dir: &Path) -> Result<StoreId, OpenError> {
    let mut random = [0; 8];
    let source = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut random));
    source.doing(|| "read randomness".into())?;
    let store = StoreId(u64::from_le_bytes(random));
    let written = File::create_new(dir.join(FILE)).and_then(|mut f| {
        f.write_all(&encode(store))?;
        f.sync_all()
    });
    written.doing(|| format!("write {FILE}"))?;
    Ok(store)
}

/// Reads the name; refuses what is missing, damaged or too new.
pub(crate) fn read(dir: &Path) -> Result<StoreId, OpenError> {
    let bytes = match std::fs::read(dir.join(FILE)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::NotWhole(format!("{FILE} is missing")));
        }
        other => other.doing(|| format!("read {FILE}"))?,
    };
    decode(&bytes)
}

fn encode(store: StoreId) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..20].copy_from_slice(&store.0.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<StoreId, OpenError> {
    let damaged = |what: &str| OpenError::NotWhole(format!("{FILE} {what}"));
    let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| damaged("is not a log store's"))?;
    let (format, rest) = rest.split_first_chunk().ok_or_else(|| damaged("is cut short"))?;
    let found = u32::from_le_bytes(*format);
    if found > FORMAT {
        return Err(OpenError::TooNew { found, known: FORMAT });
    }
    let (store, crc) = rest.split_first_chunk().ok_or_else(|| damaged("is cut short"))?;
    if found != FORMAT || crc != crc32c::crc32c(&bytes[..20]).to_le_bytes() {
        return Err(damaged("is damaged"));
    }
    Ok(StoreId(u64::from_le_bytes(*store)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bytes_are_pinned_and_every_flip_is_noticed() {
        let bytes = encode(StoreId(0x0102_0304_0506_0708));
        assert_eq!(bytes[..20], *b"PTNWAL\r\n\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(decode(&bytes).unwrap(), StoreId(0x0102_0304_0506_0708));
        for bit in 0..LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            decode(&bad).unwrap_err();
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert!(matches!(decode(&newer[..12]), Err(OpenError::TooNew { found: 2, known: 1 })));
    }
}
