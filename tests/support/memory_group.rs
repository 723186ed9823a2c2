//! A control group whose memory is limited.

use std::path::PathBuf;
use std::time::Duration;

use super::ports::free_port;
use super::wait::try_until;

/// A memory control group of one's own below that of this process: v2 where the controller is there, else
/// v1. None where neither can be written.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    limit: &'static str,
}

impl MemoryGroup {
    pub(crate) fn new() -> Option<MemoryGroup> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |line: &str, controller: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        };
        let of = |controller| own.lines().find_map(|line| path(line, controller));
        let places = [
            ("/sys/fs/cgroup", of("")?, "memory.max"),
            ("/sys/fs/cgroup/memory", of("memory").unwrap_or_default(), "memory.limit_in_bytes"),
        ];
        let name = format!("clusterd-test-{}", free_port());
        places.into_iter().find_map(|(mount, path, limit)| {
            let folder = PathBuf::from(format!("{mount}{}", path.trim_end_matches('/'))).join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = MemoryGroup { folder, limit };
            group.folder.join(limit).exists().then_some(group)
        })
    }

    /// For a shell: joins the group, and runs its arguments.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display())
    }

    /// Nor more by swapping, where the host has swap and accounts for it.
    pub(crate) fn set(&self, mebibytes: u64) {
        let bytes = (mebibytes << 20).to_string();
        let write = |name: &str, text: &str| std::fs::write(self.folder.join(name), text);
        // v1 refuses a limit of memory and swap below that of memory at every moment.
        let both = || write("memory.memsw.limit_in_bytes", &bytes).ok();
        both();
        write(self.limit, &bytes).expect("it is ours");
        both();
        write("memory.swap.max", "0").ok();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What was in it is gone; the kernel may take a moment to see that.
        let _ = try_until(Duration::from_secs(2), || std::fs::remove_dir(&self.folder));
    }
}
