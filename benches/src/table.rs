//! The table of the append race: every shape, our contestants and the caller's, ratios to the bare WAL writer.
//!
//! Arguments of the command line: `--seconds S` per contestant and shape, `--dir DIR`, `--groups N`, `--entries N`,
//! `--only NAME,..` (parts of names).
#![allow(clippy::print_stdout, reason = "the output of a bench")]

use crate::append::{Contestant, Shape, race};
use crate::contestants::{OwnStore, RawFile, Rocks, Unit};
use std::path::Path;
use std::time::Duration;

/// Runs all shapes and prints the table. `more` opens further contestants under a directory.
///
/// # Panics
/// If an argument makes no sense or the disk refuses.
pub fn run(more: impl Fn(&Path) -> Vec<Box<dyn Contestant>>) {
    let args: Vec<String> = std::env::args().collect();
    let arg = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1).cloned());
    let seconds = arg("--seconds").map_or(1.0, |s| s.parse().expect("--seconds takes a number"));
    let base = arg("--dir").map_or_else(std::env::temp_dir, Into::into);
    let only = arg("--only");
    let list = |name: &str, all: [usize; 4]| match arg(name) {
        Some(one) => vec![one.parse().expect("a number")],
        None => all.into_iter().filter(|n| *n > 0).collect(),
    };
    for groups in list("--groups", [1, 256, 0, 0]) {
        for entries in list("--entries", [1, 32, 512, 4096]) {
            let dir = tempfile::tempdir_in(&base).expect("--dir exists");
            let mut all = contestants(dir.path());
            all.extend(more(dir.path()));
            all.retain(|c| only.as_ref().is_none_or(|only| only.split(',').any(|part| c.name().contains(part))));
            print(Shape { entries, groups }, &mut all, Duration::from_secs_f64(seconds));
        }
    }
}

fn contestants(dir: &Path) -> Vec<Box<dyn Contestant>> {
    let sub = |name: &str| {
        let sub = dir.join(name);
        std::fs::create_dir(&sub).expect("a new directory");
        sub
    };
    vec![
        Box::new(RawFile::new(&sub("grow"), false)),
        Box::new(RawFile::new(&sub("pre"), true)),
        Box::new(Rocks::new(&sub("bare"), Unit::Bare)),
        Box::new(Rocks::new(&sub("entry"), Unit::Entry)),
        Box::new(Rocks::new(&sub("block"), Unit::Block)),
        Box::new(Rocks::new(&sub("batch"), Unit::Batch)),
        Box::new(OwnStore::new(&sub("own"))),
    ]
}

fn print(shape: Shape, all: &mut [Box<dyn Contestant>], time: Duration) {
    let scores = race(shape, all, time, 5);
    let bare = scores.iter().find(|s| s.name == Unit::Bare.name()).map_or(1.0, |s| s.rate);
    println!("{} entries over {} groups", shape.entries, shape.groups);
    for s in scores {
        let ratio = s.rate / bare;
        println!("  {:<20} {:>11.0} entries/s  p50 {:>9.1?}  {ratio:.2} of bare", s.name, s.rate, s.p50);
    }
}
