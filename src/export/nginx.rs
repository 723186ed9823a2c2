//! A reverse proxy in front of what is exported: a piece of nginx's configuration.

use std::fmt::Write as _;

/// Where requests for one app go.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// A label.
    pub(super) name: String,
    /// As nginx wants them: `host:port`, `unix:/path`.
    pub(super) servers: Vec<String>,
    /// A client stays with its server.
    pub(super) is_sticky: bool,
}

/// Whether nginx takes these characters as they are.
pub(super) fn is_plain(server: &str) -> bool {
    server.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:[]".contains(c))
}

/// Lines that begin with two blanks; none where there is nothing to be asked.
pub(super) fn snippet(upstreams: &[Upstream]) -> Option<String> {
    let mut text = String::new();
    for upstream in upstreams {
        let _ = writeln!(text, "  upstream {} {{", upstream.name);
        if upstream.is_sticky {
            text += "      ip_hash;\n";
        }
        for server in &upstream.servers {
            // By default one refusal takes a server out for ten seconds: while all restart in turn none would be left.
            let _ = writeln!(text, "      server {server} max_fails=0;");
        }
        text += "      keepalive 64;\n  }\n";
    }
    for (at, upstream) in upstreams.iter().enumerate() {
        let _ = write!(
            text,
            "  server {{\n      listen {};\n      location / {{\n          proxy_pass http://{};\n          \
             proxy_http_version 1.1;\n          proxy_set_header Connection \"\";\n          \
             proxy_set_header Host $host;\n          \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n          \
             proxy_next_upstream error timeout;\n      }}\n  }}\n",
            8080 + at,
            upstream.name
        );
    }
    (!upstreams.is_empty()).then(|| text.trim_end().to_owned())
}
