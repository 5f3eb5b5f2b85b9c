//! The base URL under which clients reach the relay.

use std::{fmt, str::FromStr};

use reqwest::Url;

/// Base URL for links that the relay returns, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "use the address that clients use, for example https://relay.example";
        let url = Url::parse(text).map_err(|_| SHAPE)?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_plain || !is_open {
            return Err(SHAPE);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_address_and_nothing_more() {
        let url: PublicUrl = "https://relay.example/llm/".parse().unwrap();
        assert_eq!(url.to_string(), "https://relay.example/llm");
        for wrong in [
            "relay.example",
            "ftp://relay.example",
            "https://a:b@relay.example",
            "https://relay.example/?x",
            "https://relay.example/#x",
        ] {
            assert!(wrong.parse::<PublicUrl>().is_err(), "{wrong}");
        }
    }
}
