//! The control protocol's framing: one message a direction, ended by the end of the stream.
//!
//! Reads stop one byte past the message's limit, so no peer can make this node hold more.

use std::{future::Future, io};

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use layermesh_proto::wire::{
    ControlRequest, ControlResponse, codec,
    control::{CONTROL_REQUEST_BYTES_MAX, CONTROL_RESPONSE_BYTES_MAX},
};
use libp2p::{StreamProtocol, request_response};

/// Reads and writes control messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ControlCodec;

impl request_response::Codec for ControlCodec {
    type Protocol = StreamProtocol;
    type Request = ControlRequest;
    type Response = ControlResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ControlRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_message(io, CONTROL_REQUEST_BYTES_MAX).await?;
        codec::decode_control_request(&bytes).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ControlResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_message(io, CONTROL_RESPONSE_BYTES_MAX).await?;
        codec::decode_control_response(&bytes).map_err(invalid)
    }

    fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: ControlRequest,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = codec::encode_control_request(&request).map_err(invalid);
        async move { io.write_all(&bytes?).await }
    }

    fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: ControlResponse,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = codec::encode_control_response(&response).map_err(invalid);
        async move { io.write_all(&bytes?).await }
    }
}

pub(super) async fn read_message<T: AsyncRead + Unpin + Send>(io: &mut T, len_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(len_max as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > len_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a control message is over its limit"));
    }
    Ok(bytes)
}

pub(super) fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;
    use layermesh_proto::wire::InventoryPosition;
    use libp2p::request_response::Codec as _;

    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/x");

    #[tokio::test]
    async fn a_request_survives_and_a_long_one_is_refused() {
        let request = ControlRequest::Inventory { since: InventoryPosition { epoch: 7, seq: 9 } };
        let mut bytes = Vec::new();
        ControlCodec.write_request(&PROTOCOL, &mut Cursor::new(&mut bytes), request.clone()).await.unwrap();
        assert_eq!(ControlCodec.read_request(&PROTOCOL, &mut bytes.as_slice()).await.unwrap(), request);

        let long = vec![0; CONTROL_REQUEST_BYTES_MAX + 1];
        let mut rest = [long.as_slice(), &[0; 100]].concat();
        rest.truncate(CONTROL_REQUEST_BYTES_MAX + 100);
        let mut reader = rest.as_slice();
        assert!(ControlCodec.read_request(&PROTOCOL, &mut reader).await.is_err());
        assert_eq!(reader.len(), 99, "reading stops one byte past the limit");
    }
}
