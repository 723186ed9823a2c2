//! What every unit of systemd's that runs clusterd says, whoever writes it.

use super::yaml;
use crate::logs::escape::steers;

/// Up to the first lines of the service.
pub(crate) fn head(mark: &str, what: &str, more: &str) -> String {
    format!(
        "{mark}\n# What is to differ belongs beside it: systemctl edit.\n\n\
         [Unit]\n\
         Description=clusterd: {what}\n\
         {more}\
         # An address that is not there yet is waited for.\n\
         After=network.target\n\
         # It is tried again for as long as it takes.\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\n\
         # It says when everything has started, reloads and ends, and that it goes on.\n\
         Type=notify\n\
         NotifyAccess=main\n\
         WatchdogSec=180\n"
    )
}

/// What runs, and how it ends. The program is quoted already.
///
/// `stop`: after how many seconds systemd loses patience, and why then.
///
/// A reload is a command, which waits for its end and says whether it failed: `Type=notify-reload` (systemd 253) would
/// send SIGHUP, which is understood and answered as well, but take any end of it for a good one.
pub(crate) fn service(what: &str, program: &str, (stop, why): (u64, &str)) -> String {
    let why = if why.is_empty() { String::new() } else { yaml::remark(why).join("\n") + "\n" };
    format!(
        "ExecStart={program} {what}\n\
         # Waits for the end, and fails when an app keeps its old generation.\n\
         ExecReload={program} reload all\n\
         # SIGTERM goes to clusterd alone, which drains every app within its shutdown_timeout.\n\
         KillMode=mixed\n\
         {why}TimeoutStopSec={stop}\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         # A worker that runs out of memory is clusterd's matter.\n\
         OOMPolicy=continue\n\
         # Each worker gets a control group of its own, below that of the unit.\n\
         Delegate=yes\n"
    )
}

/// Of a unit of the system.
pub(crate) const LIMITS: &str =
    "# The first one is what workers get.\nLimitNOFILE=1024:1048576\nTasksMax=infinity\n";

/// By default standard error goes where standard output does.
pub(crate) const OUTPUT: &str = "# What workers print is in their log files; errors, theirs too, are in the journal.\n\
                      StandardOutput=null\nStandardError=journal\n";

/// Workers inherit all of it: nothing here that a runtime (V8, JVM) or a usual server would miss. Left out are
/// MemoryDenyWriteExecute (compilers at run time), ProcSubset and ProtectProc (memory and CPU time are read there),
/// ProtectControlGroups (each worker has its group), RestrictNamespaces (workers of their own), ProtectHome (apps below
/// home folders).
pub(crate) const HARDENING: &str = "# Workers inherit what follows. For ports below 1024: AmbientCapabilities= and CapabilityBoundingSet=\n\
                         # CAP_NET_BIND_SERVICE. For apps with `user`: User=root, Group=root, and no bounding set.\n\
                         CapabilityBoundingSet=\n\
                         NoNewPrivileges=yes\n\
                         UMask=0077\n\
                         KeyringMode=private\n\
                         ProtectSystem=full\n\
                         PrivateTmp=yes\n\
                         PrivateDevices=yes\n\
                         ProtectClock=yes\n\
                         ProtectHostname=yes\n\
                         ProtectKernelLogs=yes\n\
                         ProtectKernelModules=yes\n\
                         ProtectKernelTunables=yes\n\
                         LockPersonality=yes\n\
                         RestrictRealtime=yes\n\
                         RestrictSUIDSGID=yes\n\
                         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
                         SystemCallArchitectures=native\n";

/// In quotes, with nothing in it that systemd would take for something else in a command line (systemd.syntax(7)).
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '%' => quoted += "%%",
            '$' => quoted += "$$",
            other if other.is_control() && other.is_ascii() => {
                quoted += &format!("\\x{:02x}", u32::from(other));
            }
            other if steers(other) => quoted += &format!("\\U{:08x}", u32::from(other)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}
