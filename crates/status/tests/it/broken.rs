//! A client that breaks a rule of WebSockets gets the close code for it, byte for byte.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{TestHub, soon};

/// The state of the connection when the rule is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Legacy,
    Greeting,
    Session,
}

/// A client frame, masked with zeroes.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The hub's next frame; all are short here.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    soon(stream.read_exact(&mut head)).await.unwrap();
    let length = match head[1] {
        126 => soon(stream.read_u16()).await.unwrap().into(),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    soon(stream.read_exact(&mut payload)).await.unwrap();
    (head[0], payload)
}

async fn open(hub: &TestHub, at: At) -> TcpStream {
    let mut stream = TcpStream::connect(hub.addr).await.unwrap();
    let protocol = match at {
        At::Legacy => "",
        At::Greeting | At::Session => "Sec-WebSocket-Protocol: hearth.status.v1\r\n",
    };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n",
        hub.addr
    );
    soon(stream.write_all(request.as_bytes())).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    let (first, _) = frame(&mut stream).await;
    assert_eq!(first, 0x81, "a status, or hello");
    if at == At::Session {
        let identify = br#"{"type":"identify","version":1}"#;
        soon(stream.write_all(&masked(0x81, identify)))
            .await
            .unwrap();
        assert_eq!(frame(&mut stream).await.0, 0x81, "identified");
        assert_eq!(frame(&mut stream).await.0, 0x81, "a snapshot");
    }
    stream
}

#[tokio::test]
async fn each_broken_rule_is_told_by_its_code_in_every_mode() {
    let hub = TestHub::start().await;
    let cut = [masked(0x01, b"\xc3"), masked(0x80, b"(")].concat();
    let within = [masked(0x01, b"{"), masked(0x81, b"}")].concat();
    let cases: [(&str, u16, Vec<u8>); 12] = [
        ("a reserved bit", 1002, masked(0xc1, b"{}")),
        ("a frame that is not masked", 1002, b"\x81\x02{}".to_vec()),
        ("an unknown opcode", 1002, masked(0x83, b"{}")),
        ("an unknown control opcode", 1002, masked(0x8b, b"")),
        ("a control frame in parts", 1002, masked(0x09, b"")),
        ("a long control frame", 1002, masked(0x89, &[b'x'; 126])),
        ("a rest of nothing", 1002, masked(0x80, b"{}")),
        ("a message within another", 1002, within),
        ("text that is not UTF-8", 1007, masked(0x81, b"\xff")),
        ("text that ends within a sign", 1007, masked(0x81, b"{\xc3")),
        ("a sign that breaks off between parts", 1007, cut),
        ("a long message", 1009, masked(0x81, &vec![b'x'; 300_000])),
    ];
    for at in [At::Legacy, At::Greeting, At::Session] {
        for (what, code, bytes) in &cases {
            let mut stream = open(&hub, at).await;
            soon(stream.write_all(bytes)).await.unwrap();
            let (first, payload) = frame(&mut stream).await;
            let said = (first, u16::from_be_bytes([payload[0], payload[1]]));
            assert_eq!(said, (0x88, *code), "{what}, {at:?}");
            assert!(payload.len() > 2, "it says why: {what}, {at:?}");
            // The hub closes first, and drops the connection when the client closes.
            assert!(soon(stream.read_u8()).await.is_err(), "{what}, {at:?}");
            soon(stream.write_all(&masked(0x88, &payload[..2])))
                .await
                .unwrap();
            soon(stream.shutdown()).await.unwrap();
        }
    }
    hub.stop().await;
}
