//! `[daemon] http`: the endpoint is opened, moved and closed as the file says, and its questions are answered from what
//! the loop knows. That it cannot be opened stops nobody: it is told, and tried again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};

use crate::config::Http;
use crate::control::protocol::List;
use crate::http::metrics::{self, AllCounts, Counts};
use crate::http::request::{Asked, Names, Page, Refusal};
use crate::http::server::{Answer, Listener, OK, Server, TEXT, refused};
use crate::supervisor::address::Address;
use crate::supervisor::event::{AppId, Fact, OnReloadFailureTaken, Scope};
use crate::supervisor::time::Time;
use crate::sys::listen;
use crate::sys::unix_listener::{self, FileId, PathLock, There};

use super::Daemon;
use super::files::Said;
use super::shared::{refuse_open_folders, resolve};
use super::sources::Source;
use super::start::listen_failure;

/// Until the next attempt at an address that could not be had.
const AGAIN: Duration = Duration::from_secs(10);

/// So long a page that costs a look at every worker is told again, at least, and so many times as long as it took: who
/// asks all the time gets a small part of the loop.
const FRESH: Duration = Duration::from_millis(500);
const COST: u32 = 20;

/// Connections are not counted of more workers than these together: each takes a look at all of its port's.
const COUNTED: usize = 64;

/// Pages that are kept for that time.
const KEPT: usize = 8;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The endpoint, and what was counted for it.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    wanted: Said<Http>,
    /// What was wanted may not be what is.
    changed: bool,
    open: Option<Open>,
    again_at: Option<Time>,
    /// What kept it from being opened, as it was told last.
    told: Option<String>,
    counts: BTreeMap<AppId, Counts>,
    /// What is told again, and until when.
    pages: Vec<(Page, Time, Answer)>,
}

#[derive(Debug)]
struct Open {
    server: Server,
    how: Http,
    /// That of a Unix socket.
    file: Option<(PathBuf, FileId)>,
}

impl Endpoint {
    /// A file was read and is applied.
    pub(super) fn hear(&mut self, http: Option<Http>, file: Option<&Path>) {
        self.wanted.hear(http, file);
        self.changed = true;
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let open = self.open.as_ref().and_then(|open| open.server.next_deadline());
        open.into_iter().chain(self.again_at).chain(self.pages.iter().map(|(_, until, _)| *until)).min()
    }

    /// Something happened.
    pub(super) fn count(&mut self, fact: &Fact) {
        match fact {
            Fact::Exited { app, cause, .. } => self.exit(*app, cause.as_str()),
            Fact::SpawnFailed { app, .. } => self.exit(*app, "spawn"),
            Fact::ReloadDone { app, .. } => self.reload(*app, "done"),
            Fact::ReloadFailed { app, left, .. } => self.reload(
                *app,
                match left {
                    OnReloadFailureTaken::Untouched => "failed",
                    OnReloadFailureTaken::RolledBack(_) => "rolled_back",
                    OnReloadFailureTaken::Held => "held",
                },
            ),
            _ => {}
        }
    }

    fn exit(&mut self, app: AppId, reason: &'static str) {
        *self.counts.entry(app).or_default().exits.entry(reason).or_default() += 1;
    }

    fn reload(&mut self, app: AppId, result: &'static str) {
        *self.counts.entry(app).or_default().reloads.entry(result).or_default() += 1;
    }

    /// An app was deleted.
    pub(super) fn forget(&mut self, app: AppId) {
        self.counts.remove(&app);
    }

    fn kept(&self, page: &Page, now: Time) -> Option<Answer> {
        let fresh = |(of, until, _): &&(Page, Time, Answer)| of == page && now < *until;
        self.pages.iter().find(fresh).map(|(.., answer)| answer.clone())
    }

    fn keep(&mut self, page: Page, answer: Answer, until: Time) {
        self.pages.retain(|(of, ..)| *of != page);
        self.pages.truncate(KEPT - 1);
        self.pages.push((page, until, answer));
    }
}

