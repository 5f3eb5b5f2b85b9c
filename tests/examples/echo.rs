//! Echo servers and a client for the conformance suite of `./x autobahn`. The servers are the status
//! hub's own code from the upgrade to the last byte, and that of the relay's tunnels; the client runs
//! every case of a server. Only the message size differs, because the suite sends up to 16 MiB.

use std::{error::Error, io::Write as _};

use futures_util::{SinkExt as _, StreamExt as _};
use status::echo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

type Failed = Box<dyn Error + Send + Sync>;

const LARGEST: usize = 64 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("hub") => serve_hub(listen().await?).await,
        Some("tunnel") => Ok(relay::echo::serve(listen().await?, LARGEST).await?),
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
        _ => Err("echo hub | echo tunnel | echo call PORT".into()),
    }
}

/// Listens on a port of the system, and prints it.
async fn listen() -> Result<TcpListener, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    Ok(listener)
}

async fn serve_hub(listener: TcpListener) -> Result<(), Failed> {
    let mut talks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        talks.spawn(async move {
            // The suite judges how the connection ended.
            let _ = echo::serve(stream, LARGEST).await;
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
    let config = Some(echo::client_config(LARGEST));
    Ok(client_async_with_config(url, stream, config).await?.0)
}

/// Runs until the other side closes or breaks a rule; the library has closed the connection then.
async fn talk(mut socket: WebSocketStream<TcpStream>) {
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
