//! Appends of one batch, durable: the record units, the bare RocksDB WAL writer, the raw file, in one run.
//!
//! `cargo bench -p pontoon-benches --bench log_store [-- --seconds 2 --dir DIR]`. Gates nothing.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use pontoon_benches::append::{Contestant, Shape, race};
use pontoon_benches::contestants::{RawFile, Rocks, Unit};
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |name: &str| args.iter().position(|a| a == name).map(|i| args[i + 1].clone());
    let time = Duration::from_secs_f64(arg("--seconds").map_or(1.0, |s| s.parse().unwrap()));
    let base = arg("--dir").map_or_else(std::env::temp_dir, Into::into);
    for groups in [1, 256] {
        for entries in [1, 32, 512, 4096] {
            let dir = tempfile::tempdir_in(&base).unwrap();
            let sub = |n: &str| {
                let d = dir.path().join(n);
                std::fs::create_dir(&d).unwrap();
                d
            };
            let mut all: Vec<Box<dyn Contestant>> = vec![
                Box::new(RawFile::new(&sub("raw"), false)),
                Box::new(RawFile::new(&sub("pre"), true)),
                Box::new(Rocks::new(&sub("bare"), Unit::Bare)),
                Box::new(Rocks::new(&sub("entry"), Unit::Entry)),
                Box::new(Rocks::new(&sub("block"), Unit::Block)),
                Box::new(Rocks::new(&sub("batch"), Unit::Batch)),
            ];
            let shape = Shape { entries, groups };
            let scores = race(shape, &mut all, time, 5);
            let bare = scores.iter().find(|s| s.name == "bare RocksDB WAL").unwrap().rate;
            println!("{entries} entries over {groups} groups");
            for s in scores {
                println!(
                    "  {:<20} {:>12.0} entries/s  p50 {:>9.1?}  {:.2} of bare",
                    s.name,
                    s.rate,
                    s.p50,
                    s.rate / bare
                );
            }
        }
    }
}
