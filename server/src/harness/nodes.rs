//! Starting, killing and restarting the processes of one cluster.
//!
//! Invariant: ports and directories of a node never change, so that a restart is the same node.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What all nodes are started with.
#[derive(Clone, Debug)]
pub struct NodesConfig {
    /// The binary.
    pub binary: PathBuf,
    /// A directory for all nodes' directories and logs.
    pub dir: PathBuf,
    /// How many nodes found the cluster.
    pub nodes: u64,
    /// How many groups.
    pub groups: u16,
    /// Further flags of `serve`.
    pub flags: Vec<String>,
}

/// One node: where it is, and its process while it runs.
#[derive(Debug)]
pub struct NodeProcess {
    /// Node id.
    pub id: u64,
    /// Its directory.
    pub data: PathBuf,
    /// Where clients connect.
    pub redis: String,
    /// Its admin page.
    pub admin: String,
    /// Where its peers connect.
    pub peer: String,
    /// What it wrote to stderr.
    pub log: PathBuf,
    child: Option<Child>,
}

/// A cluster of processes.
#[derive(Debug)]
pub struct Nodes {
    config: NodesConfig,
    /// Ascending by id, from 1.
    pub nodes: Vec<NodeProcess>,
}

/// Below what the system gives to outgoing connections: nobody takes a node's port while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Where the next search begins, in this process.
static NEXT_PORT: AtomicU32 = AtomicU32::new(0);

/// Ports of the loopback that nobody listened on just now, and that no outgoing connection is given.
///
/// # Errors
/// None are free.
pub fn free_ports(n: usize) -> io::Result<Vec<u16>> {
    let span = u32::from(PORTS.end - PORTS.start);
    let base = std::process::id().wrapping_mul(97);
    let candidates = (0..span).map(|_| {
        let at = base.wrapping_add(NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % span;
        PORTS.start + u16::try_from(at).unwrap_or_default()
    });
    let found: Vec<u16> = candidates.filter(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok()).take(n).collect();
    if found.len() == n { Ok(found) } else { Err(io::Error::other("no free ports")) }
}

impl Nodes {
    /// Chooses ports and directories; starts nothing.
    ///
    /// # Errors
    /// No ports, or the directory cannot be made.
    pub fn new(config: NodesConfig) -> io::Result<Nodes> {
        fs::create_dir_all(&config.dir)?;
        let founders = config.nodes;
        let mut nodes = Nodes { nodes: Vec::new(), config };
        (0..founders).try_for_each(|_| nodes.add().map(|_| ()))?;
        Ok(nodes)
    }

    /// One more node, which joins through the founders; its id. Starts nothing.
    ///
    /// # Errors
    /// No ports.
    pub fn add(&mut self) -> io::Result<u64> {
        let id = self.nodes.len() as u64 + 1;
        let ports = free_ports(3)?;
        let at = |n: usize| format!("127.0.0.1:{}", ports[n]);
        self.nodes.push(NodeProcess {
            id,
            data: self.config.dir.join(format!("node-{id}")),
            log: self.config.dir.join(format!("node-{id}.log")),
            redis: at(0),
            admin: at(1),
            peer: at(2),
            child: None,
        });
        Ok(id)
    }

    /// The flags of `serve` for one node.
    #[must_use]
    pub fn flags(&self, id: u64) -> Vec<String> {
        let founders = &self.nodes[..self.config.nodes as usize];
        let node = self.node(id);
        let mut flags: Vec<String> = ["serve", "--node"].map(str::to_owned).into();
        flags.push(id.to_string());
        if id <= self.config.nodes {
            let cluster: Vec<String> = founders.iter().map(|n| format!("{}={}", n.id, n.peer)).collect();
            flags.extend(["--cluster".to_owned(), cluster.join(",")]);
            flags.extend(["--groups".to_owned(), self.config.groups.to_string()]);
        } else {
            let via: Vec<&str> = founders.iter().map(|n| n.peer.as_str()).collect();
            flags.extend(["--join".to_owned(), via.join(","), "--peer".to_owned(), node.peer.clone()]);
        }
        flags.extend(["--data".to_owned(), node.data.display().to_string()]);
        flags.extend(["--redis".to_owned(), node.redis.clone(), "--admin".to_owned(), node.admin.clone()]);
        flags.extend(self.config.flags.iter().cloned());
        flags
    }

    /// Starts one node with extra environment variables.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_with(&mut self, id: u64, env: &[(&str, &Path)]) -> io::Result<()> {
        let flags = self.flags(id);
        let binary = self.config.binary.clone();
        let node = self.node_mut(id);
        let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
        let mut command = Command::new(binary);
        // What the one who runs this has set is not meant for these nodes.
        command.env_remove("PONTOON_ADMIN_TOKEN");
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.envs(env.iter().map(|(k, v)| (k, v.as_os_str())));
        node.child = Some(command.spawn()?);
        Ok(())
    }

    /// Starts one node.
    ///
    /// # Errors
    /// As `start_with`.
    pub fn start(&mut self, id: u64) -> io::Result<()> {
        self.start_with(id, &[])
    }

    /// Starts all.
    ///
    /// # Errors
    /// As `start_with`.
    pub fn start_all(&mut self) -> io::Result<()> {
        (1..=self.nodes.len() as u64).try_for_each(|id| self.start(id))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub fn kill(&mut self, id: u64) -> io::Result<()> {
        match self.node_mut(id).child.take() {
            Some(mut child) => {
                child.kill()?;
                child.wait().map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// SIGKILL of all at once, then waits.
    ///
    /// # Errors
    /// A process cannot be killed.
    pub fn kill_all(&mut self) -> io::Result<()> {
        for node in &mut self.nodes {
            node.child.as_mut().map_or(Ok(()), Child::kill)?;
        }
        (1..=self.nodes.len() as u64).try_for_each(|id| self.kill(id))
    }

    /// The exit code of a node that ended by itself; `None` while it runs or if a signal ended it.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn exit_code(&mut self, id: u64) -> io::Result<Option<i32>> {
        let child = self.node_mut(id).child.as_mut();
        Ok(child.map(Child::try_wait).transpose()?.flatten().and_then(|s| s.code()))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: u64) -> &NodeProcess {
        &self.nodes[id as usize - 1]
    }

    fn node_mut(&mut self, id: u64) -> &mut NodeProcess {
        &mut self.nodes[id as usize - 1]
    }

    /// Redis addresses of all.
    #[must_use]
    pub fn redis(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.redis.clone()).collect()
    }

    /// How many groups.
    #[must_use]
    pub fn groups(&self) -> u16 {
        self.config.groups
    }
}

impl NodeProcess {
    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // Nothing more can be done for a process that cannot be killed.
        let _ = self.kill_all();
    }
}
