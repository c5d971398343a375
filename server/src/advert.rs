//! What a node tells its peers about itself beyond Pontoon's own needs: where its clients and its admin page are.
//!
//! Travels opaque in the handshake. Form: a version byte, then `redis` and `admin` as lines of text; from version 2 on
//! also how many groups there are, if the node knows it already: so a joiner learns it.

use bytes::Bytes;

const VERSION: u8 = 2;

/// Client and admin addresses of a node, `HOST:PORT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) redis: String,
    pub(crate) admin: String,
    /// How many groups share the slots.
    pub(crate) groups: Option<u16>,
}

impl Advert {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        let groups = self.groups.map(|g| g.to_string()).unwrap_or_default();
        out.extend_from_slice(format!("{}\n{}\n{groups}", self.redis, self.admin).as_bytes());
        Bytes::from(out)
    }

    /// `None`: another program's, or a newer version's.
    pub(crate) fn decode(data: &[u8]) -> Option<Advert> {
        let (version, text) = data.split_first()?;
        let (redis, rest) = std::str::from_utf8(text).ok()?.split_once('\n')?;
        let (admin, groups) = match version {
            1 => (rest, None),
            2 => {
                let (admin, groups) = rest.split_once('\n')?;
                (admin, if groups.is_empty() { None } else { Some(groups.parse().ok()?) })
            }
            _ => return None,
        };
        Some(Advert { redis: redis.to_owned(), admin: admin.to_owned(), groups })
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
        let advert = Advert { redis: "10.0.0.1:6379".into(), admin: "10.0.0.1:7379".into(), groups: Some(48) };
        assert_eq!(Advert::decode(&advert.encode()), Some(advert.clone()));
        let without = Advert { groups: None, ..advert.clone() };
        assert_eq!(Advert::decode(&without.encode()), Some(without.clone()));
        assert_eq!(Advert::decode(b"\x0110.0.0.1:6379\n10.0.0.1:7379"), Some(without), "as version 1 wrote it");
        assert_eq!(advert.redis_parts(), ("10.0.0.1", 6379));
        for bad in [&b""[..], b"\x03a\nb\n1", b"\x02a\nb", b"\x02a\nb\nc", b"\x01no line", b"\x01\xff\n"] {
            assert_eq!(Advert::decode(bad), None, "{bad:?}");
        }
    }
}
