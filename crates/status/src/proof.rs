//! HMAC proofs that a side knows the local token, without sending it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use proto::status::v1::{Nonce, Proof, Side, VERSIONS, proven};
use sha2::Sha256;

use crate::LocalToken;

/// The data that both proofs of one connection are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) port: u16,
    pub(crate) server: Nonce,
    pub(crate) client: Nonce,
}

impl Challenge {
    /// The proof that `side` knows the token.
    pub(crate) fn proof(&self, token: &LocalToken, side: Side) -> Option<Proof> {
        let proof = self.mac(token, side)?.finalize().into_bytes();
        Some(Proof(proof.into()))
    }

    /// Whether `proof` is the proof of `side`; compared in constant time.
    pub(crate) fn is_proven(&self, token: &LocalToken, side: Side, proof: &Proof) -> bool {
        self.mac(token, side)
            .is_some_and(|mac| mac.verify_slice(&proof.0).is_ok())
    }

    fn mac(&self, token: &LocalToken, side: Side) -> Option<Hmac<Sha256>> {
        let text = proven(side, VERSIONS[0], self.port, self.server, self.client);
        // The key is the token's text as in its file; HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: Challenge = Challenge {
        port: 6001,
        server: Nonce([1; 32]),
        client: Nonce([2; 32]),
    };

    /// Computed by an independent program; docs/PROTOCOL.md shows the same values.
    #[test]
    fn the_proofs_are_those_that_another_program_computes() {
        let token = LocalToken::new([9; 32]);
        let of = |side| CHALLENGE.proof(&token, side).unwrap().to_string();
        assert_eq!(
            of(Side::Client),
            "ff3640a3f10ad3c1f80c9b56e966b92bd6b9f70cb2e376a636e0c5be414624a9"
        );
        assert_eq!(
            of(Side::Server),
            "687c70935ae8bd6053e73bd5c4f61f88d891c157d2104a736aca1a47a9c03764"
        );
    }

    #[test]
    fn the_documents_example_is_what_a_client_and_a_hub_would_say() {
        let (hello, identify, identified) = (
            include_str!("../../proto/fixtures/status-v1/hello.json"),
            include_str!("../../proto/fixtures/status-v1/identify.json"),
            include_str!("../../proto/fixtures/status-v1/identified.json"),
        );
        let read = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let token = LocalToken::new([9; 32]);
        let of = |side| CHALLENGE.proof(&token, side).unwrap().to_string();
        assert_eq!(read(hello)["nonce"], CHALLENGE.server.to_string());
        assert_eq!(read(identify)["nonce"], CHALLENGE.client.to_string());
        assert_eq!(read(identify)["proof"], of(Side::Client));
        assert_eq!(read(identified)["proof"], of(Side::Server));
    }

    #[test]
    fn a_proof_is_good_for_one_side_one_port_one_token_and_one_pair_of_nonces() {
        let token = LocalToken::new([9; 32]);
        let proof = CHALLENGE.proof(&token, Side::Client).unwrap();
        assert!(CHALLENGE.is_proven(&token, Side::Client, &proof));
        assert!(!CHALLENGE.is_proven(&token, Side::Server, &proof));
        let other = LocalToken::new([8; 32]);
        assert!(!CHALLENGE.is_proven(&other, Side::Client, &proof));
        let nonce = Nonce([3; 32]);
        for challenge in [
            Challenge {
                port: 6000,
                ..CHALLENGE
            },
            Challenge {
                server: nonce,
                ..CHALLENGE
            },
            Challenge {
                client: nonce,
                ..CHALLENGE
            },
            Challenge {
                server: CHALLENGE.client,
                client: CHALLENGE.server,
                ..CHALLENGE
            },
        ] {
            assert!(
                !challenge.is_proven(&token, Side::Client, &proof),
                "{challenge:?}"
            );
        }
    }
}
