//! Every route of the OpenAPI document, called by every kind of caller.
//!
//! The routes and their scopes are read from `/openapi.json`, which lists every served route
//! (`every_route_that_is_served_is_in_the_document_and_no_other`), so that a new route cannot be
//! left out here.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use hearth_relay::{RelaySettings, SystemWorld, World as _};
use http::{Method, StatusCode};
use proto::{JobId, Timestamp};
use queue::{
    Ceiling, Keys as _, NewJob, Queue as _, Role, Scope, UserChange, Users as _,
    conformance::sample::{account, job},
};
use serde_json::Value;

use crate::{
    batches::{batch_of, lines},
    client::Client,
    people::{client_of, logged_in, user},
    server::{Ahead, Server},
    sessions::{opened, with as with_session},
};

/// A method of a path, and its scope.
struct Route {
    method: Method,
    path: String,
    scope: Option<Scope>,
}

const SCOPES: [Scope; 4] = [Scope::Enqueue, Scope::Read, Scope::Work, Scope::Admin];

/// Values of path parameters.
const IN_PATH: [(&str, &str); 7] = [
    ("{id}", "00000000000000000000000000000001"),
    ("{attempt}", "1"),
    ("{request}", "1"),
    ("{*id}", "x"),
    ("{digest}", "sha256:0"),
    ("{*path}", ""),
    ("{file}", "x"),
];

fn routes(document: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            if !operation.is_object() {
                continue;
            }
            let scope = operation["x-hearth-scope"].as_str().map(|word| {
                let mut scopes = SCOPES.into_iter();
                scopes.find(|scope| scope.as_str() == word).unwrap()
            });
            let is_keyed = operation["security"]
                .as_array()
                .is_some_and(|list| !list.is_empty());
            assert_eq!(scope.is_some(), is_keyed, "{method} {path}");
            let mut path = path.clone();
            // The catch-all route passes requests to the engines' routes.
            if path.ends_with("{*path}") || path.ends_with("{path}") {
                let to = match method {
                    Method::GET => "tags",
                    Method::POST => "chat",
                    _ => "v1/files/x",
                };
                path = path.replace("{*path}", to).replace("{path}", to);
            }
            for (name, value) in IN_PATH {
                path = path.replace(name, value);
            }
            assert!(!path.contains('{'), "{path}");
            routes.push(Route {
                method,
                path,
                scope,
            });
        }
    }
    routes
}

/// A kind of caller, and the scopes that it has; `None` if it is refused everywhere.
struct Caller {
    who: &'static str,
    client: Client,
    scopes: Option<Vec<Scope>>,
    in_path: bool,
}

