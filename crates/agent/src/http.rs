//! The local HTTP server: the status for those who ask, nothing that can be changed.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use proto::{ErrorBody, ErrorCode, status::Status};
use serde::Serialize;
use serde_json::json;
use status::{Access, StatusHub};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Until a request's head is there; also how long an idle connection is kept.
const HEAD: Duration = Duration::from_secs(10);
/// Longest life of a connection: nothing here streams yet.
const LIFE: Duration = Duration::from_secs(60);

/// The routes, behind the check of `Host` and `Origin`.
pub(crate) fn router(hub: StatusHub, access: Access) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/api/status", get(api_status))
        .fallback(async || refuse(ErrorCode::UnknownRoute, "nothing here; try /api/status"))
        .method_not_allowed_fallback(async || {
            refuse(
                ErrorCode::MethodNotAllowed,
                "only GET; commands go to the status hub",
            )
        })
        .layer(middleware::from_fn_with_state(access, check))
        .with_state(hub)
}

async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    let mut response = match access.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal.code, &refusal.message),
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn healthz() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn api_status(State(hub): State<StatusHub>) -> Response {
    Json(Polled::new(hub.latest().status())).into_response()
}

fn refuse(code: ErrorCode, message: &str) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::FORBIDDEN);
    (status, Json(ErrorBody::new(code, message))).into_response()
}

/// The nine fields that founding overlays poll for, and ours beside them.
#[derive(Serialize)]
struct Polled<'a> {
    #[serde(flatten)]
    status: &'a Status,
    tts_playing: bool,
    last_tts: &'a str,
}

impl<'a> Polled<'a> {
    fn new(status: &'a Status) -> Self {
        Self {
            status,
            tts_playing: status.is_speaking,
            last_tts: &status.text,
        }
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a local connection broke");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the local HTTP server cannot accept");
                let _ = stop
                    .run_until_cancelled(sleep(Duration::from_millis(200)))
                    .await;
                continue;
            }
        };
        if let Ok(seat) = room.clone().try_acquire_owned() {
            let talking = talk(stream, router.clone());
            connections.spawn(async move {
                if tokio::time::timeout(LIFE, talking).await.is_err() {
                    tracing::debug!("a local connection was kept too long");
                }
                drop(seat);
            });
        }
    }
}

async fn talk(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a local connection ended early");
    }
}
