//! Yamux whose end has a bound. To close a connection is to send first what is queued, and on a link that is dead that waits for the
//! kernel: a quarter of an hour in which the peer counts as connected, nothing reaches it, and it is not dialled.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncWrite,
    future::{Ready, ready},
};
use libp2p::{
    core::{
        StreamMuxer, UpgradeInfo,
        muxing::StreamMuxerEvent,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    yamux,
};
use tokio::time::{Sleep, sleep};

/// After that the connection ends, said or not.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// The upgrade: yamux as it comes, and the bound.
#[derive(Debug, Clone, Default)]
pub(super) struct Upgrade(yamux::Config);

impl UpgradeInfo for Upgrade {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = Bounded<yamux::Muxer<C>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        ready(self.0.upgrade_inbound(io, info).into_inner().map(Bounded::new))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = Bounded<yamux::Muxer<C>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Output>>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        ready(self.0.upgrade_outbound(io, info).into_inner().map(Bounded::new))
    }
}

/// A multiplexer that is closed within [`CLOSES_WITHIN`]. Must be polled in a tokio runtime.
#[derive(Debug)]
pub(super) struct Bounded<M> {
    inner: M,
    patience: Option<Pin<Box<Sleep>>>,
}

impl<M> Bounded<M> {
    fn new(inner: M) -> Self {
        Self { inner, patience: None }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Bounded<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.inner).poll_inbound(cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.inner).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.inner).poll_close(cx) {
            return Poll::Ready(closed);
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(CLOSES_WITHIN)));
        patience.as_mut().poll(cx).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::muxing::StreamMuxerExt;

    use super::*;

    /// The other side of a link that is dead.
    struct Dead;

    impl StreamMuxer for Dead {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_connection_over_a_dead_link_is_closed() {
        let closed = tokio::time::timeout(60 * CLOSES_WITHIN, Bounded::new(Dead).close()).await;
        closed.expect("it ends").expect("without an error");
    }
}