async fn callers(server: &Server, clock: &Ahead) -> Vec<Caller> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let with = |key: &str| Client::new(server.base(), Some(key.to_owned()));
    let mut callers = Vec::new();
    let mut add = |who, client, scopes| {
        callers.push(Caller {
            who,
            client,
            scopes,
            in_path: false,
        });
    };
    let nobody = server.nobody();
    add("nobody", nobody.clone(), None);
    let good = server.key("default", &SCOPES).await;
    let cut = good.len() - 9;
    let wrong = if good[cut - 1..].starts_with('0') {
        '1'
    } else {
        '0'
    };
    let other = format!("{}{wrong}{}", &good[..cut - 1], &good[cut..]);
    add("a mistyped key", with(&other), None);
    let (_, stranger) = strange_key();
    add("an unknown key", with(&stranger), None);
    add("a key of others", with("sk-anything"), None);
    add("an empty key", with(""), None);

    let revoked = server.key("default", &SCOPES).await;
    let name = server
        .store
        .list_keys()
        .await
        .unwrap()
        .last()
        .unwrap()
        .name
        .clone();
    assert!(server.store.revoke_key(Timestamp(1), &name).await.unwrap());
    add("a revoked key", with(&revoked), None);
    let ends = Some(SystemWorld.now() + HOUR);
    let expired = server
        .limited_key("default", &SCOPES, Ceiling::default(), ends)
        .await;
    add("an expired key", with(&expired), None);

    for name in ["jan", "service", "root", "removed", "out"] {
        let role = match name {
            "service" => Role::Service,
            "root" => Role::Admin,
            _ => Role::User,
        };
        user(&*server.store, name, role, "default").await;
    }
    // Logged in before the clock is moved forward.
    let old = client_of(&nobody, "jan").await;
    clock.by(24 * HOUR);
    add("a token whose time has passed", old, None);
    let tokens = logged_in(&nobody, "jan").await;
    add(
        "a token to refresh",
        with(tokens["refresh"].as_str().unwrap()),
        None,
    );
    let removed = client_of(&nobody, "removed").await;
    assert!(server.store.remove_user("removed").await.unwrap());
    add("a token of one who was removed", removed, None);
    let out = client_of(&nobody, "out").await;
    let logged_out = server.store.change_user("out", UserChange::LogOut).await;
    assert!(logged_out.unwrap());
    add("a token of one who logged out", out, None);
    let access = tokens["access"].as_str().unwrap();
    let (head, rest) = access.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    add(
        "a token without signature",
        with(&format!("{head}.{claims}.")),
        None,
    );
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    add("a token of no algorithm", with(&none), None);

    for (who, scope) in [
        ("a key to enqueue", Scope::Enqueue),
        ("a key to read", Scope::Read),
        ("a key to work", Scope::Work),
        ("a key to administer", Scope::Admin),
    ] {
        add(
            who,
            server.client("default", &[scope]).await,
            Some(vec![scope]),
        );
    }
    add("a key of all scopes", with(&good), Some(SCOPES.into()));
    add(
        "another account",
        server.client("other", &SCOPES).await,
        Some(SCOPES.into()),
    );
    for (who, name, role) in [
        ("a user", "jan", Role::User),
        ("a service", "service", Role::Service),
        ("an administrator", "root", Role::Admin),
    ] {
        let scopes = role.scopes().into_iter().collect();
        add(who, client_of(&nobody, name).await, Some(scopes));
    }
    for (who, name, role) in [
        ("a user's session", "jan", Role::User),
        ("a service's session", "service", Role::Service),
        ("an administrator's session", "root", Role::Admin),
    ] {
        let scopes = role.scopes().into_iter().collect();
        let client = with_session(&nobody, &opened(&nobody, name).await);
        add(who, client, Some(scopes));
    }
    let tokens = opened(&nobody, "jan").await;
    let renewing = tokens["refresh_token"].as_str().unwrap();
    add("a token to renew a session", with(renewing), None);
    let ended = with_session(&nobody, &tokens);
    let body = serde_json::json!({"refresh_token": renewing}).to_string();
    nobody.post("/api/sessions/end", body).await;
    add("a session that was ended", ended, None);
    for (who, scopes) in [
        ("a key of all scopes in the path", SCOPES.to_vec()),
        ("a key to work in the path", vec![Scope::Work]),
    ] {
        let key = server.key("default", &scopes).await;
        callers.push(Caller {
            who,
            client: Client::new(format!("{}/k/{key}", server.base()), None),
            scopes: Some(scopes),
            in_path: true,
        });
    }
    callers
}

/// Creates a well-formed key that is not in the store.
fn strange_key() -> (queue::KeyRecord, String) {
    let for_ = hearth_relay::keys::KeyFor {
        name: "stranger".into(),
        account: proto::Account::new("default").unwrap(),
        scopes: SCOPES.into(),
        serve: queue::Serve::All,
        ceiling: Ceiling::default(),
        expires_at: None,
    };
    let (text, record) = hearth_relay::keys::mint(for_, [9; 6], [9; 32], Timestamp(0));
    (record, text.reveal().to_owned())
}

