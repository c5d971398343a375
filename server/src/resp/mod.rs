//! The Redis protocol without I/O: requests in, replies out, RESP2 and RESP3.
//!
//! Own code because a server parses one shape only (a flat array of bulk strings, or an inline line): caps and
//! "nothing allocated on the word of a length field" are then plain to see. Leaves sockets to `conn`.

mod reply;
mod request;

pub(crate) use reply::{Protocol, Reply};
pub(crate) use request::{Limits, RequestParser};