impl Daemon {
    /// Opens, moves or closes the endpoint where that is due, and ends what took too long.
    pub(super) fn look_after_http(&mut self) {
        let now = self.now;
        self.http.pages.retain(|(_, until, _)| now < *until);
        let due = self.http.again_at.is_some_and(|at| at <= self.now);
        if std::mem::take(&mut self.http.changed) || due {
            self.http.again_at = None;
            self.settle_http();
        }
        if self.http.open.as_ref().is_some_and(|open| open.server.wants_accept(self.now)) {
            self.take_http_clients();
        }
        let Some(open) = &mut self.http.open else { return };
        for token in open.server.sweep(self.now) {
            self.tokens.release(token);
        }
    }

    fn settle_http(&mut self) {
        let wanted = self.http.wanted.get().cloned();
        if let Some(open) = &mut self.http.open
            && let Some(wanted) = &wanted
            && (wanted.address, &wanted.access) == (open.how.address, &open.how.access)
        {
            open.server.set_names(names(wanted));
            open.how = wanted.clone();
            self.http.told = None;
            return;
        }
        self.close_http();
        let Some(wanted) = wanted else {
            self.http.told = None;
            return;
        };
        match self.open_http(&wanted) {
            Ok(()) => {
                self.http.told = None;
                log::info!("answers over HTTP on {}", wanted.address);
            }
            Err(why) => {
                self.http.again_at = Some(self.now + AGAIN);
                if self.http.told.as_ref() != Some(&why) {
                    log::error!("no answers over HTTP: {why}; tried again every {} s", AGAIN.as_secs());
                    self.http.told = Some(why);
                }
            }
        }
    }

    fn open_http(&mut self, wanted: &Http) -> Result<(), String> {
        let failed = |error: io::Error| listen_failure(wanted.address, &error).message;
        let (listener, file) = match wanted.address {
            Address::Tcp { ip, port, v6only } => {
                let fd = listen::open_alone(SocketAddr::new(ip, port), v6only, BACKLOG).map_err(failed)?;
                (Listener::Tcp(TcpListener::from_std(fd.into())), None)
            }
            Address::Unix(name) => {
                let (fd, file) = match name.in_abstract() {
                    Some(name) => (unix_listener::open_abstract(name, BACKLOG).map_err(failed)?, None),
                    None => open_file(wanted, Path::new(name.as_str()))?,
                };
                unix_listener::set_nonblocking(fd.as_fd(), true).map_err(failed)?;
                (Listener::Unix(UnixListener::from_std(fd.into())), file)
            }
        };
        let registry = self.poll.registry().try_clone().map_err(failed)?;
        let token = self.tokens.allot(Source::Http);
        match Server::new(listener, names(wanted), registry, token) {
            Ok(server) => {
                self.http.open = Some(Open { server, how: wanted.clone(), file });
                Ok(())
            }
            Err(error) => {
                self.tokens.release(token);
                Err(failed(error))
            }
        }
    }

    /// Nobody is answered any more.
    pub(super) fn close_http(&mut self) {
        // Who comes to another one may be called the same.
        self.lookings.forget_http();
        let Some(Open { server, file, how }) = self.http.open.take() else { return };
        for token in server.end() {
            self.tokens.release(token);
        }
        if let Some((path, id)) = file
            && let Err(error) = unix_listener::remove(&path, id)
        {
            log::debug!("{}: {error}", how.address);
        }
    }

    pub(super) fn take_http_clients(&mut self) {
        let Daemon { http, tokens, now, .. } = self;
        let Some(open) = &mut http.open else { return };
        for token in open.server.accept(*now, |id| tokens.allot(Source::HttpClient(id))) {
            tokens.release(token);
        }
    }

    pub(super) fn hear_http(&mut self, id: u64) {
        let now = self.now;
        let Some(asked) = self.http.open.as_mut().and_then(|open| open.server.ready(id, now)) else { return };
        match &asked.page {
            page if self.http.kept(page, now).is_some() => self.answer_page(id, asked),
            Page::Metrics => self.begin_page(id, asked, None),
            Page::Apps(target) => {
                let target = target.clone();
                self.begin_page(id, asked, target);
            }
            Page::Live | Page::Ready(_) => self.answer_page(id, asked),
        }
    }