/// Whether a key in the path is accepted: on routes of requesters, and on those of polling workers.
fn may_in_path(route: &Route) -> bool {
    match route.scope {
        Some(Scope::Admin) => false,
        Some(Scope::Work) => {
            let pollers = ["/api/ollama/", "/api/v1/ollama/"];
            pollers.iter().any(|start| route.path.starts_with(start))
        }
        Some(Scope::Enqueue | Scope::Read) | None => true,
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_the_document_says_and_nobody_else() {
    let clock = Arc::new(Ahead::default());
    let mut settings = RelaySettings::default();
    settings.failures_per_minute = 0;
    settings.key_rate = 0;
    settings.legacy_poll_hold = Duration::ZERO;
    let server = Server::at(clock.clone(), settings).await;
    let document = server.nobody().get("/openapi.json").await.json().await;
    let routes = routes(&document);
    assert!(routes.len() > 70, "{}", routes.len());
    let callers = callers(&server, &clock).await;
    assert!(callers.len() >= 14, "{}", callers.len());
    for Caller {
        who,
        client,
        scopes,
        in_path,
    } in &callers
    {
        for route in &routes {
            let Route {
                method,
                path,
                scope,
            } = route;
            let reply = client.send(method.clone(), path, "").await;
            let (status, code) = (reply.status, reply.header("x-hearth-error").to_owned());
            let said = format!("{who}: {method} {path}: {status} {code}");
            assert!(
                status.as_u16() < 500 || status == StatusCode::SERVICE_UNAVAILABLE,
                "{said}"
            );
            // A missing scope is answered 403, and so is a change of models that is not possible
            // here.
            let is_shut = status == StatusCode::FORBIDDEN && code == "forbidden";
            // The query service accepts only its own tokens.
            let is_foreign = who.contains("session")
                && ["/api/queries", "/api/logs"]
                    .iter()
                    .any(|start| path.starts_with(start));
            if is_foreign {
                assert!([401, 403].contains(&status.as_u16()), "{said}");
                continue;
            }
            match (scope, scopes) {
                (None, _) => {
                    let is_login = ["/api/login", "/api/token", "/api/sessions"]
                        .iter()
                        .any(|start| path.starts_with(start));
                    let is_none = path.starts_with("/assets/");
                    assert!(is_login || is_none || status == StatusCode::OK, "{said}");
                    assert_ne!(status, StatusCode::FORBIDDEN, "{said}");
                }
                (Some(_), None) => {
                    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
                    let codes = ["unauthorized", "key_expired"];
                    assert!(codes.contains(&&*code), "{said}");
                }
                (Some(scope), Some(scopes)) => {
                    let may = scopes.contains(scope) && (!in_path || may_in_path(route));
                    assert_ne!(status, StatusCode::UNAUTHORIZED, "{said}");
                    assert!(!is_shut || !may || is_never_done(path), "{said}");
                    assert!(is_shut || may, "{said}");
                }
            }
        }
    }
}

/// Whether a route refuses its operation even to callers that may use it.
fn is_never_done(path: &str) -> bool {
    let changes = ["pull", "push", "create", "copy", "delete", "blobs/sha256:0"];
    changes
        .iter()
        .any(|change| path == format!("/api/{change}"))
}

/// Returns a response without the requested id, which some dialects repeat.
async fn told(client: &Client, method: &Method, path: &str, id: &str) -> (StatusCode, String) {
    let body = if *method == Method::PATCH {
        r#"{"status":"done"}"#
    } else {
        "{}"
    };
    let reply = client
        .send(method.clone(), &path.replace("{id}", id), body)
        .await;
    let status = reply.status;
    assert!(!status.is_success(), "{method} {path} {id}: {status}");
    (status, reply.text().await.replace(id, "ID"))
}

#[tokio::test]
async fn ten_thousand_ids_that_are_not_ones_own_are_all_not_there() {
    const FOREIGN: u128 = 5_000;
    const ABSENT: u128 = 5_000;
    let mut settings = RelaySettings::default();
    settings.key_rate = 0;
    let server = Server::with(settings).await;
    let named = |n: u128| JobId(n.to_be_bytes());
    for n in 0..FOREIGN {
        let new = NewJob {
            account: account(&format!("other-{}", n / 500)),
            ..job(1)
        };
        let new = NewJob {
            id: named(n),
            ..new
        };
        server.store.enqueue(SystemWorld.now(), new).await.unwrap();
    }
    let client = server.requester().await;
    let asked = futures_util::stream::iter(0..FOREIGN + ABSENT);
    let asked = asked.for_each_concurrent(16, |n| {
        let (client, id) = (client.clone(), named(n));
        async move {
            for route in ["/api/jobs", "/api/ollama/status"] {
                let reply = client.get(&format!("{route}/{id}")).await;
                assert_eq!(reply.status, StatusCode::NOT_FOUND, "{route}/{id}");
                assert_eq!(reply.header("x-hearth-error"), "unknown_job");
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(120), asked)
        .await
        .unwrap();
    let owner = server.client("other-0", &[Scope::Read]).await;
    let own = owner.get(&format!("/api/jobs/{}", named(1))).await;
    assert_eq!(own.status, StatusCode::OK, "they are there");
}

#[tokio::test]
async fn what_is_not_yours_and_what_is_not_there_look_alike_on_every_route() {
    let mut settings = RelaySettings::default();
    settings.key_rate = 0;
    let server = Server::with(settings).await;
    let owners = [Scope::Enqueue, Scope::Read, Scope::Work];
    let other = server.client("other", &owners).await;
    let job = r#"{"op":"chat","body":{"model":"m","messages":[]}}"#;
    let mut foreign_jobs = Vec::new();
    for _ in 0..3 {
        let made = other.post("/api/jobs", job).await.json().await;
        foreign_jobs.push(made["id"].as_str().unwrap().to_owned());
    }
    let query = r#"{"query_text":"x","project":1}"#;
    let query = other.post("/api/queries/", query).await.json().await;
    let query = query["id"].to_string();
    let batch = batch_of(&other, &lines(1)).await;
    let files = other.get("/v1/files").await.json().await;
    let file = files["data"][0]["id"].as_str().unwrap().to_owned();

    let default = server.client("default", &owners).await;
    user(&*server.store, "jan", Role::User, "default").await;
    user(&*server.store, "service", Role::Service, "default").await;
    let nobody = server.nobody();
    let jan = client_of(&nobody, "jan").await;
    let service = client_of(&nobody, "service").await;
    let document = nobody.get("/openapi.json").await.json().await;
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.contains("{id}") {
            continue;
        }
        let (foreign, absent): (Vec<&str>, _) = if path.starts_with("/api/queries") {
            (vec![&query], "999999")
        } else if path.starts_with("/v1/files") {
            (vec![&file], "file-00000000000000000000000000000001")
        } else if path.starts_with("/v1/batches") {
            (vec![&batch], "batch_00000000000000000000000000000001")
        } else {
            let jobs = foreign_jobs.iter().map(String::as_str);
            (jobs.collect(), "00000000000000000000000000000001")
        };
        let path = path.replace("{attempt}", "1");
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for client in [&default, &jan, &service] {
                let there = told(client, &method, &path, absent).await;
                for id in &foreign {
                    let hidden = told(client, &method, &path, id).await;
                    assert_eq!(hidden, there, "{method} {path}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 50, "{seen}");
    let jobs = other.get("/api/jobs").await.json().await;
    let states = jobs.as_array().unwrap().iter().map(|job| &job["state"]);
    assert!(states.clone().count() >= 4, "{jobs}");
    for state in states {
        assert_eq!(state, "queued", "nobody else did anything to them");
    }
}
