//! Frames: header, caps, sequence, checksum. Slices in, frames out; no I/O.
//!
//! Layout in docs/wire-format.md; the constants here are the only place that knows offsets.
//! Leaves to others: what a body means (`handshake`, `beacon`, raftstore's codec).
//! Invariant: a length field is judged against its kind's cap before anything is reserved for it, and a body
//! is handed out only whole, in sequence and with a matching checksum.

use crate::error::PeerFault;
use bytes::{Buf, Bytes, BytesMut};
use pontoon_raftstore::env::Lane;

/// First two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"PN";
/// Version of the frame layout. Another one is another listener's business: the connection is dropped.
pub const FRAME_VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER: usize = 24;
/// No configuration may cap a frame's body above this.
pub const HARD_CAP: usize = 64 << 20;
/// Cap of handshake bodies.
pub const HANDSHAKE_CAP: usize = 64 << 10;
/// Cap of beacon bodies.
pub const BEACON_CAP: usize = 256;
/// Cap of directory bodies.
pub const DIRECTORY_CAP: usize = 32 << 10;

/// Bodies up to this size are copied out of the read buffer, so that a small body kept for long (a cached entry)
/// does not keep a whole read buffer alive.
const COPY_OUT: usize = 4 << 10;

/// What a frame carries; the number is its byte in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Hello` or `Verdict`.
    Handshake,
    /// The periodic word.
    Beacon,
    /// A page of the peers' table; from protocol 2 on.
    Directory,
    /// A body from and for raftstore.
    Data(Lane),
}

impl Kind {
    /// The byte in the header.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Kind::Handshake => 0,
            Kind::Beacon => 1,
            Kind::Directory => 2,
            Kind::Data(Lane::Urgent) => 16,
            Kind::Data(Lane::Append) => 17,
            Kind::Data(Lane::Snapshot) => 18,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        let lanes = [Lane::Urgent, Lane::Append, Lane::Snapshot].map(Kind::Data);
        let all = [Kind::Handshake, Kind::Beacon, Kind::Directory].into_iter().chain(lanes);
        all.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// Largest bodies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// On the lanes `Urgent` and `Append`.
    pub frame: usize,
    /// On the lane `Snapshot`.
    pub snapshot: usize,
}

impl Caps {
    /// Cap of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Handshake => HANDSHAKE_CAP,
            Kind::Beacon => BEACON_CAP,
            Kind::Directory => DIRECTORY_CAP,
            Kind::Data(Lane::Snapshot) => self.snapshot,
            Kind::Data(_) => self.frame,
        }
    }

    /// What two sides may send each other.
    #[must_use]
    pub fn min(self, other: Caps) -> Caps {
        Caps { frame: self.frame.min(other.frame), snapshot: self.snapshot.min(other.snapshot) }
    }
}

/// One frame as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// Its body.
    pub body: Bytes,
}

/// The header of a frame.
///
/// # Panics
/// If the body is over `HARD_CAP`: senders cap before.
#[must_use]
pub fn header(kind: Kind, seq: u64, body: &[u8]) -> [u8; HEADER] {
    assert!(body.len() <= HARD_CAP, "body of {} bytes", body.len());
    let len = u32::try_from(body.len()).expect("HARD_CAP fits u32");
    let mut h = [0; HEADER];
    h[0..2].copy_from_slice(&MAGIC);
    h[2] = FRAME_VERSION;
    h[3] = kind.to_byte();
    // 4..8: flags, none defined
    h[8..12].copy_from_slice(&len.to_le_bytes());
    h[12..20].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&h[..20]), body);
    h[20..24].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Takes one direction of one connection apart.
#[derive(Debug)]
pub struct Decoder {
    /// Caps of what may arrive.
    caps: Caps,
    /// Sequence number of the next frame. Invariant: grows by one per frame.
    next_seq: u64,
}

impl Decoder {
    /// At the start of a connection.
    #[must_use]
    pub fn new(caps: Caps) -> Decoder {
        Decoder { caps, next_seq: 0 }
    }

    /// Takes the next whole frame off the front of `buf`; `None` until more has arrived. After a fault the
    /// connection is worthless.
    pub fn take_frame(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, PeerFault> {
        let Some(head) = buf.first_chunk::<HEADER>() else {
            check_prefix(buf)?;
            return Ok(None);
        };
        let head = *head;
        let (kind, len) = self.judge(&head)?;
        if buf.len() < HEADER + len {
            return Ok(None);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), &buf[HEADER..HEADER + len]);
        if crc != u32_at(&head, 20) {
            return Err(PeerFault::BadCrc);
        }
        self.next_seq += 1;
        buf.advance(HEADER);
        let body = if len <= COPY_OUT { take_copy(buf, len) } else { buf.split_to(len).freeze() };
        Ok(Some(Frame { kind, body }))
    }

