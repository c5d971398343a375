//! Write stalls, as RocksDB tells them in its own log (`LOG` in each database's directory): there is no metric of them.
//!
//! Leaves to others: judging. Invariant: reads only; a line counts once as long as RocksDB keeps its file (four of 4 MiB).

use super::Failure;
use std::fs;
use std::path::Path;

/// What RocksDB says when it slows writes down, and when it stops them.
const TOLD: [&str; 2] = ["Stalling writes because", "Stopping writes because"];

/// How often that was told by all databases below `dir`.
pub(crate) fn told(dir: &Path) -> Result<u64, Failure> {
    let mut found = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found += told(&entry.path())?;
        } else if entry.file_name().to_string_lossy().starts_with("LOG") {
            // A file that was rotated away meanwhile.
            found += fs::read(entry.path()).map_or(0, |text| count(&String::from_utf8_lossy(&text)));
        }
    }
    Ok(found)
}

fn count(text: &str) -> u64 {
    text.lines().filter(|line| TOLD.iter().any(|told| line.contains(told))).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_of_all_databases_count() {
        let dir = tempfile::tempdir().expect("a directory");
        for (database, text) in
            [("a", "x Stopping writes because we have 4 immutable memtables\nwell\n"), ("b", "well\n")]
        {
            let inside = dir.path().join("node").join(database);
            fs::create_dir_all(&inside).and_then(|()| fs::write(inside.join("LOG"), text)).expect("written");
        }
        assert_eq!(told(dir.path()).expect("readable"), 1);
    }
}
