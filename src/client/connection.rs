//! One connection to one broker: versions agreed on, requests out, answers in, in order.
//!
//! Invariants: answers come in the order of requests, so a correlation id that differs ends the connection; nothing
//! is allocated for an answer before its size is within the bound. After an error the connection is of no use.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Request, StrBytes};

use super::error::ClientError;
use crate::protocol::decode::decode_response;
use crate::protocol::encode::encode_request;
use crate::protocol::{ApiKey, ErrorCode};

/// Bounds and times of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// What the broker is told we are.
    pub client_id: String,
    /// How long connecting may take, for each address of the name.
    pub connect_wait_max: Duration,
    /// How long an answer may take, and how long the socket may refuse bytes.
    pub answer_wait_max: Duration,
    /// The greatest answer that is accepted.
    pub answer_size_bytes_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        ConnectionOptions {
            client_id: "ottla".into(),
            connect_wait_max: Duration::from_secs(5),
            answer_wait_max: Duration::from_secs(30),
            answer_size_bytes_max: 256 << 20,
        }
    }
}

/// A connection that is ready for requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    client_id: String,
    answer_size_bytes_max: usize,
    versions: Vec<(i16, i16, i16)>,
    correlation_id_next: i32,
    /// Requests that are under way, oldest first: correlation id, API and version.
    under_way: VecDeque<(i32, i16, i16)>,
    out: Vec<u8>,
}

impl Connection {
    /// Connects and agrees on versions.
    pub fn open(address: &str, options: &ConnectionOptions) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address: address.to_string(), source };
        let stream = connect(address, options.connect_wait_max).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(options.answer_wait_max)).map_err(failed)?;
        stream.set_write_timeout(Some(options.answer_wait_max)).map_err(failed)?;
        let mut connection = Connection {
            stream,
            address: address.to_string(),
            client_id: options.client_id.clone(),
            answer_size_bytes_max: options.answer_size_bytes_max,
            versions: Vec::new(),
            correlation_id_next: 0,
            under_way: VecDeque::new(),
            out: Vec::new(),
        };
        connection.negotiate()?;
        Ok(connection)
    }

    /// The broker's address as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The greatest version of `R` that both sides have, but at most `max`.
    pub fn version_of<R: Request>(&self, max: i16) -> Result<i16, ClientError> {
        let unsupported = || ClientError::Unsupported { address: self.address.clone(), api: api_name(R::KEY) };
        let (_, their_min, their_max) =
            self.versions.iter().find(|(key, ..)| *key == R::KEY).ok_or_else(unsupported)?;
        let version = max.min(*their_max).min(R::VERSIONS.max);
        if version < R::VERSIONS.min.max(*their_min) { Err(unsupported()) } else { Ok(version) }
    }

    /// Sends a request and waits for its answer. No other may be under way.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, ClientError> {
        self.send(version, request)?;
        self.receive::<R>()
    }

    /// Sends a request; [`receive`](Self::receive) gets its answer, in the order of sending.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<(), ClientError> {
        self.send_unanswered(version, request)?;
        self.under_way.push_back((self.correlation_id_next, R::KEY, version));
        Ok(())
    }

    /// Sends a request that the protocol does not answer (Produce with acks=0).
    pub fn send_unanswered<R: Request>(&mut self, version: i16, request: &R) -> Result<(), ClientError> {
        self.correlation_id_next = self.correlation_id_next.wrapping_add(1);
        self.out.clear();
        encode_request(&mut self.out, version, self.correlation_id_next, Some(&self.client_id), request)
            .map_err(|error| ClientError::Request(error.to_string()))?;
        self.stream.write_all(&self.out).map_err(|source| ClientError::Connection {
            address: self.address.clone(),
            doing: format!("sending {}", api_name(R::KEY)),
            source,
        })
    }

    /// Requests that wait for an answer.
    pub fn under_way_count(&self) -> usize {
        self.under_way.len()
    }

    /// Waits for the answer to the oldest request, which must have been an `R`.
    pub fn receive<R: Request>(&mut self) -> Result<R::Response, ClientError> {
        let (correlation_id, key, version) = self.under_way.pop_front().expect("a request is under way");
        assert_eq!(key, R::KEY, "answers come in the order of requests");
        let frame = self.receive_frame(api_name(key))?;
        let (found, response) = decode_response::<R>(frame, version).map_err(|error| self.protocol(error))?;
        if found != correlation_id {
            return Err(self.protocol(format!("an answer to request {found} instead of {correlation_id}")));
        }
        Ok(response)
    }

    fn receive_frame(&mut self, api: &str) -> Result<Bytes, ClientError> {
        let failed = |source| ClientError::Connection {
            address: self.address.clone(),
            doing: format!("waiting for an answer to {api}"),
            source,
        };
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).map_err(failed)?;
        let claimed = i32::from_be_bytes(prefix);
        let size_bytes = usize::try_from(claimed)
            .ok()
            .filter(|size| (4..=self.answer_size_bytes_max).contains(size))
            .ok_or_else(|| self.protocol(format!("an answer of {claimed} bytes")))?;
        // Grows with what arrives: a size that lies costs nothing.
        let mut frame = Vec::with_capacity(size_bytes.min(1 << 20));
        let got = (&self.stream).take(size_bytes as u64).read_to_end(&mut frame).map_err(failed)?;
        if got < size_bytes {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Bytes::from(frame))
    }

    /// Asks with the newest version that we have; a broker that does not know it answers in version 0 with its list.
    fn negotiate(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("ottla"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let version = ApiVersionsRequest::VERSIONS_MAX;
        self.send(version, &request)?;
        self.under_way.clear();
        let frame = self.receive_frame("ApiVersions")?;
        let mut response = decode_api_versions(&frame, version).map_err(|why| self.protocol(why))?;
        if response.error_code == ErrorCode::UnsupportedVersion.code() {
            // A list that contradicts the refusal is not believed; version 0 is what every broker has.
            let listed = response.api_keys.iter().find(|api| api.api_key == ApiVersionsRequest::KEY);
            let version = listed.map_or(0, |api| api.max_version).max(0);
            let version = if version < ApiVersionsRequest::VERSIONS_MAX { version } else { 0 };
            let request = if version >= 3 { request } else { ApiVersionsRequest::default() };
            response = self.call(version, &request)?;
        }
        ClientError::check(response.error_code, None, || format!("ApiVersions of {}", self.address))?;
        self.versions = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        Ok(())
    }

    fn protocol(&self, why: impl ToString) -> ClientError {
        ClientError::Protocol { address: self.address.clone(), why: why.to_string() }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

trait VersionsMax {
    const VERSIONS_MAX: i16;
}

impl VersionsMax for ApiVersionsRequest {
    const VERSIONS_MAX: i16 = <ApiVersionsRequest as kafka_protocol::protocol::Message>::VERSIONS.max;
}

/// The answer in the version asked for, or in version 0 if that version is refused (KIP-511).
fn decode_api_versions(frame: &Bytes, version: i16) -> Result<ApiVersionsResponse, String> {
    let refused =
        frame.get(4..6).map(|b| i16::from_be_bytes([b[0], b[1]])) == Some(ErrorCode::UnsupportedVersion.code());
    let version = if refused { 0 } else { version };
    decode_response::<ApiVersionsRequest>(frame.clone(), version).map(|(_, r)| r).map_err(|error| error.to_string())
}

fn api_name(key: i16) -> &'static str {
    ApiKey::from_key(key).map_or("a request", ApiKey::name)
}

fn connect(address: &str, wait_max: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
    for socket_address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, wait_max) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
