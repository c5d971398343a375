//! Records of the handshake and the beacon as prost structs: what a generator makes of `pontoon.proto`.
//!
//! Committed so that no build needs `protoc`. Leaves to others: judging them (`handshake`, `beacon`).
//! Invariant: numbers and types are those of `pontoon.proto`, and no number is ever used again.

/// What a node shows.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol_min: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) protocol_max: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) to: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) max_frame: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) max_snapshot_frame: u64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) cluster: bytes::Bytes,
    #[prost(uint64, tag = "7")]
    pub(crate) node: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) epoch_counter: u64,
    #[prost(fixed64, tag = "10")]
    pub(crate) epoch_nonce: u64,
    #[prost(bool, tag = "11")]
    pub(crate) admitted: bool,
    #[prost(fixed64, tag = "12")]
    pub(crate) digest: u64,
    #[prost(uint64, tag = "13")]
    pub(crate) recovered: u64,
    #[prost(uint64, tag = "14")]
    pub(crate) synced: u64,
    #[prost(string, tag = "15")]
    pub(crate) listen: String,
    #[prost(bytes = "bytes", tag = "16")]
    pub(crate) advert: bytes::Bytes,
}

/// The answer to a `Hello`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Verdict {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol: u32,
    #[prost(oneof = "verdict::Why", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) why: Option<verdict::Why>,
}

/// Parts of `Verdict`.
pub(crate) mod verdict {
    /// Why not.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Why {
        #[prost(message, tag = "2")]
        OtherDisk(super::OtherDisk),
        #[prost(message, tag = "3")]
        OldCopy(super::OldCopy),
        #[prost(message, tag = "4")]
        LostLog(super::LostLog),
        #[prost(message, tag = "5")]
        OtherCluster(super::OtherCluster),
        #[prost(message, tag = "6")]
        OtherDigest(super::OtherDigest),
        #[prost(string, tag = "7")]
        Other(String),
    }
}

/// `Refusal::OtherDisk`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OtherDisk {
    #[prost(uint64, tag = "1")]
    pub(crate) node: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) known: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) shown: u64,
}

/// `Refusal::OldCopy`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OldCopy {
    #[prost(uint64, tag = "1")]
    pub(crate) node: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) known_counter: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) known_nonce: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) shown_counter: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) shown_nonce: u64,
}

/// `Refusal::LostLog`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LostLog {
    #[prost(uint64, tag = "1")]
    pub(crate) node: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) recovered: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) synced: u64,
}

/// `Refusal::OtherCluster`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OtherCluster {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) ours: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) theirs: bytes::Bytes,
}

/// `Refusal::OtherDigest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OtherDigest {
    #[prost(fixed64, tag = "1")]
    pub(crate) ours: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) theirs: u64,
}

/// A page of the peers' table.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Directory {
    #[prost(message, repeated, tag = "1")]
    pub(crate) listings: Vec<Listing>,
}

/// Where a node listens.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Listing {
    #[prost(uint64, tag = "1")]
    pub(crate) node: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) boot: u64,
    #[prost(string, tag = "4")]
    pub(crate) listen: String,
}

/// The periodic word.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Beacon {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) cluster: bytes::Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) synced: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) stamp: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) echo: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) echo_held: u64,
}
