//! Says everything back, for the conformance suite of `./x autobahn`: a server, or a client that
//! runs every case of one. The library and its settings are the hub's own but for the size of a
//! message, since the suite sends up to 16 MiB.

use std::{error::Error, io::Write as _};

use futures_util::{SinkExt as _, StreamExt as _};
use proto::limits::WS_READ_BUFFER;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config, client_async_with_config,
    tungstenite::protocol::WebSocketConfig,
};

type Failed = Box<dyn Error + Send + Sync>;

fn config() -> Option<WebSocketConfig> {
    let largest = Some(64 * 1024 * 1024);
    Some(
        WebSocketConfig::default()
            .read_buffer_size(WS_READ_BUFFER)
            .max_message_size(largest)
            .max_frame_size(largest),
    )
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("serve") => serve().await,
        Some("call") => {
            call(
                &words
                    .next()
                    .ok_or("the suite's port")?
                    .parse::<u16>()?
                    .to_string(),
            )
            .await
        }
        _ => Err("echo serve | echo call PORT".into()),
    }
}

async fn serve() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    let mut talks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        talks.spawn(async move {
            if let Ok(socket) = accept_async_with_config(stream, config()).await {
                talk(socket).await;
            }
        });
        while talks.try_join_next().is_some() {}
    }
}

async fn call(port: &str) -> Result<(), Failed> {
    let count: u32 = open(port, "getCaseCount")
        .await?
        .next()
        .await
        .ok_or("no count")??
        .to_text()?
        .parse()?;
    for case in 1..=count {
        talk(open(port, &format!("runCase?case={case}&agent=hearth")).await?).await;
    }
    talk(open(port, "updateReports?agent=hearth").await?).await;
    Ok(())
}

async fn open(port: &str, path: &str) -> Result<WebSocketStream<TcpStream>, Failed> {
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://127.0.0.1:{port}/{path}");
    Ok(client_async_with_config(url, stream, config()).await?.0)
}

/// Until the other side closes, or breaks a rule: then the library has closed it already.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
        if !is_data && socket.flush().await.is_err() {
            return;
        }
    }
}
