//! `[daemon] http`: where the supervisor says over HTTP how it is. Refuses what would answer everybody by accident:
//! there is no default, and names of hosts that may be asked for are listed one by one.

use toml::de::DeValue;

use crate::supervisor::address::Address;

use super::error::quoted;
use super::listen::Parts;
use super::raw;
use super::value::{self, Refusal};
use super::{Access, Listen};

/// Names in `hosts`.
pub(super) const MAX_HOSTS: usize = 32;

/// The longest name of a host (RFC 1035).
const LONGEST_HOST: usize = 253;

/// Where it answers, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// TCP, or a Unix socket.
    pub address: Address,
    /// Who may connect to the file of a Unix socket; by default its owner alone.
    pub access: Access,
    /// Names that clients may ask for beside numeric addresses and `localhost`, in small letters: a page of somebody
    /// else's that has its own name lead here is not answered.
    pub hosts: Vec<String>,
}

/// Reads `"127.0.0.1:9615"`, `"unix:/run/clusterd/http.sock"`, or a table with `address`, `hosts`, and `mode`, `user`
/// and `group` of a Unix socket.
pub(super) fn read(value: &DeValue<'_>) -> Result<Http, Refusal> {
    let mut parts = Parts::new("http");
    let mut hosts = Vec::new();
    let Some(table) = value.as_table() else {
        parts.set("address", value)?;
        return finish(parts, hosts);
    };
    for entry in raw::entries(table) {
        match entry.written {
            "hosts" => hosts = read_hosts(entry.value())?,
            "address" | "mode" | "user" | "group" => parts.set(entry.written, entry.value())?,
            other => {
                return Err(Refusal::said(
                    format!("{} is none of its parts", quoted(other)),
                    "known are address and hosts; of a Unix socket mode, user and group, too",
                ));
            }
        }
    }
    finish(parts, hosts)
}

fn finish(parts: Parts, hosts: Vec<String>) -> Result<Http, Refusal> {
    match parts.finish()? {
        Some(Listen { address, access, .. }) => Ok(Http { address, access, hosts }),
        None => Err(Refusal::said("says nothing of where", "add address = \"127.0.0.1:9615\"")),
    }
}

fn read_hosts(value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::said("hosts takes names of hosts", "write hosts = [\"metrics.example.com\"]");
    let items = value.as_array().ok_or_else(wrong)?;
    if items.len() > MAX_HOSTS {
        return Err(Refusal::said(
            format!("{} hosts are too many", items.len()),
            format!("list {MAX_HOSTS} at most"),
        ));
    }
    items.iter().map(|item| value::text(item.get_ref()).and_then(host)).collect()
}

/// The name of a host as a client sends it, without a port.
fn host(name: &str) -> Result<String, Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if (1..=LONGEST_HOST).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(Refusal::said(
        format!("{} is no name of a host", quoted(name)),
        "write it without scheme, port and path: \"metrics.example.com\"",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn read_text(text: &str) -> Result<Http, Refusal> {
        let text = format!("http = {text}");
        let table = DeTable::parse(&text).expect("TOML").into_inner();
        read(table.get("http").expect("it is there").get_ref())
    }

    #[test]
    fn an_address_alone_or_a_table_says_where() {
        for (text, shown, hosts) in [
            ("\"127.0.0.1:9615\"", "127.0.0.1:9615", vec![]),
            ("9615", "[::]:9615", vec![]),
            ("\"unix:/run/x.sock\"", "unix:/run/x.sock", vec![]),
            ("{ address = \":1\", hosts = [\"A.example\", \"b\"] }", "[::]:1", vec!["a.example", "b"]),
            ("{ address = \"unix:/run/x.sock\", mode = \"0660\" }", "unix:/run/x.sock", vec![]),
        ] {
            let http = read_text(text).expect(text);
            assert_eq!(
                (http.address.to_string().as_str(), http.hosts.as_slice()),
                (shown, hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_place_or_no_host_is_refused_with_what_to_write() {
        for text in [
            "true",
            "\"localhost:9615\"",
            "\"127.0.0.1:0\"",
            "{ hosts = [] }",
            "{ address = \":1\", hosts = \"a\" }",
            "{ address = \":1\", hosts = [\"http://a\"] }",
            "{ address = \":1\", hosts = [\"a:80\"] }",
            "{ address = \":1\", hosts = [\"\"] }",
            "{ address = \":1\", backlog = 3 }",
            "{ address = \":1\", mode = \"0660\" }",
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }
}
