//! A reverse proxy in front of what is exported: a piece of nginx's configuration.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::service::{Service, label, unique};
use crate::config::Listen;
use crate::supervisor::policy::Balance;

/// Where requests for one app go.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// A label.
    name: String,
    /// As nginx wants it: `host:port`, `unix:/path`.
    server: String,
    /// A client stays with its server.
    is_sticky: bool,
}

/// One for each app that a proxy finds, by its first address of those.
pub(super) fn upstreams(
    services: &[Service<'_>],
    found: impl Fn(&Service<'_>, &Listen) -> Option<String>,
) -> Vec<Upstream> {
    let mut taken = BTreeSet::new();
    let mut upstreams = Vec::new();
    for service in services {
        for app in &service.apps {
            let servers = app.config.spec.listen.iter().filter_map(|listen| found(service, listen));
            let Some(server) = servers.into_iter().find(|server| is_plain(server)) else { continue };
            let is_sticky = app.config.policy.balance == Balance::SourceIp;
            upstreams.push(Upstream {
                name: unique(&label(&app.config.name), &mut taken),
                server,
                is_sticky,
            });
        }
    }
    upstreams
}

/// Whether nginx takes these characters as they are.
fn is_plain(server: &str) -> bool {
    server.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:[]".contains(c))
}

/// Lines that begin with two blanks, behind what is to be known; none where there is nothing to be asked.
pub(super) fn snippet(upstreams: &[Upstream], services: &[Service<'_>]) -> Option<String> {
    let mut text = String::new();
    if upstreams.iter().any(|upstream| upstream.is_sticky) {
        text += "ip_hash chooses among containers or machines. balance = \"source-ip\" within one has no counterpart: all \
                 that comes from nginx has nginx's address, and one worker would get all of it. Take it out of the file, \
                 or have one worker in each.\n";
    }
    // Without it, requests to upgrade (WebSockets) are plain ones; an empty header is what keeps connections open.
    text += "  map $http_upgrade $clusterd_connection { default upgrade; \"\" \"\"; }\n";
    for Upstream { name, server, is_sticky } in upstreams {
        let _ = writeln!(text, "  upstream {name} {{");
        if *is_sticky {
            text += "      ip_hash;\n";
        }
        // By default one refusal takes a server out for ten seconds: while all restart in turn none would be left.
        let _ = writeln!(text, "      server {server} max_fails=0;\n      keepalive 64;\n  }}");
    }
    let used: BTreeSet<u16> = services.iter().flat_map(Service::all_ports).collect();
    let free = (8080..u16::MAX).filter(|port| !used.contains(port));
    for (upstream, port) in upstreams.iter().zip(free) {
        let _ = write!(
            text,
            "  server {{\n      listen {port};\n      location / {{\n          proxy_pass http://{};\n          \
             proxy_http_version 1.1;\n          proxy_set_header Upgrade $http_upgrade;\n          \
             proxy_set_header Connection $clusterd_connection;\n          \
             proxy_set_header Host $host;\n          \
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n          \
             proxy_next_upstream error timeout;\n      }}\n  }}\n",
            upstream.name
        );
    }
    (!upstreams.is_empty()).then(|| text.trim_end().to_owned())
}
