//! Who may ask: whoever knows the token, from this machine, and no web page of somebody else.
//!
//! A page in the user's browser can send requests to loopback. It does not know the token; its `Origin` betrays it; and if it points a
//! name of its own at 127.0.0.1 (DNS rebinding), the `Host` does. All three are checked, the cheap ones first.

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};

use super::error::ApiError;

/// Paths that need no token: they tell nothing but that the node runs.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// The token, as a hash, and the port that a right `Host` names.
#[derive(Clone)]
pub(super) struct Guard(Arc<(blake3::Hash, u16)>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard(..)")
    }
}

impl Guard {
    pub(super) fn new(token: &str, port: u16) -> Self {
        Self(Arc::new((blake3::hash(token.as_bytes()), port)))
    }

    /// Whether this is one of the ways to name our own address.
    fn is_ours(&self, authority: &str) -> bool {
        let port = self.0.1;
        ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| *authority == format!("{host}:{port}"))
    }

    fn host_is_ours(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        // A request line may carry the whole address, which then counts in place of the header (RFC 9112, 3.2.2).
        let named = uri.authority().map(|authority| authority.as_str());
        let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        headers.get_all(header::HOST).iter().count() <= 1
            && named.is_none_or(|named| self.is_ours(named))
            && header.is_some_and(|host| self.is_ours(host))
    }

    fn origin_is_ours(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::ORIGIN).iter().all(|origin| {
            origin
                .to_str()
                .ok()
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|host| self.is_ours(host))
        })
    }

    fn token_is_right(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Hashes compare in constant time, and their length tells nothing of the token's.
        token.is_some_and(|(_, token)| blake3::hash(token.trim().as_bytes()) == self.0.0)
    }

    fn verdict(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        let foreign = |what: &str| {
            ApiError::new(
                StatusCode::FORBIDDEN,
                format!("a foreign {what}"),
                "use the address in node.json, from this machine",
            )
        };
        if !self.host_is_ours(headers, uri) {
            return Err(foreign("Host"));
        }
        if !self.origin_is_ours(headers) {
            return Err(foreign("Origin"));
        }
        if !OPEN.contains(&uri.path()) && !self.token_is_right(headers) {
            let hint = "send `Authorization: Bearer TOKEN` with the token in node.json";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "no token, or a wrong one", hint));
        }
        Ok(())
    }
}

/// Lets a request through, or answers it.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, ApiError> {
    guard.verdict(request.headers(), request.uri())?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn ask(path: &str, headers: &[(HeaderName, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        Guard::new("secret", 80).verdict(&map, &path.parse().unwrap()).err().map_or(200, |error| error.body().status)
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        let host = (header::HOST, "127.0.0.1:80");
        assert_eq!(ask("/v1/status", &[host.clone(), (header::AUTHORIZATION, "Bearer secret")]), 200);
        assert_eq!(ask("/v1/status", &[host.clone(), (header::AUTHORIZATION, "bearer secret")]), 200);
        for wrong in ["Bearer secre", "Bearer secrett", "Bearer", "Bearer ", "Basic secret", "secret", ""] {
            assert_eq!(ask("/v1/status", &[host.clone(), (header::AUTHORIZATION, wrong)]), 401, "{wrong}");
        }
        assert_eq!(ask("/v1/status", std::slice::from_ref(&host)), 401);
        assert_eq!(ask("/metrics", std::slice::from_ref(&host)), 401);
        assert_eq!(ask("/healthz", std::slice::from_ref(&host)), 200);
        assert_eq!(ask("/readyz?x=1", std::slice::from_ref(&host)), 200);
        assert_eq!(ask("/healthz/", &[host]), 401);
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused_even_with_the_token() {
        let token = (header::AUTHORIZATION, "Bearer secret");
        for good in ["127.0.0.1:80", "localhost:80", "[::1]:80"] {
            assert_eq!(ask("/healthz", &[(header::HOST, good), token.clone()]), 200);
            assert_eq!(
                ask("/v1/id", &[(header::HOST, good), (header::ORIGIN, &format!("http://{good}")), token.clone()]),
                200
            );
        }
        for bad in ["127.0.0.1:81", "127.0.0.1", "evil.example:80", "evil.example", "localhost.evil.example:80", ""] {
            assert_eq!(ask("/healthz", &[(header::HOST, bad), token.clone()]), 403, "{bad}");
        }
        assert_eq!(ask("/healthz", std::slice::from_ref(&token)), 403);
        assert_eq!(ask("/healthz", &[(header::HOST, "localhost:80"), (header::HOST, "evil.example")]), 403);
        assert_eq!(ask("http://evil.example/healthz", &[(header::HOST, "localhost:80")]), 403);
        for bad in ["null", "http://evil.example", "https://localhost:80", "http://localhost:81", ""] {
            assert_eq!(
                ask("/v1/id", &[(header::HOST, "localhost:80"), (header::ORIGIN, bad), token.clone()]),
                403,
                "{bad}"
            );
        }
    }
}
