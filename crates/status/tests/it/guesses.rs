//! A flood of wrong tokens over real connections, beside an overlay that follows.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hearth_status::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    task::JoinSet,
};

use crate::support::{Client, TestHub, soon};

/// Number of wrong tokens, unless `HEARTH_GUESSES` is set: 100,000 take one to two minutes.
const GUESSES: u32 = 5_000;
const HANDS: u32 = 8;

/// The HTTP status of the answer to one wrong token.
async fn guess(hub: SocketAddr, hand: u32, n: u32) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    // One source address would run out of ports.
    let host = 2 + u8::try_from((n / 64 * HANDS + hand) % 250).unwrap();
    socket
        .bind((Ipv4Addr::new(127, 0, 0, host), 0).into())
        .unwrap();
    let mut stream = soon(socket.connect(hub)).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {hub}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {hand:08x}{n:056x}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer[9..12].parse().unwrap()
}

/// Number of tokens that were checked; the overlay receives every status meanwhile.
async fn flood(hub: &TestHub, overlay: &mut Client, guesses: u32) -> usize {
    let mut guessing = JoinSet::new();
    for hand in 0..HANDS {
        let hub = hub.addr;
        guessing.spawn(async move {
            let mut looked = 0;
            for n in 0..guesses / HANDS {
                match guess(hub, hand, n).await {
                    401 => looked += 1,
                    429 => {}
                    other => panic!("{other}"),
                }
            }
            looked
        });
    }
    let mut shown = 0;
    let following = async {
        loop {
            shown += 1;
            let text = format!("{guesses}/{shown}");
            hub.hub.update(|status| status.text.clone_from(&text));
            overlay.until(|status| status.text == text).await;
        }
    };
    let looked = tokio::select! {
        looked = guessing.join_all() => looked.into_iter().sum(),
        () = following => unreachable!("it has no end"),
    };
    assert!(shown > 10, "{shown}");
    looked
}

/// Number of resident pages of this process.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_without_end_hide_no_status_take_no_memory_and_lock_nobody_out() {
    let guesses = std::env::var("HEARTH_GUESSES").map_or(GUESSES, |n| n.parse().unwrap());
    let limits = Limits {
        pace: Duration::ZERO,
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut overlay = hub.reader().await;
    let began = Instant::now();
    let mut looked = flood(&hub, &mut overlay, guesses / 4).await;
    #[cfg(target_os = "linux")]
    let before = resident();
    looked += flood(&hub, &mut overlay, guesses).await;
    #[cfg(target_os = "linux")]
    assert!(
        resident() < before + 4_096,
        "{} pages, then {}",
        before,
        resident()
    );
    // Ten at once, then one per second.
    let most = 11 + began.elapsed().as_secs();
    assert!(looked as u64 <= most, "{looked} were looked at");
    hub.commander().await.until(|_| true).await;
    assert!(overlay.is_open().await);
    hub.stop().await;
}
