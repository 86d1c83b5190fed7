//! Requests and answers on a libp2p substream: the length of the engine's bytes (4, big-endian), and the bytes. The end of a stream says
//! nothing of its sender: it comes as well where a connection broke, or where a request found no room.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// The longest request, and the longest answer.
pub(crate) const MAX_BYTES: usize = 512 * 1024;

/// Reads and writes them.
#[derive(Debug, Clone, Default)]
pub struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Vec<u8>,
    ) -> io::Result<()> {
        write(io, &request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Vec<u8>,
    ) -> io::Result<()> {
        write(io, &response).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than any"));
    }
    let mut bytes = Vec::new();
    // Memory grows with what came, not with what was announced.
    io.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.close().await
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_torn_stream_is_no_message() {
        for bytes in [vec![], vec![7], vec![9; MAX_BYTES]] {
            let mut written = Cursor::new(Vec::new());
            block_on(write(&mut written, &bytes)).unwrap();
            let written = written.into_inner();
            assert_eq!(block_on(read(&mut written.as_slice())).unwrap(), bytes);
            for cut in [0, 3, 4, written.len() - 1].into_iter().filter(|cut| *cut < written.len()) {
                let torn = block_on(read(&mut &written[..cut])).unwrap_err();
                assert_eq!(torn.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
            }
        }
        let longer = u32::try_from(MAX_BYTES + 1).unwrap().to_be_bytes();
        assert_eq!(block_on(read(&mut longer.as_slice())).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
