//! Connections: a bounded number at one time, further ones wait in the operating system's queue, and none may be slow for long.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// Connections at one time.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may wait for its next request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long answers in progress may take once the node stops.
const GRACE: Duration = Duration::from_secs(2);
/// After an error of the listener that is not one connection's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves `routes` until `stopping`, and then for [`GRACE`] what is in progress.
pub(super) async fn serve(listener: TcpListener, routes: Router, stopping: CancellationToken) -> io::Result<()> {
    serve_patiently(listener, routes, stopping, HEAD_WITHIN).await
}

async fn serve_patiently(
    listener: TcpListener,
    routes: Router,
    stopping: CancellationToken,
    head_within: Duration,
) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let open = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&free).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (routes, stopping) = (routes.clone(), stopping.clone());
                open.spawn(async move {
                    converse(stream, routes, stopping, head_within).await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the API cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    open.close();
    drop(tokio::time::timeout(GRACE, open.wait()).await);
    Ok(())
}

/// One connection, to its end. Whatever breaks it is its client's to notice.
async fn converse(stream: TcpStream, routes: Router, stopping: CancellationToken, head_within: Duration) {
    let service =
        TowerToHyperService::new(routes.map_request(|request: hyper::Request<Incoming>| request.map(Body::new)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API broke");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    /// What comes until the server closes the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        // A reset is an end as well.
        drop(stream.read_to_string(&mut text).await);
        text
    }

    #[tokio::test]
    async fn who_never_ends_a_request_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let routes = Router::new().route("/", get(|| async { "here" }));
        let server = tokio::spawn(serve_patiently(listener, routes, stopping.clone(), Duration::from_millis(300)));
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&REQUEST[..20]).await.unwrap();
            slow.push(stream);
        }
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(REQUEST).await.unwrap();
        assert!(rest(&mut other).await.ends_with("here"));
        for stream in &mut slow {
            assert!(!rest(stream).await.contains("here"));
        }
        stopping.cancel();
        server.await.unwrap().unwrap();
    }
}
