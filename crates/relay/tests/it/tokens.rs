//! Forged and altered tokens, also by a holder of the relay's own secret.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hearth_relay::{RelaySettings, SystemWorld, World as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use proto::worker::{CLOSE_UNAUTHORIZED, RelayMessage};
use queue::{Role, Users as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    client::Client,
    in_time,
    people::{logged_in, user},
    server::Server,
    sessions::{opened, with},
    worker::Scripted,
};

/// Signs a header and claims with any key.
fn signed(header: &str, claims: &str, key: &[u8]) -> String {
    let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    let mac = mac.chain_update(text.as_bytes()).finalize().into_bytes();
    format!("{text}.{}", BASE64.encode(mac))
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Tokens that no relay issues; all but the last few are signed with its own key.
fn hostile(key: &[u8], good: &str, claims: &Value) -> Vec<(&'static str, String)> {
    let whole = claims.to_string();
    let header = |header: &str| signed(header, &whole, key);
    let claim = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(HEADER, &claims.to_string(), key)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(HEADER, &claims.to_string(), key)
    };
    let [head, body, mac] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let now = claims["iat"].as_i64().unwrap();
    vec![
        ("alg none", header(r#"{"alg":"none","typ":"JWT"}"#)),
        ("alg None", header(r#"{"alg":"None","typ":"JWT"}"#)),
        ("alg nOnE", header(r#"{"alg":"nOnE"}"#)),
        ("alg empty", header(r#"{"alg":"","typ":"JWT"}"#)),
        ("alg null", header(r#"{"alg":null,"typ":"JWT"}"#)),
        ("alg missing", header(r#"{"typ":"JWT"}"#)),
        ("alg a list", header(r#"{"alg":["HS256"],"typ":"JWT"}"#)),
        ("alg RS256", header(r#"{"alg":"RS256","typ":"JWT"}"#)),
        ("alg ES256", header(r#"{"alg":"ES256","typ":"JWT"}"#)),
        ("alg EdDSA", header(r#"{"alg":"EdDSA","typ":"JWT"}"#)),
        ("alg PS256", header(r#"{"alg":"PS256","typ":"JWT"}"#)),
        ("alg HS384", header(r#"{"alg":"HS384","typ":"JWT"}"#)),
        ("alg HS512", header(r#"{"alg":"HS512","typ":"JWT"}"#)),
        ("alg in small", header(r#"{"alg":"hs256","typ":"JWT"}"#)),
        (
            "alg twice",
            header(r#"{"alg":"none","alg":"HS256","typ":"JWT"}"#),
        ),
        (
            "kid a path",
            header(r#"{"alg":"HS256","typ":"JWT","kid":"../../dev/null"}"#),
        ),
        (
            "kid a query",
            header(r#"{"alg":"HS256","typ":"JWT","kid":"' OR 1=1 --"}"#),
        ),
        (
            "kid a URL",
            header(r#"{"alg":"HS256","typ":"JWT","kid":"https://evil.example"}"#),
        ),
        (
            "jku",
            header(r#"{"alg":"HS256","typ":"JWT","jku":"https://evil.example/k"}"#),
        ),
        (
            "jwk",
            header(r#"{"alg":"HS256","typ":"JWT","jwk":{"kty":"oct","k":"AA"}}"#),
        ),
        (
            "x5u",
            header(r#"{"alg":"HS256","typ":"JWT","x5u":"https://evil.example/c"}"#),
        ),
        (
            "crit",
            header(r#"{"alg":"HS256","typ":"JWT","crit":["x"],"x":1}"#),
        ),
        (
            "b64 false",
            header(r#"{"alg":"HS256","typ":"JWT","b64":false,"crit":["b64"]}"#),
        ),
        ("zip", header(r#"{"alg":"HS256","typ":"JWT","zip":"DEF"}"#)),
        (
            "a header with spaces",
            header(r#"{ "alg": "HS256", "typ": "JWT" }"#),
        ),
        ("a header that is no object", header(r#""HS256""#)),
        ("a header that is nothing", header("")),
        ("exp a word", claim("exp", json!("never"))),
        ("exp a number in a text", claim("exp", json!("99999999999"))),
        ("exp beyond numbers", claim("exp", json!(1e300))),
        ("exp nothing", claim("exp", Value::Null)),
        ("exp missing", without("exp")),
        ("exp long ago", claim("exp", json!(1))),
        ("exp before all time", claim("exp", json!(i64::MIN))),
        ("iat tomorrow", claim("iat", json!(now + 86_400))),
        ("iat missing", without("iat")),
        ("jti missing", without("jti")),
        ("generation missing", without("generation")),
        ("a generation before", claim("generation", json!(-1))),
        ("a generation to come", claim("generation", json!(999))),
        ("user missing", without("user_id")),
        ("user a text", claim("user_id", json!("1"))),
        ("user of a query", claim("user_id", json!("1 OR 1=1"))),
        ("user that is not there", claim("user_id", json!(4711))),
        ("user below zero", claim("user_id", json!(-1))),
        ("of no type", without("token_type")),
        ("to refresh", claim("token_type", json!("refresh"))),
        ("of another type", claim("token_type", json!("sliding"))),
        ("claims that are a list", signed(HEADER, "[]", key)),
        ("claims that are nothing", signed(HEADER, "", key)),
        (
            "claims twice",
            signed(HEADER, &format!("{whole}{whole}"), key),
        ),
        ("claims without end", signed(HEADER, &"[".repeat(2000), key)),
        ("5 KiB", claim("jti", json!("x".repeat(5 * 1024)))),
        ("an empty key", signed(HEADER, &whole, b"")),
        ("a key of zeros", signed(HEADER, &whole, &[0; 32])),
        ("a usual key", signed(HEADER, &whole, b"secret")),
        ("no signature", format!("{head}.{body}.")),
        ("half a signature", format!("{head}.{body}.{}", &mac[..20])),
        ("a signature with padding", format!("{good}=")),
        ("a part too many", format!("{good}.{mac}")),
        ("no claims", format!("{head}..{mac}")),
        (
            "other claims",
            format!("{head}.{}.{mac}", BASE64.encode(whole.replace('1', "2"))),
        ),
    ]
}

#[tokio::test]
async fn no_token_but_those_that_were_given_out_opens_anything() {
    let mut settings = RelaySettings::default();
    settings.failures_per_minute = 0;
    let server = Server::with(settings).await;
    let id = user(&*server.store, "root", Role::Admin, "default").await;
    let tokens = logged_in(&server.nobody(), "root").await;
    let good = tokens["access"].as_str().unwrap();
    let key = server
        .store
        .token_key(SystemWorld.random().unwrap())
        .await
        .unwrap();
    let claims = good.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["user_id"], id);
    let opens = |token: String| {
        let client = Client::new(server.base(), Some(token));
        async move {
            let reply = client.get("/api/tags").await;
            (reply.status, reply.header("x-hearth-error").to_owned())
        }
    };
    let own = signed(HEADER, &claims.to_string(), &key);
    assert_eq!(opens(good.to_owned()).await.0, StatusCode::OK);
    assert_eq!(
        opens(own).await.0,
        StatusCode::OK,
        "what the test signs is read"
    );
    let table = hostile(&key, good, &claims);
    assert!(table.len() >= 40);
    for (what, token) in table {
        let told = opens(token).await;
        assert_eq!(
            told,
            (StatusCode::UNAUTHORIZED, "unauthorized".into()),
            "{what}"
        );
    }
    let day = Duration::from_secs(86_400).as_secs();
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        day
    );
}

/// Who has a copy of the store has the secret and every user's generation.
#[tokio::test]
async fn once_all_are_logged_out_a_copy_of_the_store_signs_nothing_that_opens() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    settings.failures_per_minute = 0;
    let server = Server::with(settings).await;
    let nobody = server.nobody();
    let id = user(&*server.store, "root", Role::Admin, "default").await;
    let of_query_service = logged_in(&nobody, "root").await;
    let of_session = opened(&nobody, "root").await;
    let access = of_query_service["access"].as_str().unwrap();
    let mut worker = Scripted::hello(&server, access, &["m"], vec![]).await;
    assert!(matches!(worker.next().await, RelayMessage::Welcome { .. }));
    let client = with(&nobody, &of_session);
    let job = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;
    let job = client.post("/api/jobs", job).await.json().await["id"].take();
    let path = format!("/api/jobs/{}/events", job.as_str().unwrap());
    let events = client.get(&path).await;
    assert_eq!(events.status, StatusCode::OK);

    let random = || SystemWorld.random().unwrap();
    let copied = server.store.token_key(random()).await.unwrap();
    let fresh = random();
    assert_eq!(server.store.log_out_all(fresh).await.unwrap(), 1);

    assert_eq!(in_time(worker.close_code()).await, CLOSE_UNAUTHORIZED);
    events.broken_off().await;
    let claims = access.split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["user_id"], id);
    let generation = claims["generation"].as_u64().unwrap();
    claims["generation"] = json!(generation + 1);
    let forged = |key: &[u8]| signed(HEADER, &claims.to_string(), key);
    let ours = of_session["access_token"].as_str().unwrap();
    for (what, token, opens) in [
        ("given out before", access.to_owned(), false),
        ("of a session before", ours.to_owned(), false),
        ("signed with the copy", forged(&copied), false),
        ("signed with the new secret", forged(&fresh), true),
    ] {
        let status = Client::new(server.base(), Some(token))
            .get("/api/admin/keys")
            .await
            .status;
        assert_eq!(status == StatusCode::OK, opens, "{what}: {status}");
    }
    for (path, token) in [
        ("/api/sessions/renew", &of_session["refresh_token"]),
        ("/api/token/refresh/", &of_query_service["refresh"]),
    ] {
        let body = json!({"refresh_token": token, "refresh": token});
        let reply = nobody.post(path, body.to_string()).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let again = with(&nobody, &opened(&nobody, "root").await);
    assert_eq!(again.get("/api/tags").await.status, StatusCode::OK);
}
