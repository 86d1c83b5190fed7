//! The exit: connects to hosts of the internet for others. It alone resolves their names, by its own resolver, and asks its policy for every
//! address that comes of it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use fog_circuits::{EndReason, ExitPolicy, Inbound};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};

/// To look a name up, and to connect.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections at a time.
const MAX_STREAMS: usize = 4096;
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Buffers of a copied stream, each way.
const COPY: usize = 32 * 1024;

/// What this node connects to for others, and how much of it at a time.
#[derive(Debug)]
pub(super) struct Exit {
    policy: Arc<ExitPolicy>,
    room: Arc<Semaphore>,
}

impl Exit {
    pub(super) fn new(policy: ExitPolicy) -> Self {
        Self { policy: Arc::new(policy), room: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

/// Connects in a task of its own.
pub(super) fn connect(exit: &Exit, target: (String, u16), request: Inbound) {
    let Ok(permit) = Arc::clone(&exit.room).try_acquire_owned() else { return request.refuse(EndReason::Busy) };
    let policy = Arc::clone(&exit.policy);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = forward(&policy, target, request).await {
            // Neither the host nor the peer is named: an exit keeps no record of what others do.
            tracing::debug!(kind = ?error.kind(), "a stream through this exit ended");
        }
    });
}

async fn forward(policy: &ExitPolicy, (host, port): (String, u16), request: Inbound) -> io::Result<()> {
    if !policy.allows_host(&host, port) {
        request.refuse(EndReason::Refused);
        return Ok(());
    }
    let socket = match timeout(PATIENCE, reach(policy, &host, port)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(reason)) => {
            request.refuse(reason);
            return Ok(());
        }
        Err(_) => {
            request.refuse(EndReason::Timeout);
            return Ok(());
        }
    };
    let mut socket = socket;
    socket.set_nodelay(true)?;
    let mut stream = request.accept();
    copy_bidirectional_with_sizes(&mut socket, &mut stream, COPY, COPY).await?;
    Ok(())
}

async fn reach(policy: &ExitPolicy, host: &str, port: u16) -> Result<TcpStream, EndReason> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match host.parse() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => lookup_host((host, port)).await.map_err(|_| EndReason::NotFound)?.take(MAX_ADDRESSES).collect(),
    };
    let mut outcome = EndReason::NotFound;
    for address in found {
        // A name may lead anywhere, also into the exit's own network.
        if !policy.allows(address.ip(), port) {
            outcome = EndReason::Refused;
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(_) => outcome = EndReason::Unreachable,
        }
    }
    Err(outcome)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn each_address_is_asked_for_and_nothing_private_is_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let policy = ExitPolicy::parse("accept *").unwrap();
        for host in ["127.0.0.1", "[::1]", "localhost", "10.0.0.1"] {
            let reached = reach(&policy, host, port).await;
            assert!(matches!(reached, Err(EndReason::Refused | EndReason::NotFound)), "{host}: {reached:?}");
        }
        let open = policy.with_private();
        assert!(reach(&open, "127.0.0.1", port).await.is_ok());
        drop(listener);
        assert!(matches!(reach(&open, "127.0.0.1", port).await, Err(EndReason::Unreachable)));
    }
}
