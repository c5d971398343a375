//! Builds `shim.c` and knows what a process must be told to run under it; and the proof that shim and roll-back do
//! what they say, on a child process with a script of file operations.
//!
//! Leaves to others: the roll-back (`undo`). Invariant: one journal per start of a process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, built.
pub(crate) struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Builds it below `dir`, in which the journals will be, too.
    pub(crate) fn build(dir: &Path) -> Shim {
        let library = dir.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pagecache/shim.c");
        let built =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-pthread", "-o"]).args([&library, &source]).output();
        let built = built.unwrap_or_else(|e| panic!("no C compiler (apt-get install gcc): {e}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Shim { library }
    }

    /// Records of one start on `data`.
    pub(crate) fn journal(&self, data: &Path, round: &str) -> PathBuf {
        let name = data.file_name().map(OsString::from).unwrap_or_default();
        self.library.with_file_name(format!("{}.{round}.journal", name.display()))
    }

    /// What a process on `data` is started with. `lie`: ending of the paths whose syncs are left out; empty: of all.
    pub(crate) fn env(&self, data: &Path, round: &str, lie: Option<&str>) -> Vec<(&'static str, PathBuf)> {
        std::fs::create_dir_all(data).unwrap();
        let mut env = vec![
            ("LD_PRELOAD", self.library.clone()),
            ("PAGECACHE_ROOT", data.canonicalize().unwrap()),
            ("PAGECACHE_JOURNAL", self.journal(data, round)),
        ];
        env.extend(lie.map(|of| ("PAGECACHE_LIE", PathBuf::from(of))));
        env
    }

    /// Removes the records of one start.
    pub(crate) fn forget(&self, data: &Path, round: &str) {
        let journal = self.journal(data, round);
        std::fs::remove_dir_all(format!("{}.d", journal.display())).unwrap();
        std::fs::remove_file(journal).unwrap();
    }
}

mod proof {
    use super::Shim;
    use crate::undo::{Cut, roll_back};
    use std::collections::BTreeSet;
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::process::Command;

    const CHILD: &str = "PONTOON_PAGECACHE_CHILD";

    /// Everything after the first `sync_all` of a file or directory may be lost; nothing before.
    fn script(root: &Path) {
        let dir = File::open(root).unwrap();
        let create = |name: &str| {
            let path = root.join(name);
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap()
        };
        let (mut kept, log) = (create("kept"), create("000004.log"));
        let (_doomed, cut) = (create("doomed"), create("cut"));
        std::io::Write::write_all(&mut kept, &[1; 2048]).unwrap();
        log.write_all_at(&[1; 4096], 0).unwrap();
        cut.write_all_at(&[1; 1000], 0).unwrap();
        for file in [&kept, &log, &cut, &dir] {
            file.sync_all().unwrap();
        }
        kept.write_all_at(&[2; 1024], 512).unwrap(); // overwrites
        kept.write_all_at(&[3; 1024], 2048).unwrap(); // extends
        cut.set_len(10).unwrap();
        fs::rename(root.join("000004.log"), root.join("000009.log")).unwrap();
        log.write_all_at(&[4; 512], 0).unwrap();
        fs::remove_file(root.join("doomed")).unwrap();
        create("new").write_all_at(b"new", 0).unwrap();
    }

    #[test]
    fn child_writes() {
        if let Some(root) = std::env::var_os(CHILD) {
            script(Path::new(&root));
        }
    }

    fn state_after(shim: &Shim, dir: &Path, seed: u64) -> std::path::PathBuf {
        let root = dir.join(format!("root-{seed}"));
        let env = shim.env(&root, "r", None);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "shim::proof::child_writes"]).env(CHILD, &root).envs(env);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report = roll_back(&shim.journal(&root, "r"), &root, Cut::Seeded(seed)).unwrap();
        assert!(report.syncs == 4 && report.recycled == 1 && report.lies == 0, "{report:?}");
        shim.forget(&root, "r");
        root
    }

    #[test]
    fn a_prefix_of_what_was_not_synced_stays_and_the_rest_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::build(dir.path());
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for seed in 0..60 {
            let root = state_after(&shim, dir.path(), seed);
            let read = |name: &str| fs::read(root.join(name)).ok();
            let kept = read("kept").unwrap();
            let filled = |from: usize, to: usize, byte: u8| vec![byte; to - from];
            assert!(
                kept[..512] == filled(0, 512, 1) && kept[1536..2048] == filled(1536, 2048, 1),
                "synced bytes changed"
            );
            seen.insert(
                match (&kept[512..1536], kept.len()) {
                    (m, 2048) if m == filled(0, 1024, 1) => "kept: none",
                    (m, 2048) if m[..512] == filled(0, 512, 2) && m[512..] == filled(0, 512, 1) => "kept: first torn",
                    (m, 2048) if m == filled(0, 1024, 2) => "kept: first",
                    (m, 2560) if m == filled(0, 1024, 2) && kept[2048..] == filled(0, 512, 3) => "kept: second torn",
                    (m, 3072) if m == filled(0, 1024, 2) && kept[2048..] == filled(0, 1024, 3) => "kept: both",
                    other => panic!("seed {seed}: no prefix: {:?} bytes", other.1),
                }
                .to_owned(),
            );
            let log = match (read("000004.log"), read("000009.log")) {
                (Some(log), None) => (log, "old name"),
                (None, Some(log)) => (log, "new name"),
                _ => panic!("seed {seed}: the log has two names or none"),
            };
            assert!(log.0.len() == 4096 && log.0[512..] == filled(512, 4096, 1));
            seen.insert(format!("log: {}, {}", log.1, if log.0[0] == 4 { "written" } else { "old" }));
            seen.insert(format!("cut: {}", read("cut").unwrap().len()));
            let (doomed, new) = (read("doomed").is_some(), read("new"));
            assert!(!(new.is_some() && doomed), "seed {seed}: a later name survived an earlier one");
            seen.insert(format!("doomed: {doomed}, new: {}", new.map_or("gone".into(), |n| n.len().to_string())));
        }
        let all = [
            "cut: 10",
            "cut: 1000",
            "doomed: false, new: 0",
            "doomed: false, new: 3",
            "doomed: false, new: gone",
            "doomed: true, new: gone",
            "kept: both",
            "kept: first",
            "kept: first torn",
            "kept: none",
            "kept: second torn",
            "log: new name, old",
            "log: new name, written",
            "log: old name, old",
            "log: old name, written",
        ];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }
}
