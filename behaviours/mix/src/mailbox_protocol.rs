//! Between a mailbox and its client: requests and answers over libp2p's request-response, encoded by fog-base's codec.

use std::io;

use fog_base::codec;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use serde::{Deserialize, Serialize};

use crate::core::mailbox::{PUSH_BATCH, Slot, Stored};

/// The largest request: a push of full packets.
const MAX_REQUEST: usize = PUSH_BATCH * 2300 + 1024;
const MAX_RESPONSE: usize = 64;

/// What either side asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// A client claims a slot: a signed record.
    Claim(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A client needs these packets of a slot no longer.
    Done(Slot, Vec<u64>),
    /// A mailbox hands packets of a slot to its client.
    Push(Slot, Vec<Stored>),
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Response {
    /// Done.
    Ok,
    /// Not done, for good.
    Refused,
}

/// Reads and writes them, each ended by the end of its stream.
#[derive(Debug, Clone, Default)]
pub struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Request> {
        codec::decode(&read(io, MAX_REQUEST).await?, MAX_REQUEST).map_err(invalid)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Response> {
        codec::decode(&read(io, MAX_RESPONSE).await?, MAX_RESPONSE).map_err(invalid)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Request,
    ) -> io::Result<()> {
        write(io, &codec::encode(&request, MAX_REQUEST).map_err(invalid)?).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()> {
        write(io, &codec::encode(&response, MAX_RESPONSE).map_err(invalid)?).await
    }
}

/// Reads to the end, or one byte beyond `max`, which decoding then refuses.
async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(max as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.close().await
}

fn invalid(error: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_push_fits() {
        let stored =
            Stored { id: u64::MAX, surb: Some([255; 16]), data: vec![0; fog_sphinx::PAYLOAD_LEN], expires: u64::MAX };
        let push = Request::Push([255; 32], vec![stored; PUSH_BATCH]);
        assert!(codec::encode(&push, MAX_REQUEST).is_ok());
    }

    /// Requests and answers of version 1, in the order of `tests/fixtures/mailbox-v1.hex`.
    fn frozen() -> (Vec<Request>, Vec<Response>) {
        let stored = |surb| Stored { id: 1 << 40, surb, data: vec![5; 20], expires: 1_800_000_000 };
        let requests = vec![
            Request::Claim(vec![1, 2, 3]),
            Request::Done([7; 32], vec![1, u64::MAX]),
            Request::Push([7; 32], vec![stored(None), stored(Some([9; 16]))]),
        ];
        (requests, vec![Response::Ok, Response::Refused])
    }

    #[test]
    fn frozen_requests_and_answers_are_read_and_written_as_ever() {
        let (requests, responses) = frozen();
        let bytes = |line: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
            (0..line.len()).step_by(2).map(byte).collect()
        };
        let lines: Vec<_> = include_str!("../tests/fixtures/mailbox-v1.hex").lines().map(bytes).collect();
        assert_eq!(lines.len(), requests.len() + responses.len());
        for (line, request) in lines.iter().zip(&requests) {
            assert_eq!(codec::decode::<Request>(line, MAX_REQUEST).as_ref(), Ok(request));
            assert_eq!(codec::encode(request, MAX_REQUEST).as_ref(), Ok(line));
        }
        for (line, response) in lines.iter().skip(requests.len()).zip(&responses) {
            assert_eq!(codec::decode::<Response>(line, MAX_RESPONSE).as_ref(), Ok(response));
            assert_eq!(codec::encode(response, MAX_RESPONSE).as_ref(), Ok(line));
        }
    }

    /// Run once for version 1.
    #[test]
    #[ignore = "writes tests/fixtures/mailbox-v1.hex, which is frozen, if it is empty"]
    fn write_the_fixture() {
        let (requests, responses) = frozen();
        let requests = requests.iter().map(|request| codec::encode(request, MAX_REQUEST).unwrap());
        let responses = responses.iter().map(|response| codec::encode(response, MAX_RESPONSE).unwrap());
        let line = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        let out: String = requests.chain(responses).map(line).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mailbox-v1.hex");
        if std::fs::read(path).is_ok_and(|old| old.is_empty()) {
            std::fs::write(path, out).unwrap();
        }
    }
}
