//! How much memory is left, on the host and within the control groups of this process (v1 and v2), and
//! how much a process takes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::cgroup::{self, Hierarchy, Level, read};
use super::guise;

/// Memory that can still be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// In bytes.
    pub bytes: u64,
    /// The limit of the control group that it is left of, in bytes; none: of the host's.
    pub limit: Option<u64>,
}

/// The least of what the host and each control group above this process have left; none when nothing is
/// known. `root` is `/` but for tests.
pub fn free(root: &Path) -> Option<Free> {
    let meminfo = read(&root.join("proc/meminfo"));
    let host = meminfo.as_deref().and_then(of_host);
    let mut swap = meminfo.as_deref().map_or(0, swap_of_host);
    let mut groups = cgroup::levels(root, "memory");
    // The outermost first: what it may not swap, those in it may not either.
    groups.reverse();
    let of_group = |level: &Level| {
        swap = swap.min(swap_of_group(level));
        of_group(level, swap)
    };
    host.into_iter().chain(groups.iter().filter_map(of_group)).min_by_key(|free| free.bytes)
}

/// What a process takes that another one like it would take again, in bytes: its share of anonymous and
/// of shared memory. Pages of files that it maps are not in it: the next one finds them in the page cache.
/// Of /proc/PID/smaps_rollup (`Pss_Anon` and `Pss_Shmem`, since Linux 5.4; before, all of `Pss`, since
/// 4.14). `root` is `/` but for tests.
///
/// # Errors
/// EACCES without the right to trace it; ENOENT or ESRCH when it is gone; InvalidData when the text is
/// not as documented.
pub fn proportional(root: &Path, pid: i32) -> io::Result<u64> {
    let text = rollup(root, pid)?;
    let anonymous = sum(&text, "Pss_Anon:", "Pss_Shmem:");
    anonymous.or_else(|| field(&text, "Pss:")).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The anonymous and shared memory that a process has in RAM, in bytes, whoever else has it too
/// (`RssAnon` and `RssShmem` of /proc/PID/status, since Linux 4.5, which everybody may read; before, all
/// of `VmRSS`); 0 when nothing is shown. `root` is `/` but for tests.
pub fn resident(root: &Path, pid: i32) -> u64 {
    let text = read(&root.join(format!("proc/{pid}/status"))).unwrap_or_default();
    sum(&text, "RssAnon:", "RssShmem:").or_else(|| field(&text, "VmRSS:")).unwrap_or(0)
}

/// What a process takes of memory, files that it maps among it, each page divided by those who share it, in
/// bytes (`Pss` of /proc/PID/smaps_rollup, since Linux 4.14). `root` is `/` but for tests.
///
/// # Errors
/// As [`proportional`].
pub fn share(root: &Path, pid: i32) -> io::Result<u64> {
    field(&rollup(root, pid)?, "Pss:").ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn rollup(root: &Path, pid: i32) -> io::Result<String> {
    guise::look(pid, || fs::read_to_string(root.join(format!("proc/{pid}/smaps_rollup"))))
}

/// A process whose memory is read again and again: one system call each time.
#[derive(Debug)]
pub struct Meter(File);

impl Meter {
    /// Opens /proc/PID/statm, which everybody may read.
    ///
    /// # Errors
    /// ENOENT when it is gone; EMFILE.
    pub fn open(pid: i32) -> io::Result<Meter> {
        Ok(Meter(File::open(format!("/proc/{pid}/statm"))?))
    }

    /// Pages in RAM, of files too, whoever else has them.
    ///
    /// # Errors
    /// ESRCH when it is gone; InvalidData when the text is not as documented (proc_pid_statm(5)).
    pub fn resident_pages(&self) -> io::Result<u64> {
        let mut text = [0_u8; 128];
        let read = self.0.read_at(&mut text, 0)?;
        resident_of(&text[..read]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// The second number of statm.
fn resident_of(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The least limit of a control group above this process, or the host's RAM, in bytes. `root` is `/` but for
/// tests.
pub fn total(root: &Path) -> Option<u64> {
    let host = read(&root.join("proc/meminfo")).and_then(|text| field(&text, "MemTotal:"));
    let limit = |level: &Level| match level.hierarchy {
        Hierarchy::V1 => number(level, "memory.limit_in_bytes"),
        Hierarchy::V2 => number(level, "memory.max"),
    };
    host.into_iter().chain(cgroup::levels(root, "memory").iter().filter_map(limit)).min()
}

/// Processes that the kernel has killed so far for want of memory, in this process's own control group or
/// below (`oom_kill` of memory.events, v2, or of memory.oom_control, v1 since Linux 4.13), else on the host
/// (/proc/vmstat, since 4.13). `root` is `/` but for tests.
pub fn kills(root: &Path) -> Option<u64> {
    let of_group = |level: &Level| {
        let file = match level.hierarchy {
            Hierarchy::V1 => "memory.oom_control",
            Hierarchy::V2 => "memory.events",
        };
        statistic(&read(&level.folder.join(file))?, "oom_kill")
    };
    let of_host = || statistic(&read(&root.join("proc/vmstat"))?, "oom_kill");
    cgroup::levels(root, "memory").iter().find_map(of_group).or_else(of_host)
}

/// MemAvailable is what the kernel would give without swapping (since Linux 3.14, proc_meminfo(5)); what
/// is left of the swap it would give too.
fn of_host(meminfo: &str) -> Option<Free> {
    let available = field(meminfo, "MemAvailable:")?;
    Some(Free { bytes: available.saturating_add(swap_of_host(meminfo)), limit: None })
}

fn swap_of_host(meminfo: &str) -> u64 {
    field(meminfo, "SwapFree:").unwrap_or(0)
}

/// Of two fields, both of which must be there.
fn sum(text: &str, one: &str, other: &str) -> Option<u64> {
    field(text, one)?.checked_add(field(text, other)?)
}

/// `Name:     1234 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `swap`: what may still be swapped out of the group, in bytes.
fn of_group(level: &Level, swap: u64) -> Option<Free> {
    let (limit, usage, prefix) = match level.hierarchy {
        Hierarchy::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        Hierarchy::V2 => ("memory.max", "memory.current", ""),
    };
    let (limit, usage) = (number(level, limit)?, number(level, usage)?);
    let files = read(&level.folder.join("memory.stat")).unwrap_or_default();
    // Pages of files are counted in, and are given up before anybody is killed; so are the caches of the
    // kernel (dentries, inodes), which v1 counts in too, but does not tell in its memory.stat (memory.rst).
    let reclaimable = reclaimable(&files, prefix);
    let left = |limit: u64, usage: u64| limit.saturating_sub(usage.saturating_sub(reclaimable));
    let bytes = left(limit, usage).saturating_add(swap);
    let both = both_of_group(level).map_or(u64::MAX, |(limit, usage)| left(limit, usage));
    Some(Free { bytes: bytes.min(both), limit: Some(limit) })
}

fn reclaimable(statistics: &str, prefix: &str) -> u64 {
    ["inactive_file", "active_file", "slab_reclaimable"]
        .iter()
        .filter_map(|name| statistic(statistics, &format!("{prefix}{name}")))
        .fold(0, u64::saturating_add)
}

/// What a group of v2 may still swap; no bound where it has no limit, or swap is not accounted for.
fn swap_of_group(level: &Level) -> u64 {
    let left = || {
        let (limit, usage) = (number(level, "memory.swap.max")?, number(level, "memory.swap.current")?);
        Some(limit.saturating_sub(usage))
    };
    match level.hierarchy {
        Hierarchy::V1 => u64::MAX,
        Hierarchy::V2 => left().unwrap_or(u64::MAX),
    }
}

/// The limit and usage of memory and swap together, which is how v1 bounds swap; none where swap is not
/// accounted for.
fn both_of_group(level: &Level) -> Option<(u64, u64)> {
    match level.hierarchy {
        Hierarchy::V1 => Some((
            number(level, "memory.memsw.limit_in_bytes")?,
            number(level, "memory.memsw.usage_in_bytes")?,
        )),
        Hierarchy::V2 => None,
    }
}

/// A file of a group that holds one number; "max" is none (cgroup-v2.rst).
fn number(level: &Level, name: &str) -> Option<u64> {
    read(&level.folder.join(name))?.trim().parse().ok()
}

/// `inactive_file 4096`, in bytes.
fn statistic(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

/// Any text, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let parts = [
        of_host(&text).map(|free| free.bytes),
        sum(&text, "Pss:", "SwapPss:"),
        sum(&text, "VmRSS:", "VmSwap:"),
        Some(reclaimable(&text, "")),
        Some(reclaimable(&text, "total_")),
        statistic(&text, "oom_kill"),
    ];
    let kind = |part: &Option<u64>| part.map_or('-', |bytes| if bytes == 0 { '0' } else { 'n' });
    parts.iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  2000 kB\nMemFree:  100 kB\nMemAvailable:  1024 kB\nSwapFree:  0 kB\n";
    const SWAPPY: &str = "MemAvailable:  1000 kB\nSwapFree:  24 kB\n";
    const V2: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 20 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        }
        folder
    }

    #[test]
    fn without_a_limit_the_hosts_memory_counts() {
        let host = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/web\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/web/memory.max", "max\n"),
            ("sys/fs/cgroup/web/memory.current", "4096\n"),
        ]);
        assert_eq!(free(host.path()), Some(Free { bytes: 1024 * 1024, limit: None }));
    }

    #[test]
    fn swap_of_the_host_is_memory_as_well() {
        let host = host(&[("proc/meminfo", SWAPPY)]);
        assert_eq!(free(host.path()), Some(Free { bytes: 1024 * 1024, limit: None }));
    }

    #[test]
    fn a_group_may_swap_as_much_as_the_host_has_and_every_group_above_it_lets_it() {
        let left = |outer: &str, inner: &str, used: &str| {
            let host = host(&[
                ("proc/meminfo", SWAPPY),
                ("proc/self/cgroup", "0::/a/web\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/a/memory.max", "max\n"),
                ("sys/fs/cgroup/a/memory.swap.max", outer),
                ("sys/fs/cgroup/a/memory.swap.current", "0\n"),
                ("sys/fs/cgroup/a/web/memory.max", "50000\n"),
                ("sys/fs/cgroup/a/web/memory.current", "49000\n"),
                ("sys/fs/cgroup/a/web/memory.swap.max", inner),
                ("sys/fs/cgroup/a/web/memory.swap.current", used),
            ]);
            free(host.path()).map(|free| free.bytes)
        };
        assert_eq!(left("max\n", "max\n", "3000\n"), Some(1000 + 24 * 1024));
        assert_eq!(left("max\n", "5000\n", "3000\n"), Some(1000 + 2000));
        assert_eq!(left("0\n", "5000\n", "3000\n"), Some(1000));
        assert_eq!(left("max\n", "5000\n", "9000\n"), Some(1000));
    }

    #[test]
    fn v1_groups_may_swap_within_the_limit_of_both() {
        let left = |both: &str, used: &str| {
            let host = host(&[
                ("proc/meminfo", SWAPPY),
                ("proc/self/cgroup", "4:memory:/web\n"),
                ("proc/self/mountinfo", V1),
                ("sys/fs/cgroup/memory/web/memory.limit_in_bytes", "60000\n"),
                ("sys/fs/cgroup/memory/web/memory.usage_in_bytes", "59000\n"),
                ("sys/fs/cgroup/memory/web/memory.memsw.limit_in_bytes", both),
                ("sys/fs/cgroup/memory/web/memory.memsw.usage_in_bytes", used),
                ("sys/fs/cgroup/memory/web/memory.stat", "total_inactive_file 500\n"),
            ]);
            free(host.path()).map(|free| free.bytes)
        };
        assert_eq!(left("9223372036854771712\n", "59000\n"), Some(1500 + 24 * 1024));
        assert_eq!(left("70000\n", "65000\n"), Some(5500));
        assert_eq!(left("60000\n", "59800\n"), Some(700));
    }

    #[test]
    fn the_tightest_group_counts_and_pages_of_files_are_free() {
        let host = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/a/web\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/memory.max", "100000\n"),
            ("sys/fs/cgroup/a/memory.current", "90000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 3000\nactive_file 2000\n"),
            ("sys/fs/cgroup/a/web/memory.max", "50000\n"),
            ("sys/fs/cgroup/a/web/memory.current", "10000\n"),
        ]);
        assert_eq!(free(host.path()), Some(Free { bytes: 15_000, limit: Some(100_000) }));
    }

    #[test]
    fn caches_of_the_kernel_are_free() {
        let host = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/web\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/web/memory.max", "100000\n"),
            ("sys/fs/cgroup/web/memory.current", "99000\n"),
            ("sys/fs/cgroup/web/memory.stat", "slab_reclaimable 60000\nslab_unreclaimable 500\nslab 60500\n"),
        ]);
        assert_eq!(free(host.path()), Some(Free { bytes: 61_000, limit: Some(100_000) }));
    }

    #[test]
    fn v1_groups_count_as_well() {
        let host = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "60000\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "59000\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 7\ntotal_inactive_file 500\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
        ]);
        assert_eq!(free(host.path()), Some(Free { bytes: 1_500, limit: Some(60_000) }));
    }

    #[test]
    fn mapped_files_are_not_what_the_next_process_takes() {
        let host = host(&[
            (
                "proc/7/smaps_rollup",
                "Rss:  9000 kB\nPss:  8000 kB\nPss_Dirty:  70 kB\nPss_Anon:  60 kB\nPss_File:  7930 kB\n\
                 Pss_Shmem:  10 kB\n",
            ),
            ("proc/7/status", "VmRSS:  9000 kB\nRssAnon:  65 kB\nRssFile:  8920 kB\nRssShmem:  15 kB\n"),
            ("proc/8/smaps_rollup", "Rss:  9000 kB\nPss:  8000 kB\n"),
            ("proc/8/status", "VmRSS:  9000 kB\n"),
            ("proc/9/smaps_rollup", "\n"),
        ]);
        let shares = [7, 8].map(|pid| proportional(host.path(), pid).expect("it is there") / 1024);
        assert_eq!(shares, [70, 8000]);
        assert_eq!([7, 8, 9].map(|pid| resident(host.path(), pid) / 1024), [80, 9000, 0]);
        let error = |pid| proportional(host.path(), pid).expect_err("nothing is told").kind();
        assert_eq!((error(9), error(10)), (io::ErrorKind::InvalidData, io::ErrorKind::NotFound));
    }

    #[test]
    fn the_least_limit_is_what_there_is_in_all() {
        let bounded = |limit: &str| {
            let host = host(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "0::/web\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/web/memory.max", limit),
            ]);
            total(host.path())
        };
        assert_eq!(bounded("max\n"), Some(2000 * 1024));
        assert_eq!(bounded("50000\n"), Some(50_000));
        assert_eq!(bounded("9000000\n"), Some(2000 * 1024), "more than there is");
        assert_eq!(total(Path::new("/nowhere")), None);
    }

    #[test]
    fn kills_are_counted_in_the_own_group_before_the_host() {
        let host_wide = ("proc/vmstat", "pgfault 5\noom_kill 70\n");
        let v2 = host(&[
            host_wide,
            ("proc/self/cgroup", "0::/web\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/web/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"),
        ]);
        assert_eq!(kills(v2.path()), Some(3));
        let v1 = host(&[
            host_wide,
            ("proc/self/cgroup", "4:memory:/web\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/web/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ]);
        assert_eq!(kills(v1.path()), Some(2));
        assert_eq!(kills(host(&[host_wide]).path()), Some(70));
        assert_eq!(kills(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_meter_shows_what_the_process_has_until_it_is_gone() {
        let own = Meter::open(std::process::id() as i32).expect("our own is ours to see");
        assert!(own.resident_pages().is_ok_and(|pages| pages > 100));
        assert_eq!(Meter::open(0).expect_err("there is none").kind(), io::ErrorKind::NotFound);
        assert_eq!(resident_of(b"1000 25 3 4 0 5 0\n"), Some(25));
        for odd in [&b""[..], b"1000", b"1 x", b"\xff 2"] {
            assert_eq!(resident_of(odd), None);
        }
    }

    #[test]
    fn odd_files_of_the_kernel_say_nothing_and_panic_never() {
        for text in ["", "kB", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB"]
        {
            assert_eq!(of_host(text), None, "{text:?}");
        }
        assert_eq!(free(Path::new("/nowhere")), None);
        assert_eq!(statistic("inactive_file\ninactive_fileX 3\n", "inactive_file"), None);
    }

    #[test]
    fn this_process_takes_memory_and_the_host_has_some() {
        let (root, pid) = (Path::new("/"), std::process::id() as i32);
        let own = proportional(root, pid).expect("our own is ours to see");
        assert!(own > 100_000, "{own}");
        assert!(resident(root, pid) > 100_000);
        assert!(free(Path::new("/")).is_some_and(|free| free.bytes > 0));
    }
}
