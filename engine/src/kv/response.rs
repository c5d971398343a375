//! The byte form of answers: needed only where an answer must be remembered (sessions, later).
//!
//! Form: kind byte, then the fields, little-endian. Invariant: `decode(encode(r)) == r`; anything else is refused.

use super::command::KvResponse;
use crate::state_machine::{Codec, SmError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

impl Codec for KvResponse {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            KvResponse::Set(held) => out.extend_from_slice(&[1, u8::from(*held)]),
            KvResponse::Previous(None) => out.put_u8(2),
            KvResponse::Previous(Some(value)) => {
                out.put_u8(3);
                out.extend_from_slice(value);
            }
            KvResponse::Deleted(n) => number(&mut out, 4, *n),
            KvResponse::Int(n) => number(&mut out, 5, n.cast_unsigned()),
            KvResponse::Length(n) => number(&mut out, 6, *n),
            KvResponse::NotANumber => out.put_u8(7),
            KvResponse::Overflow => out.put_u8(8),
            KvResponse::TooLong => out.put_u8(9),
            KvResponse::BadCommand => out.put_u8(10),
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<KvResponse, SmError> {
        let bad = || SmError::Corruption("not a key-value response".to_owned());
        let kind = bytes.try_get_u8().map_err(|_| bad())?;
        let response = match kind {
            1 => KvResponse::Set(bytes.try_get_u8().map_err(|_| bad())? == 1),
            2 => KvResponse::Previous(None),
            3 => KvResponse::Previous(Some(bytes.split_off(0))),
            4..=6 => {
                let n = bytes.try_get_u64_le().map_err(|_| bad())?;
                match kind {
                    4 => KvResponse::Deleted(n),
                    5 => KvResponse::Int(n.cast_signed()),
                    _ => KvResponse::Length(n),
                }
            }
            7 => KvResponse::NotANumber,
            8 => KvResponse::Overflow,
            9 => KvResponse::TooLong,
            10 => KvResponse::BadCommand,
            _ => return Err(bad()),
        };
        if bytes.has_remaining() { Err(bad()) } else { Ok(response) }
    }
}

fn number(out: &mut BytesMut, kind: u8, n: u64) {
    out.put_u8(kind);
    out.put_u64_le(n);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let all = [
            KvResponse::Set(true),
            KvResponse::Set(false),
            KvResponse::Previous(None),
            KvResponse::Previous(Some(Bytes::new())),
            KvResponse::Previous(Some(Bytes::from_static(b"v"))),
            KvResponse::Deleted(3),
            KvResponse::Int(i64::MIN),
            KvResponse::Length(u64::MAX),
            KvResponse::NotANumber,
            KvResponse::Overflow,
            KvResponse::TooLong,
            KvResponse::BadCommand,
        ];
        for response in all {
            assert_eq!(KvResponse::decode(response.encode()).unwrap(), response);
        }
        assert!(KvResponse::decode(Bytes::from_static(b"\x07x")).is_err());
    }
}
