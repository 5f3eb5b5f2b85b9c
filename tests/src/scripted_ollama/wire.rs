//! A minimal HTTP/1.1 server that can break off on purpose.

use std::{collections::HashMap, future, io, sync::Arc};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::{Answer, Request, Stage, Step};

pub(super) async fn accept(listener: TcpListener, stage: Arc<Stage>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let stage = Arc::clone(&stage);
                connections.spawn(async move {
                    // Many tests have clients that disconnect early.
                    drop(serve(socket, &stage).await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, stage: &Stage) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut read, mut write) = socket.into_split();
    let mut buffer = BytesMut::new();
    while let Some(request) = next_request(&mut read, &mut buffer).await? {
        let answer = stage.answer(&request);
        stage.note(request);
        let is_kept = tokio::select! {
            played = play(&mut write, answer) => played?,
            _ = gone(&mut read, &mut buffer) => {
                stage.left.send_modify(|count| *count += 1);
                return Ok(());
            }
        };
        if !is_kept {
            return Ok(());
        }
    }
    Ok(())
}

/// Plays an answer; returns whether the connection can serve another request.
async fn play(write: &mut OwnedWriteHalf, answer: Answer) -> io::Result<bool> {
    for step in answer.0 {
        match step {
            Step::Head(status, kind) => {
                let kind = kind.map(|kind| format!("Content-Type: {kind}\r\n"));
                let kind = kind.unwrap_or_default();
                let head =
                    format!("HTTP/1.1 {status} X\r\n{kind}Transfer-Encoding: chunked\r\n\r\n");
                write.write_all(head.as_bytes()).await?;
            }
            Step::Send(chunk) => {
                let mut framed = BytesMut::from(format!("{:x}\r\n", chunk.len()).as_bytes());
                framed.extend_from_slice(&chunk);
                framed.extend_from_slice(b"\r\n");
                write.write_all(&framed).await?;
            }
            Step::Wait(gate) => gate.passed().await,
            Step::Pause(pause) => tokio::time::sleep(pause).await,
            Step::Finish => {
                write.write_all(b"0\r\n\r\n").await?;
                return Ok(true);
            }
            Step::Cut => return Ok(false),
        }
    }
    // A script without an end leaves the client waiting.
    future::pending().await
}

/// Completes when the client has closed its side; a half-close counts, as it does for Ollama.
async fn gone(read: &mut OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<()> {
    while read.read_buf(buffer).await? > 0 {}
    Ok(())
}

async fn next_request(
    read: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
) -> io::Result<Option<Request>> {
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if read.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = buffer.split_to(head_len);
    buffer.advance(4);
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let body = read_body(read, buffer, length.unwrap_or(0)).await?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
    }))
}

async fn read_body(
    read: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    length: usize,
) -> io::Result<Bytes> {
    while buffer.len() < length {
        if read.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.split_to(length).freeze())
}
