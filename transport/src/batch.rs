//! Frames on their way to the socket: headers and small bodies side by side, large bodies as they are.
//!
//! Leaves to others: which frames (`link`), writing (`outgoing`; the handshake through `Buf`).
//! Invariant: sequence numbers grow by one per frame of the connection; a large body is never copied.

use crate::frame::{HEADER, Kind, header};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Bodies up to this size are copied beside their header: cheaper than one more slice for the kernel.
const COPY_IN: usize = 2 << 10;

/// Frames to write. Reused from write to write; a `Buf` over all of them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Sequence number of the next frame.
    next_seq: u64,
    /// Pieces to write, in order; none is empty.
    pieces: VecDeque<Bytes>,
    /// Headers and small bodies after the last of `pieces`.
    tail: BytesMut,
    /// Bytes in `pieces` and `tail`.
    remaining: usize,
}

impl Batch {
    /// Appends a frame.
    pub(crate) fn push(&mut self, kind: Kind, body: Bytes) {
        let head = header(kind, self.next_seq, &body);
        self.next_seq += 1;
        self.remaining += HEADER + body.len();
        self.tail.extend_from_slice(&head);
        if body.len() <= COPY_IN {
            self.tail.extend_from_slice(&body);
        } else {
            self.seal();
            self.pieces.push_back(body);
        }
    }

    /// Call after the last `push` and before writing.
    pub(crate) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, piece) in dst.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.remaining, "advance by {n} of {}", self.remaining);
        self.remaining -= n;
        while n > 0 {
            let front = self.pieces.front_mut().expect("remaining counts the pieces");
            let step = n.min(front.len());
            front.advance(step);
            n -= step;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::frame::{Caps, Decoder};
    use pontoon_raftstore::env::Lane;

    #[test]
    fn what_is_pushed_is_what_a_decoder_finds_whatever_the_writes() {
        for step in [1, 100, 4096, usize::MAX] {
            let mut batch = Batch::default();
            let bodies: Vec<Bytes> = [0, 1, COPY_IN, COPY_IN + 1, 50_000, 3].map(|n| Bytes::from(vec![9; n])).into();
            for body in &bodies {
                batch.push(Kind::Data(Lane::Append), body.clone());
            }
            batch.seal();
            let mut wire = BytesMut::new();
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let n = batch.chunks_vectored(&mut slices);
                assert!(slices[..n].iter().all(|s| !s.is_empty()));
                let take = batch.chunk().len().min(step);
                wire.extend_from_slice(&batch.chunk()[..take]);
                batch.advance(take);
            }
            let mut decoder = Decoder::new(Caps { frame: 1 << 20, snapshot: 1 });
            let mut got = Vec::new();
            while let Some(frame) = decoder.take_frame(&mut wire).unwrap() {
                got.push(frame.body);
            }
            assert_eq!(got, bodies);
        }
    }
}
