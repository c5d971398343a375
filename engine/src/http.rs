//! A small HTTP server for the admin endpoints, on a thread of its own: it answers when everything else is jammed.
//!
//! Leaves to others: what is answered (`admin`). Invariant: a request whose `Host` is not the loopback or the address
//! served is refused (a browser lured here by a foreign name), and a connection has bounds in number, size and time.

use crate::admin::{AdminApi, AdminRequest, AdminResponse};
use crate::error::OpenError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Connections at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// How long a request's head may take, and a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound address that answers nobody yet.
pub(crate) struct AdminListener {
    listener: TcpListener,
    addr: SocketAddr,
}

/// The running server.
pub(crate) struct AdminServer {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminListener {
    /// Takes the address, so that a mistake shows before anything starts.
    pub(crate) fn bind(addr: &str) -> Result<AdminListener, OpenError> {
        let failed = |error| OpenError::Listen { addr: addr.to_owned(), error };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(AdminListener { listener, addr })
    }

    /// Serves until `stop`.
    pub(crate) fn serve(self, api: AdminApi) -> std::io::Result<AdminServer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let addr = self.addr;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    end = accept(self.listener, addr, api) => {
                        if let Err(e) = end {
                            tracing::warn!(target: "pontoon::admin", err = %e, "the admin endpoint has ended");
                        }
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("pontoon-admin".to_owned()).spawn(run)?;
        Ok(AdminServer { addr, stop: Some(stop), thread: Some(thread) })
    }
}

impl AdminServer {
    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it and all its connections.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ended_by_itself = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, addr: SocketAddr, api: AdminApi) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, mostly: the next try may find one.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let api = api.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(respond(&api, addr, request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
            // A broken connection is its client's trouble.
            let _broken = http.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
    Ok(())
}

async fn respond(api: &AdminApi, addr: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let answer = if host.is_some_and(|h| is_served_host(h, addr)) {
        take_in(api, request).await
    } else {
        AdminResponse::refused(403, "host", "this host name is not served here")
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if answer.status == 401 {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response
}

/// Reads the body, bounded in size and time, and has the request answered.
async fn take_in(api: &AdminApi, request: Request<Incoming>) -> AdminResponse {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, AdminApi::MAX_BODY).collect();
    let body = match tokio::time::timeout(HEAD_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return AdminResponse::refused(413, "bad_request", "the body is too large, or broke off"),
        Err(_) => return AdminResponse::refused(408, "bad_request", "the body took too long"),
    };
    let authorization = head.headers.get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    api.call(AdminRequest {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        authorization,
        body: &body,
    })
    .await
}

/// The loopback by any name, or the address itself.
fn is_served_host(host: &str, addr: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    // Served on every address, any of them is an own one; a name still is not.
    let own = |ip: std::net::IpAddr| ip.is_loopback() || ip == addr.ip() || addr.ip().is_unspecified();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(own)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_served() {
        let addr = "127.0.0.1:9000".parse().unwrap();
        for good in ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:9000", "127.9.9.9"] {
            assert!(is_served_host(good, addr), "{good}");
        }
        for bad in ["evil.example", "evil.example:9000", "10.0.0.1:9000", "", "localhost.evil.example:9000"] {
            assert!(!is_served_host(bad, addr), "{bad}");
        }
    }
}
