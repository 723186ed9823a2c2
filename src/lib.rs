//! clusterd runs any language's server N times behind one port, keeps it alive and reloads it without
//! losing a request: **zero lost requests, in any language, without changing a line of the server's
//! code.**
//!
//! # The idea
//!
//! A pure supervisor that decides, a thin shell that acts. Facts go in, orders come out, time is an
//! argument. What is hard to get right (reload, scale, back-off, deadlines, two commands at once) is
//! decided on plain data that a test can search exhaustively; what touches the kernel is one family of
//! system calls a file and decides nothing.
//!
//! ```text
//! sys → daemon::sources → supervisor → daemon::perform → sys
//! ```
//!
//! # Code map
//!
//! | module | what it is for |
//! |---|---|
//! | [`supervisor`] | decides: [`supervisor::event`] is the whole contract with the world, `app` and `reconcile` derive steps from what is wanted and what is, `rollout` is one reload, `canary` one that is held at a share, `spread` how connections are shared out, [`supervisor::balance`] who is overloaded, `group` mirrors the kernel's array of listening sockets, [`supervisor::drain`] judges when a connection is finished, [`supervisor::silence`] when one over a Unix socket is, `exam` whether a server finishes its own upon its signal, [`supervisor::headroom`] whether two generations fit on the host, [`supervisor::fold`] what a crash loop may write, `adjust` what holds for workers that run already, `slots` what is kept beside the slots so that one of a thousand workers is no matter of all |
//! | [`sys`] | system calls, one family a file: `spawn` is everything between clone and exec (with `settings`: limits, then the change of user), `accounts` the account files, `intercept` is seccomp notification, `steer` the BPF programs, `connections` and `unix_diag` sock_diag, `epoll_peer` what another process waits for, `multipath` a plain TCP socket in the likeness of one of Multipath TCP, `cgroup` the control groups that this process is in, `groups` those that it makes for its workers |
//! | [`config`] | the ecosystem file: text → what it means on this host, or every mistake in it with its place |
//! | [`import`] | PM2's files, its dump and Procfiles → an ecosystem file: text in, text out |
//! | [`export`] | an ecosystem file → manifests for Kubernetes, Compose and systemd: its meaning in, text out |
//! | [`control`] | the control socket: frames, server, client, and what the client prints |
//! | [`logs`] | what workers print: lines, files and their rotation, the host's journal, the foreground's terminal, the memory of last lines |
//! | [`http`] | the answers over HTTP: request heads, connections, figures; the loop answers |
//! | [`monit`] | the full screen: events → what is shown → cells; the command line owns the terminal |
//! | [`daemon`] | the loop: waits, collects facts, has them decided, performs the orders |
//! | [`cli`], [`background`], [`home`] | the command line, the background supervisor's start, which folders |
//! | [`demo`] | the small server of the example file |
//!
//! # How a server joins without knowing
//!
//! Each worker of a cluster app listens on its own socket; all share the address by SO_REUSEPORT. The
//! worker runs under a seccomp filter that notifies the supervisor of bind(2) and listen(2): at bind the
//! socket gets SO_REUSEPORT, at listen the supervisor keeps a duplicate and does the listen itself, which
//! fixes the socket's place in the kernel's array and proves that *this* worker is ready. A classic BPF
//! program picks, for each new connection, one of the sockets that are to be used: taking a worker out of
//! the accept path is one setsockopt, for any server whatever. A declared address (`listen`) is opened by
//! the supervisor and handed over from descriptor 3 on instead.
//!
//! # Invariants
//!
//! - `supervisor` imports nothing that can touch the world; it never sees a process id.
//! - `sys` decides nothing and knows nothing of the crate; `unsafe` lives there and nowhere else.
//! - Nothing in the loop waits for a process, a client, a reader, or the disk of a log file: no sleep, and what
//!   goes into pipes, sockets and terminals is never a blocking write. Log files, the supervisor's own among them, are
//!   written, rotated and emptied by a thread for each disk, behind a bounded queue: a disk that hangs holds those who
//!   print to it, and nobody else. The loop opens log files, and reads and writes small files of its own (definitions,
//!   state, pid files). One more thread at times compresses old log files.
//! - Each thread beside the loop has a table of descriptors of its own: the loop exchanges what stands at some numbers
//!   of its own for a moment ([`sys::epoll_peer`]).
//! - A process is signalled through its descriptor, never by a bare number.
//! - The supervisor itself never lowers the number of workers that serve below what is wanted; crashes,
//!   operators and limits do.
//! - A reload that fails leaves the old generation serving.
//! - Every queue, frame, line and connection count has a limit; what is dropped is counted and told.
//!
//! `tests/tidy.rs` holds the layers; `tests/model.rs` searches every state of one app.
pub mod background;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod home;
pub mod http;
pub mod import;
pub mod logs;
pub mod monit;
pub mod supervisor;
pub mod sys;