    /// Everything that a header alone can be refused for.
    fn judge(&self, head: &[u8; HEADER]) -> Result<(Kind, usize), PeerFault> {
        check_prefix(head)?;
        let kind = Kind::from_byte(head[3]).ok_or(PeerFault::BadKind(head[3]))?;
        let flags = u32_at(head, 4);
        if flags != 0 {
            return Err(PeerFault::BadFlags(flags));
        }
        let len = usize::try_from(u32_at(head, 8)).unwrap_or(usize::MAX);
        let cap = self.caps.of(kind);
        if len > cap {
            return Err(PeerFault::TooLong { len, cap });
        }
        let got = u64_at(head, 12);
        if got != self.next_seq {
            return Err(PeerFault::OutOfSequence { expected: self.next_seq, got });
        }
        Ok((kind, len))
    }
}

/// Magic and version as far as they have arrived: garbage is refused at its first byte.
fn check_prefix(head: &[u8]) -> Result<(), PeerFault> {
    if head.iter().zip(&MAGIC).any(|(got, want)| got != want) {
        return Err(PeerFault::BadMagic);
    }
    match head.get(2) {
        Some(&version) if version != FRAME_VERSION => Err(PeerFault::BadVersion(version)),
        _ => Ok(()),
    }
}

fn take_copy(buf: &mut BytesMut, len: usize) -> Bytes {
    let body = Bytes::copy_from_slice(&buf[..len]);
    buf.advance(len);
    body
}

fn u32_at(head: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn u64_at(head: &[u8; HEADER], at: usize) -> u64 {
    u64::from(u32_at(head, at)) | u64::from(u32_at(head, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CAPS: Caps = Caps { frame: 1 << 20, snapshot: 1 << 10 };

    fn framed(kind: Kind, seq: u64, body: &[u8]) -> BytesMut {
        let mut buf = BytesMut::from(&header(kind, seq, body)[..]);
        buf.extend_from_slice(body);
        buf
    }

    #[test]
    fn frames_come_back_whole_whatever_the_cuts() {
        let bodies: Vec<Vec<u8>> = vec![vec![], vec![7], vec![1; 5000], vec![2; 70_000]];
        let mut wire = BytesMut::new();
        for (seq, body) in bodies.iter().enumerate() {
            wire.unsplit(framed(Kind::Data(Lane::Append), seq as u64, body));
        }
        for cut in [1, 23, 24, 25, 4096, 65_536] {
            let (mut decoder, mut buf, mut got) = (Decoder::new(CAPS), BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buf.extend_from_slice(piece);
                while let Some(frame) = decoder.take_frame(&mut buf).unwrap() {
                    got.push(frame.body.to_vec());
                }
            }
            assert_eq!(got, bodies, "cut {cut}");
        }
    }

    #[test]
    fn each_flipped_bit_is_a_fault_or_waits_for_more() {
        let good = framed(Kind::Data(Lane::Urgent), 0, b"vote");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let got = Decoder::new(CAPS).take_frame(&mut bad);
            assert!(!matches!(got, Ok(Some(_))), "bit {bit}: {got:?}");
        }
    }

    #[test]
    fn caps_are_per_lane_and_judged_from_the_header_alone() {
        let mut head = header(Kind::Data(Lane::Snapshot), 0, &[]);
        head[8..12].copy_from_slice(&1025u32.to_le_bytes());
        let got = Decoder::new(CAPS).take_frame(&mut BytesMut::from(&head[..]));
        assert_eq!(got, Err(PeerFault::TooLong { len: 1025, cap: 1024 }));
    }

    #[test]
    fn a_frame_twice_or_skipped_is_out_of_sequence() {
        let mut decoder = Decoder::new(CAPS);
        decoder.take_frame(&mut framed(Kind::Beacon, 0, b"")).unwrap();
        let again = decoder.take_frame(&mut framed(Kind::Beacon, 0, b""));
        assert_eq!(again, Err(PeerFault::OutOfSequence { expected: 1, got: 0 }));
        let skipped = decoder.take_frame(&mut framed(Kind::Beacon, 2, b""));
        assert_eq!(skipped, Err(PeerFault::OutOfSequence { expected: 1, got: 2 }));
    }

    #[test]
    fn garbage_is_refused_at_its_first_byte() {
        assert_eq!(Decoder::new(CAPS).take_frame(&mut BytesMut::from(&b"G"[..])), Err(PeerFault::BadMagic));
        assert_eq!(Decoder::new(CAPS).take_frame(&mut BytesMut::from(&b"PN\x02"[..])), Err(PeerFault::BadVersion(2)));
    }

    #[test]
    fn a_small_body_does_not_keep_the_read_buffer_alive() {
        let mut buf = BytesMut::with_capacity(64 << 10);
        buf.unsplit(framed(Kind::Data(Lane::Append), 0, b"small"));
        let kept = Decoder::new(CAPS).take_frame(&mut buf).unwrap().unwrap();
        assert!(kept.body.is_unique());
    }
}
