//! HTTP on the proxy's port: CONNECT, and a page for a person who opens the port in a browser. Pure: bytes in, bytes out.

use data_encoding::BASE64;

use super::request::{Credentials, Host, Request};

/// The most that the head of a request may take, in bytes.
pub(super) const MAX_HEAD: usize = 8192;
const MAX_HEADERS: usize = 64;

/// What a head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More bytes are needed.
    More,
    /// A stream; the head had this many bytes.
    Ask(Request, usize),
    /// These go back, and that is the end.
    Refuse(Vec<u8>),
}

/// Reads the head of a request.
pub(super) fn parse(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Head::More,
        Ok(httparse::Status::Partial) => return Head::Refuse(answer(431, "the head of the request is too long")),
        Err(_) => return Head::Refuse(answer(400, "this is not HTTP/1.1, nor SOCKS5")),
    };
    match (request.method.unwrap_or_default(), request.path.unwrap_or_default()) {
        ("CONNECT", authority) => match (host_and_port(authority), credentials(request.headers)) {
            (Some((host, port)), Ok(credentials)) => {
                Head::Ask(Request { host: Host::Name(host), port, credentials }, used)
            }
            (None, _) => Head::Refuse(answer(400, "CONNECT takes HOST:PORT")),
            // Without them a stream would share circuits with others, which is what whoever sends them does not want.
            (_, Err(())) => {
                Head::Refuse(answer(400, "the user and password cannot be read: `Proxy-Authorization: Basic …`"))
            }
        },
        ("GET" | "HEAD", path) if path.starts_with('/') => Head::Refuse(page()),
        (_, path) if path.starts_with("http://") => Head::Refuse(answer(
            501,
            "this port takes SOCKS5 and HTTP CONNECT; set it up as a SOCKS5 proxy (with `curl`: --socks5-hostname), or tunnel (--proxytunnel)",
        )),
        _ => Head::Refuse(answer(405, "this port takes SOCKS5 and HTTP CONNECT")),
    }
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// User and password of `Proxy-Authorization: Basic`, if there are any.
fn credentials(headers: &[httparse::Header<'_>]) -> Result<Option<Credentials>, ()> {
    let Some(header) = headers.iter().find(|header| header.name.eq_ignore_ascii_case("proxy-authorization")) else {
        return Ok(None);
    };
    read_basic(header.value).map(Some).ok_or(())
}

fn read_basic(value: &[u8]) -> Option<Credentials> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let pair = BASE64.decode(encoded.trim().as_bytes()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = pair.iter().rposition(|byte| *byte == b':')?;
    let (user, password) = pair.split_at(colon);
    Some(Credentials { user: user.to_vec(), password: password.get(1..).unwrap_or_default().to_vec() })
}

/// The stream is open.
pub(super) fn established() -> Vec<u8> {
    b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec()
}

/// A refusal, with a line that says why.
pub(super) fn answer(status: u16, why: &str) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    };
    respond(status, reason, "text/plain; charset=utf-8", &format!("{why}\n"))
}

fn respond(status: u16, reason: &str, kind: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n",
        body.len()
    );
    (head + body).into_bytes()
}

fn page() -> Vec<u8> {
    let body = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Fog</title>\
        <body style=\"font-family:sans-serif;max-width:40em;margin:3em auto\">\
        <h1>This is a proxy, not a page</h1>\
        <p>Fog runs, and this port leads into it. Programs use it; a browser does when it is told to:</p>\
        <ul><li>as a <b>SOCKS5</b> proxy, with names resolved by the proxy (\u{201c}Proxy DNS when using SOCKS v5\u{201d});</li>\
        <li>or <code>curl --socks5-hostname ADDRESS:PORT http://\u{2026}.fog/</code>.</li></ul>\
        <p>Without names resolved by the proxy, your system would ask its DNS server for the places that you visit.</p></body></html>";
    respond(200, "OK", "text/html; charset=utf-8", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &Head) -> u16 {
        let Head::Refuse(bytes) = head else { panic!("{head:?}") };
        String::from_utf8_lossy(bytes).split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn connect_names_a_host_a_port_and_perhaps_a_user() {
        let bytes = b"CONNECT a.fog:80 HTTP/1.1\r\nHost: a.fog:80\r\n\r\nearly";
        let asked = Request { host: Host::Name("a.fog".into()), port: 80, credentials: None };
        assert_eq!(parse(bytes), Head::Ask(asked, bytes.len() - 5));
        for cut in 0..bytes.len() - 5 {
            assert_eq!(parse(&bytes[..cut]), Head::More, "{cut}");
        }
        let head = "CONNECT [::1]:443 HTTP/1.1\r\nproxy-authorization: basic bWl4ZWQ6eDpwdw==\r\n\r\n";
        let Head::Ask(request, _) = parse(head.as_bytes()) else { panic!("{head}") };
        assert_eq!(request.credentials, Some(Credentials { user: b"mixed:x".to_vec(), password: b"pw".to_vec() }));
        assert!(request.target().is_ok());
    }

    #[test]
    fn a_person_gets_a_page_and_everything_else_a_reason() {
        let of = |head: &str| parse(head.as_bytes());
        assert_eq!(status(&of("GET / HTTP/1.1\r\nHost: 127.0.0.1:9050\r\n\r\n")), 200);
        assert_eq!(status(&of("GET http://a.fog/ HTTP/1.1\r\n\r\n")), 501);
        assert_eq!(status(&of("CONNECT a.fog HTTP/1.1\r\n\r\n")), 400);
        assert_eq!(status(&of("CONNECT a.fog:80 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n\r\n")), 400);
        assert_eq!(status(&of("CONNECT a.fog:99999 HTTP/1.1\r\n\r\n")), 400);
        assert_eq!(status(&of("DELETE / HTTP/1.1\r\n\r\n")), 405);
        assert_eq!(status(&of("GET \0 HTTP/1.1\r\n\r\n")), 400);
        assert_eq!(status(&of(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD)))), 431);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(status(&of(&many)), 400);
    }
}
