//! The names of the packet streams: one for each version. Who opens a stream offers its versions, highest first, and the other
//! side takes the first that it speaks (multistream-select), so a link has the highest version that both have.

use std::{convert::Infallible, future, sync::Arc};

use fog_base::NetworkId;
use libp2p::{
    Stream, StreamProtocol,
    core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
};

/// A network's packet streams, in some versions.
#[derive(Debug, Clone)]
pub struct LinkProtocol(Arc<[StreamProtocol]>);

impl LinkProtocol {
    /// In `versions`, highest first.
    pub fn new(network: &NetworkId, versions: &[u16]) -> Self {
        // The names are made of ASCII letters and digits and begin with a slash.
        let name = |version: &u16| StreamProtocol::try_from_owned(network.protocol("mix", (*version).into())).ok();
        Self(versions.iter().filter_map(name).collect())
    }
}

impl UpgradeInfo for LinkProtocol {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for LinkProtocol {
    type Output = Stream;
    type Error = Infallible;
    type Future = future::Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        future::ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for LinkProtocol {
    type Output = Stream;
    type Error = Infallible;
    type Future = future::Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        future::ready(Ok(stream))
    }
}

#[cfg(test)]
#[path = "link_protocol_tests.rs"]
mod tests;
