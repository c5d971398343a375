//! The secret that lets a caller change something over the admin endpoint.
//!
//! Leaves to others: where it comes from (the host), which requests need it (`admin`).
//! Invariant: it is never printed, and comparing takes the same time wherever the first difference is.

use std::fmt;
use std::hint::black_box;

/// Shortest and longest token, characters.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=512;

/// See the file's head.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new(text: String) -> Token {
        Token(text)
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        let plain = self.0.bytes().all(|b| b.is_ascii_graphic());
        let good = LENGTH.contains(&self.0.len()) && plain;
        (!good).then(|| "the admin token must have 16 to 512 visible ASCII characters and no spaces".to_owned())
    }

    /// Is this the value of an `Authorization` header with this token (RFC 6750)?
    pub(crate) fn is_shown_by(&self, header: Option<&str>) -> bool {
        let shown = header.and_then(|h| h.split_once(' ')).filter(|h| h.0.eq_ignore_ascii_case("bearer"));
        shown.is_some_and(|(_, token)| same(token.trim().as_bytes(), self.0.as_bytes()))
    }
}

/// Only the length may be told by how long it takes.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |sum, (x, y)| black_box(sum | (x ^ y)));
    a.len() == b.len() && differ == 0
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_opens() {
        let token = Token::new("0123456789abcdef".into());
        assert!(token.problem().is_none());
        for good in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef ", "BEARER  0123456789abcdef"] {
            assert!(token.is_shown_by(Some(good)), "{good}");
        }
        let bad = [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcdef0",
            "Bearer 1123456789abcdef",
        ];
        assert!(bad.iter().all(|b| !token.is_shown_by(Some(b))) && !token.is_shown_by(None));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn weak_tokens_are_mistakes() {
        for bad in ["", "short", "with a space in it", "0123456789abcdef\n", "0123456789abcdéf"] {
            assert!(Token::new(bad.into()).problem().is_some(), "{bad:?}");
        }
    }
}
