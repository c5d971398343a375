//! Pontoon: many Raft groups on a node share one log store and one transport; this is the face that a host embeds.
//!
//! A host implements [`StateMachine`] and [`Kind`] (or takes [`kv::KvStore`]), opens an [`Engine`] on each node and
//! talks to its groups through [`Group`]. Whether a retry can duplicate is told by every error
//! ([`ProposeError::never_appended`]). A whole program: `examples/in_memory_kv.rs`.
//!
//! Leaves to others: consensus and groups (`pontoon-raftstore`), the log on disk (`pontoon-wal`), the network
//! (`pontoon-transport`). Invariant: futures here run on any executor; no method blocks except where it says so.

mod admin;
mod balance;
mod builder;
mod clock;
mod completions;
pub mod config;
mod confirmations;
mod core;
mod engine;
mod erased;
mod error;
mod events;
mod files;
mod group;
mod health;
mod http;
pub mod kv;
mod lookout;
mod metrics;
mod oneshot;
mod park;
mod proposal;
mod read;
mod reconfigure;
mod resolver;
mod state_machine;
mod ticker;
mod timer;
mod token;
mod wiring;

pub use admin::{AdminApi, AdminRequest, AdminResponse};
pub use builder::Builder;
pub use completions::{Completion, Completions};
pub use config::Config;
pub use confirmations::{Confirmation, Confirmations};
pub use engine::{Engine, Peer, Shutdown, ShutdownReport};
pub use error::{
    AdminError, BootError, GroupError, LeaderHint, LifecycleError, Limit, Lost, OpenError, ProposeError, ReadError,
};
pub use events::{Event, Events};
pub use group::Group;
pub use health::{Check, Health};
pub use pontoon_raft::{ConfState, FlowState, StateRole};
pub use pontoon_raftstore::env::LinkState;
pub use pontoon_raftstore::group_spec::GroupSpec;
pub use pontoon_raftstore::group_status::{FollowerStatus, GroupStatus};
pub use pontoon_raftstore::ids::{ClusterId, Generation, GroupId, Incarnation, Index, LogPos, NodeId, ReplicaId, Term};
pub use pontoon_raftstore::proposal::Fence;
pub use pontoon_raftstore::reconfigure::{Phase, ReconfigureStatus, Target};
pub use proposal::{Applied, Proposal};
pub use read::{Read, ReadView};
pub use reconfigure::{Reconfigure, members_of};
pub use resolver::{BoxFut, Resolver};
pub use state_machine::{
    ApplyMeta, Batch, Codec, Durable, Kind, Meta, Part, SmError, SnapshotSink, SnapshotSource, SnapshotStream,
    StateMachine,
};
