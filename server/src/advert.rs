//! What a node tells its peers about itself beyond Pontoon's own needs: where its clients and its admin page are.
//!
//! Travels opaque in the handshake. Form: a version byte, then `redis` and `admin` as lines of text.

use bytes::Bytes;

const VERSION: u8 = 1;

/// Client and admin addresses of a node, `HOST:PORT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) redis: String,
    pub(crate) admin: String,
}

impl Advert {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(format!("{}\n{}", self.redis, self.admin).as_bytes());
        Bytes::from(out)
    }

    /// `None`: another program's, or a newer version's.
    pub(crate) fn decode(data: &[u8]) -> Option<Advert> {
        let (version, text) = data.split_first()?;
        let (redis, admin) = std::str::from_utf8(text).ok()?.split_once('\n')?;
        (*version == VERSION).then(|| Advert { redis: redis.to_owned(), admin: admin.to_owned() })
    }

    /// Host and port of the Redis address.
    pub(crate) fn redis_parts(&self) -> (&str, u16) {
        let (host, port) = self.redis.rsplit_once(':').unwrap_or((&self.redis, "0"));
        (host, port.parse().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let advert = Advert { redis: "10.0.0.1:6379".into(), admin: "10.0.0.1:7379".into() };
        assert_eq!(Advert::decode(&advert.encode()), Some(advert.clone()));
        assert_eq!(advert.redis_parts(), ("10.0.0.1", 6379));
        for bad in [&b""[..], b"\x02a\nb", b"\x01no line", b"\x01\xff\n"] {
            assert_eq!(Advert::decode(bad), None, "{bad:?}");
        }
    }
}
