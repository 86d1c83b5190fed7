//! When a request or an answer of HTTP/1 is whole (RFC 9112, section 6): programs keep their connections open, and say in the head how long what
//! follows is. Nothing is judged here but where it ends.

/// The most fields in a head.
const MAX_FIELDS: usize = 128;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// More belongs to it.
    More,
    /// All of it is there.
    Whole,
    /// It ends when its sender has ended.
    UntilEnd,
    /// This is not HTTP/1.
    Other,
}

/// Where a request stands of which these bytes have come.
pub fn request(bytes: &[u8]) -> Framing {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => match length(parsed.headers) {
            Some(Length::Unsaid) => Framing::Whole,
            Some(length) => body(length, bytes.get(head..).unwrap_or_default()),
            None => Framing::Other,
        },
        Ok(httparse::Status::Partial) => Framing::More,
        Err(_) => Framing::Other,
    }
}

/// Where the answer to `request` stands.
pub fn answer(request: &[u8], bytes: &[u8]) -> Framing {
    let mut rest = bytes;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let head = match parsed.parse(rest) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Framing::More,
            Err(_) => return Framing::Other,
        };
        rest = rest.get(head..).unwrap_or_default();
        return match parsed.code.unwrap_or_default() {
            // Another answer follows.
            100 | 102..=199 => continue,
            101 => Framing::UntilEnd,
            204 | 304 => Framing::Whole,
            _ if request.starts_with(b"HEAD ") => Framing::Whole,
            _ => length(parsed.headers).map_or(Framing::Other, |length| body(length, rest)),
        };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Unsaid,
    Bytes(usize),
    Chunks,
}

/// What the head says of the length; none if it contradicts itself.
fn length(fields: &[httparse::Header<'_>]) -> Option<Length> {
    let mut length = Length::Unsaid;
    for field in fields {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            let is_chunked = value.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"));
            return is_chunked.then_some(Length::Chunks);
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let bytes = Length::Bytes(value.parse().ok()?);
            if length != Length::Unsaid && length != bytes {
                return None;
            }
            length = bytes;
        }
    }
    Some(length)
}

fn body(length: Length, bytes: &[u8]) -> Framing {
    match length {
        Length::Unsaid => Framing::UntilEnd,
        Length::Bytes(length) if bytes.len() < length => Framing::More,
        Length::Bytes(_) => Framing::Whole,
        Length::Chunks => chunks(bytes),
    }
}

fn chunks(mut bytes: &[u8]) -> Framing {
    loop {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((at, 0))) => return trailer(bytes.get(at..).unwrap_or_default()),
            Ok(httparse::Status::Complete((at, size))) => {
                let next = usize::try_from(size).ok().and_then(|size| at.checked_add(size)?.checked_add(2));
                let Some(next) = next else { return Framing::Other };
                let Some(rest) = bytes.get(next..) else { return Framing::More };
                bytes = rest;
            }
            Ok(httparse::Status::Partial) => return Framing::More,
            Err(_) => return Framing::Other,
        }
    }
}

/// Fields behind the last chunk, up to an empty line.
fn trailer(mut bytes: &[u8]) -> Framing {
    loop {
        let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") else { return Framing::More };
        if at == 0 {
            return Framing::Whole;
        }
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_at_its_last_byte_and_not_before() {
        let all: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\na;x=1\r\n0123456789\r\n00\r\nTrailer: 1\r\n\r\n",
            b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        ];
        for bytes in all {
            for end in 1..bytes.len() {
                assert_eq!(request(&bytes[..end]), Framing::More, "{end} of {}", String::from_utf8_lossy(bytes));
            }
            assert_eq!(request(bytes), Framing::Whole);
        }
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let get: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        let head: &[u8] = b"HEAD / HTTP/1.1\r\n\r\n";
        let all: [(&[u8], &[u8]); 5] = [
            (get, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (get, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            (get, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
            (get, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
            (head, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ];
        for (asked, bytes) in all {
            for end in 1..bytes.len() {
                assert_eq!(answer(asked, &bytes[..end]), Framing::More, "{end} of {}", String::from_utf8_lossy(bytes));
            }
            assert_eq!(answer(asked, bytes), Framing::Whole);
        }
        assert_eq!(answer(get, b"HTTP/1.0 200 OK\r\n\r\npage"), Framing::UntilEnd);
    }

    #[test]
    fn what_is_not_http_or_contradicts_itself_has_no_framing() {
        let all: [&[u8]; 5] = [
            b"\x16\x03\x01\x02\x00",
            b"SSH-2.0-x\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ];
        for bytes in all {
            assert_eq!(request(bytes), Framing::Other, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(answer(b"", b"220 mail.example ESMTP\r\n"), Framing::Other);
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let chunked = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &bytes].concat();
            let _ = (request(&bytes), answer(&bytes, &bytes), answer(b"", &chunked));
        }
    }
}