    pub(super) fn answer_page(&mut self, id: u64, asked: Asked) {
        let now = self.now;
        let Asked { page, head_only } = asked;
        let answer = self.http.kept(&page, now).unwrap_or_else(|| self.answer_http(page));
        if let Some(open) = &mut self.http.open {
            open.server.answer(id, &answer, head_only, now);
        }
    }

    fn answer_http(&mut self, page: Page) -> Answer {
        let began = self.read_clock();
        let answer = match &page {
            Page::Live => return Answer { status: OK, kind: TEXT, body: b"ok\n".to_vec() },
            Page::Ready(target) => return self.answer_ready(target.as_deref()),
            Page::Metrics => self.answer_metrics(),
            Page::Apps(target) => match self.listed(target.as_deref(), false) {
                Some(list) => json(&list),
                None => return refused(Refusal::NotFound),
            },
        };
        let now = self.read_clock();
        self.http.keep(page, answer.clone(), now + FRESH.max(now.since(began) * COST));
        answer
    }

    fn answer_ready(&self, target: Option<&str>) -> Answer {
        let Some(whom) = self.whom_of(target) else { return refused(Refusal::NotFound) };
        let missing = self.obstacles_of(&whom);
        let body = match missing.is_empty() {
            true => "ready\n".to_owned(),
            false => missing.join("\n") + "\n",
        };
        let status = if missing.is_empty() { OK } else { Refusal::Busy.status() };
        Answer { status, kind: TEXT, body: body.into_bytes() }
    }

    fn answer_metrics(&mut self) -> Answer {
        let counted = self.processes.iter().count() <= COUNTED;
        let Some(list) = self.listed(None, counted) else { return refused(Refusal::NotFound) };
        let counts: AllCounts = self
            .supervisor
            .apps()
            .map(|(app, name, namespace)| {
                let mut counts = self.http.counts.get(&app).cloned().unwrap_or_default();
                counts.left_out = self.output.left_out(app).unwrap_or(0);
                counts.journal_dropped = self.output.journal.dropped(app);
                ((namespace.to_owned(), name.to_owned()), counts)
            })
            .collect();
        Answer { status: OK, kind: metrics::KIND, body: metrics::render(&list, &counts).into_bytes() }
    }

    /// None where there is no such app.
    fn listed(&mut self, target: Option<&str>, connections: bool) -> Option<List> {
        let whom = self.whom_of(target)?;
        let mut list = self.list(&whom, connections, false);
        // Where its files are is nobody's business who can only reach a port.
        list.daemon.home.clear();
        Some(list)
    }

    fn whom_of(&self, target: Option<&str>) -> Option<Vec<(AppId, Scope)>> {
        let targets: Vec<String> = target.map(str::to_owned).into_iter().collect();
        self.whom_or_all(&targets).ok()
    }
}

fn json(list: &List) -> Answer {
    // Numbers, words and lists: nothing that JSON has no form for.
    let body = serde_json::to_vec(list).unwrap_or_default();
    Answer { status: OK, kind: "application/json", body }
}

fn names(http: &Http) -> Names {
    match http.address {
        Address::Tcp { .. } => Names::These(http.hosts.clone()),
        Address::Unix(_) => Names::Any,
    }
}

/// At the path of a Unix socket: what a dead server left there is replaced, and nothing else.
fn open_file(http: &Http, path: &Path) -> Result<(OwnedFd, Option<(PathBuf, FileId)>), String> {
    let failed = |error: io::Error| listen_failure(http.address, &error).message;
    let access = resolve(&http.access).map_err(|failure| failure.message)?;
    let _lock = PathLock::take(path).map_err(failed)?;
    refuse_open_folders(http.address, path).map_err(|failure| failure.message)?;
    match unix_listener::look(path).map_err(failed)? {
        There::Nothing => {}
        There::Dead(id) => drop(unix_listener::remove(path, id).map_err(failed)?),
        There::Alive(_) | There::Unknown | There::OtherFile => {
            return Err(failed(io::Error::from_raw_os_error(libc::EADDRINUSE)));
        }
    }
    let (fd, id) = unix_listener::open(path, BACKLOG, access).map_err(failed)?;
    Ok((fd, Some((path.to_owned(), id))))
}
