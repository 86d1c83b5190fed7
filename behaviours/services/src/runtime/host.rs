//! A service that this node runs: its core, what of it waits for the disk, and its streams.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use fog_circuits::{CircuitId, Circuits, EndReason, Inbound, Target};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::TcpStream,
    sync::Semaphore,
    time::{error::Elapsed, timeout},
};

use super::exchange;
use crate::core::{
    descriptor::ClientSecret,
    service::{Exchange, Output, Row, Service},
};

/// Streams of one service at a time: each has a connection to its server.
const MAX_STREAMS: usize = 2048;
/// For a connection to the service's server.
const CONNECT: Duration = Duration::from_secs(10);
/// Buffers of a copied stream, each way.
const COPY: usize = 32 * 1024;
/// Outputs that wait for the disk. What finds no room is dropped: circuits that are not built, introductions that are not answered.
const MAX_HELD: usize = 4096;

/// One service.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) service: Service,
    pub(super) target: SocketAddr,
    pub(super) port: u16,
    /// By which it tests itself, if it admits known clients only.
    pub(super) probe: ClientSecret,
    /// Connections to its server.
    room: Arc<Semaphore>,
    /// Behind a write.
    held: VecDeque<Output>,
    is_writing: bool,
}

impl Host {
    pub(super) fn new(service: Service, target: SocketAddr, port: u16, probe: ClientSecret) -> Self {
        let room = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { service, target, port, probe, room, held: VecDeque::new(), is_writing: false }
    }

    /// Whether rows of it are on their way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// What is to be done now. While rows are on their way to the disk, nothing that follows from them.
    pub(super) fn poll(&mut self) -> Option<Output> {
        while let Some(output) = self.service.poll_output() {
            if self.held.len() < MAX_HELD {
                self.held.push_back(output);
            } else {
                tracing::debug!("a service does more than the disk takes");
            }
        }
        if self.is_writing {
            return None;
        }
        let output = self.held.pop_front()?;
        let Output::Persist(mut rows) = output else { return Some(output) };
        // Several writes in a row are one.
        while let Some(Output::Persist(more)) = self.held.front_mut() {
            rows.append(more);
            self.held.pop_front();
        }
        self.is_writing = true;
        Some(Output::Persist(rows))
    }

    /// The rows are on the disk.
    pub(super) fn handle_written(&mut self) {
        self.is_writing = false;
    }

    /// A request came through the mixnet, and this circuit.
    pub(super) fn exchange(&self, exchange: Exchange, way: (Circuits, CircuitId)) {
        let server = (exchange.port == self.port).then_some(self.target);
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        tokio::spawn(exchange::serve(exchange, server, permit, way));
    }

    /// The other end of a rendezvous begins a stream.
    pub(super) fn serve(&self, target: &Target, request: Inbound) {
        match target {
            Target::Service(port) if *port == self.port => {
                let server = self.target;
                let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                    return request.refuse(EndReason::Busy);
                };
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = forward(server, request).await {
                        tracing::debug!(%error, "a stream of a service ended");
                    }
                });
            }
            _ => request.refuse(EndReason::Refused),
        }
    }
}

/// Writes, and tries again: a service waits rather than answer an introduction twice.
pub(super) async fn write<K: super::Keep>(keep: &K, service: u64, rows: Vec<Row>) {
    let mut pause = Duration::from_millis(500);
    while !keep.write(service, rows.clone()).await {
        tracing::warn!("a service waits: its rows are not taken by the store");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

async fn forward(server: SocketAddr, request: Inbound) -> io::Result<()> {
    let connected: Result<io::Result<TcpStream>, Elapsed> = timeout(CONNECT, TcpStream::connect(server)).await;
    let mut socket = match connected {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            request.refuse(EndReason::Unreachable);
            return Err(error);
        }
        Err(late) => {
            request.refuse(EndReason::Timeout);
            return Err(late.into());
        }
    };
    socket.set_nodelay(true)?;
    let mut stream = request.accept();
    copy_bidirectional_with_sizes(&mut socket, &mut stream, COPY, COPY).await?;
    Ok(())
}
