//! Secrets and signatures of webhooks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proto::SecretBytes;
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Minimum and maximum length of a secret, in bytes.
const SIZES: std::ops::RangeInclusive<usize> = 24..=64;

/// Secret shared with the receiver; written as `whsec_` and base64.
#[derive(Debug, Clone)]
pub(crate) struct Secret(SecretBytes);

impl Secret {
    pub(crate) fn new(random: [u8; 32]) -> Self {
        Self(SecretBytes::new(random.into()))
    }

    /// Parses a secret that a requester gave.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = SecretBytes::new(STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?);
        let fits = SIZES.contains(&bytes.expose().len());
        fits.then_some(Self(bytes))
    }

    pub(crate) fn reveal(&self) -> proto::Secret {
        // Large enough, so that no copy is left behind in memory.
        let mut text = String::with_capacity(PREFIX.len() + 2 * SIZES.end());
        text.push_str(PREFIX);
        STANDARD.encode_string(self.0.expose(), &mut text);
        proto::Secret::new(text)
    }

    pub(crate) fn into_bytes(self) -> SecretBytes {
        self.0
    }
}

/// Returns the signature of a message, in the form of the `webhook-signature` header.
pub(super) fn signature(
    secret: &SecretBytes,
    id: &str,
    seconds: i64,
    body: &[u8],
) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!(
        "v1,{}",
        STANDARD.encode(mac.finalize().into_bytes())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses the example from the test suites of the specification's libraries.
    #[test]
    fn a_message_is_signed_as_the_specification_does() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(
            &secret.into_bytes(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        let known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed.as_deref(), Some(known));
    }

    #[test]
    fn a_secret_is_read_as_it_was_shown_and_never_printed() {
        let secret = Secret::new([7; 32]);
        let again = Secret::parse(secret.reveal().expose()).unwrap();
        assert_eq!(again.into_bytes(), SecretBytes::new(vec![7; 32]));
        assert_eq!(format!("{secret:?}"), "Secret(SecretBytes(…))");
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        for wrong in ["", "whsec_", "secret", "whsec_!", &short, &long] {
            assert!(Secret::parse(wrong).is_none(), "{wrong}");
        }
    }
}
