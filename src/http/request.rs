//! The head of a request → what is asked for. httparse takes the text apart; what may be asked for, and by which
//! name of this host, is decided here.
//!
//! A browser can be led to any address by a name of somebody else's domain (DNS rebinding). Hence only numeric
//! addresses, `localhost` and names that the file lists are answered (RFC 9110, section 7.2).

use std::net::{IpAddr, Ipv6Addr};

/// The longest head of a request, in bytes.
pub const HEAD_LIMIT: usize = 8 * 1024;

/// Lines of a head.
const HEADER_LIMIT: usize = 64;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/livez`: whether the loop runs.
    Live,
    /// `/readyz`, `/readyz/TARGET`: whether every app, or these, serve.
    Ready(Option<String>),
    /// `/metrics`: figures in Prometheus' text form.
    Metrics,
    /// `/api/v1/apps`, `/api/v1/apps/TARGET`: as `list --json`.
    Apps(Option<String>),
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For what.
    pub page: Page,
    /// Only the head of the answer is wanted (HEAD).
    pub head_only: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request, or has no Host, or two.
    Malformed,
    /// There is nothing under that path.
    NotFound,
    /// Neither GET nor HEAD.
    Method,
    /// It did not come whole in time.
    Late,
    /// This host is not answered under that name.
    Misdirected,
    /// The head is too long.
    TooLong,
    /// Too much is being answered already.
    Busy,
}

impl Refusal {
    /// Status code and its phrase (RFC 9110).
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Refusal::Malformed => (400, "Bad Request"),
            Refusal::NotFound => (404, "Not Found"),
            Refusal::Method => (405, "Method Not Allowed"),
            Refusal::Late => (408, "Request Timeout"),
            Refusal::Misdirected => (421, "Misdirected Request"),
            Refusal::TooLong => (431, "Request Header Fields Too Large"),
            Refusal::Busy => (503, "Service Unavailable"),
        }
    }

    /// What a person reads.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Malformed => "this is no request that is understood here\n",
            Refusal::NotFound => {
                "there are /livez, /readyz, /readyz/APP, /metrics, /api/v1/apps and /api/v1/apps/APP\n"
            }
            Refusal::Method => "only GET and HEAD: nothing can be changed here\n",
            Refusal::Late => "the request did not come whole in time\n",
            Refusal::Misdirected => {
                "ask by a numeric address or localhost, or add this name to hosts of [daemon] http\n"
            }
            Refusal::TooLong => "the head of the request is too long\n",
            Refusal::Busy => "too much is being answered already; ask again later\n",
        }
    }
}

/// What bytes from a client are so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not whole.
    Partial,
    /// A question.
    Whole(Asked),
    /// None that is answered.
    Refused(Refusal),
}

/// By which names the host may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// By any: who can open the file of a Unix socket is no page of a browser.
    Any,
    /// By numeric addresses, `localhost`, and these, in small letters.
    These(Vec<String>),
}

impl Names {
    fn include(&self, authority: &str) -> bool {
        let Names::These(names) = self else { return true };
        let host = host_of(authority);
        let numeric = host.parse::<IpAddr>().is_ok()
            || host.strip_prefix('[').and_then(|h| h.strip_suffix(']')?.parse::<Ipv6Addr>().ok()).is_some();
        let host = host.to_ascii_lowercase();
        numeric || host == "localhost" || names.contains(&host)
    }
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        // `[::1]` without a port ends in a bracket.
        Some(_) | None => authority,
    }
}

/// Reads as much of a head as is there.
pub fn parse(bytes: &[u8], names: &Names) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Refused(Refusal::TooLong);
        }
        Err(_) => return Parsed::Refused(Refusal::Malformed),
    }
    match question(&request, names) {
        Ok(asked) => Parsed::Whole(asked),
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn question(request: &httparse::Request<'_, '_>, names: &Names) -> Result<Asked, Refusal> {
    let target = request.path.ok_or(Refusal::Malformed)?;
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|header| std::str::from_utf8(header.value)).transpose();
    let host = host.map_err(|_| Refusal::Malformed)?.map(str::trim);
    // RFC 9112, section 3.2: exactly one, but for clients of HTTP/1.0.
    if hosts.next().is_some() || (host.is_none() && request.version != Some(0)) {
        return Err(Refusal::Malformed);
    }
    let (authority, path) = match split(target) {
        Some((authority, path)) => (Some(authority), path),
        None => (host, target),
    };
    if !authority.is_none_or(|authority| names.include(authority)) {
        return Err(Refusal::Misdirected);
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        Some(_) | None => return Err(Refusal::Method),
    };
    Ok(Asked { page: page(path).ok_or(Refusal::NotFound)?, head_only })
}

/// The absolute form of a target, which every server has to take (RFC 9112, section 3.2.2).
fn split(target: &str) -> Option<(&str, &str)> {
    let rest = target.strip_prefix("http://")?;
    Some(rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)))
}

fn page(path: &str) -> Option<Page> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let target = |rest: &str| is_target(rest).then(|| rest.to_owned());
    match path {
        "/livez" => return Some(Page::Live),
        "/readyz" => return Some(Page::Ready(None)),
        "/metrics" => return Some(Page::Metrics),
        "/api/v1/apps" => return Some(Page::Apps(None)),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/readyz/") {
        return target(rest).map(|target| Page::Ready(Some(target)));
    }
    path.strip_prefix("/api/v1/apps/").and_then(target).map(|target| Page::Apps(Some(target)))
}

/// A name, an id or a namespace, or a name with its namespace: no file and no pattern, which cost more than a look.
fn is_target(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    text.split_once('/')
        .map_or_else(|| is_word(text), |(namespace, name)| is_word(namespace) && is_word(name))
}

/// Any bytes as a request, for [`crate::fuzz`]: nothing that is whole becomes another question by what follows.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> String {
    let names = Names::These(vec!["metrics.example".to_owned()]);
    let parsed = parse(bytes, &names);
    if let Parsed::Whole(asked) = &parsed {
        let more = [bytes, b"GET /metrics HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more, &names), Parsed::Whole(asked.clone()));
    }
    format!("{parsed:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Parsed {
        parse(text.as_bytes(), &Names::These(vec!["metrics.example".to_owned()]))
    }

    fn whole(page: Page, head_only: bool) -> Parsed {
        Parsed::Whole(Asked { page, head_only })
    }

    #[test]
    fn each_page_has_its_path() {
        for (path, page) in [
            ("/livez", Page::Live),
            ("/livez?verbose=1", Page::Live),
            ("http://127.0.0.1:9615/livez", Page::Live),
            ("/readyz", Page::Ready(None)),
            ("/readyz/api", Page::Ready(Some("api".into()))),
            ("/metrics", Page::Metrics),
            ("/api/v1/apps", Page::Apps(None)),
            ("/api/v1/apps/shop/api", Page::Apps(Some("shop/api".into()))),
        ] {
            for (method, head_only) in [("GET", false), ("HEAD", true)] {
                let text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(ask(&text), whole(page.clone(), head_only), "{text}");
            }
        }
        for path in [
            "/",
            "/livez/",
            "/readyz/",
            "/metrics/x",
            "/api/v1/apps/",
            "*",
            "http://localhost",
            "/readyz//etc",
            "/readyz/a/b/c",
        ] {
            let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(ask(&text), Parsed::Refused(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn only_names_of_this_host_are_answered() {
        let ask_by = |line: &str| ask(&format!("GET /livez HTTP/1.1\r\n{line}\r\n\r\n"));
        for host in [
            "127.0.0.1",
            "10.0.0.7:9615",
            "[::1]",
            "[fe80::1]:9615",
            "localhost:9615",
            "LOCALHOST",
            "Metrics.Example",
            "metrics.example:80",
        ] {
            assert_eq!(ask_by(&format!("Host: {host}")), whole(Page::Live, false), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9615", "", "[::1].x"] {
            let refused = ask_by(&format!("Host: {host}"));
            assert_eq!(refused, Parsed::Refused(Refusal::Misdirected), "{host:?}");
        }
        let absolute = "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(ask(absolute), Parsed::Refused(Refusal::Misdirected));
        let unix = parse(b"GET /livez HTTP/1.1\r\nHost: whatever\r\n\r\n", &Names::Any);
        assert_eq!(unix, whole(Page::Live, false));
    }

    #[test]
    fn a_request_has_one_host_unless_it_is_an_old_one() {
        let malformed = Parsed::Refused(Refusal::Malformed);
        assert_eq!(ask("GET /livez HTTP/1.1\r\n\r\n"), malformed);
        assert_eq!(ask("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"), malformed);
        assert_eq!(ask("GET /livez HTTP/1.0\r\n\r\n"), whole(Page::Live, false));
    }

    #[test]
    fn nothing_is_changed_here_and_no_head_is_endless() {
        assert_eq!(ask("POST /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"), Parsed::Refused(Refusal::Method));
        assert_eq!(ask("\x16\x03\x01\x02"), Parsed::Refused(Refusal::Malformed));
        assert_eq!(ask("GET /livez HT"), Parsed::Partial);
        let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(HEAD_LIMIT));
        assert_eq!(ask(&long), Parsed::Refused(Refusal::TooLong));
        let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADER_LIMIT + 1));
        assert_eq!(ask(&many), Parsed::Refused(Refusal::TooLong));
    }
}
