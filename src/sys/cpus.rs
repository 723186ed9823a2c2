//! How many CPUs this process may use: its affinity, and the CPU quota of its control groups (v1 and v2).
//!
//! As the standard library counts (`std::thread::available_parallelism`), but with the root of the file
//! system as an argument, so that tests bring their own: a quota is rounded down, and never below 1.

use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::cgroup::{self, Hierarchy, Level, read};

/// CPUs that this process may use, at least 1.
pub fn available_parallelism() -> u32 {
    let allowed = affinity();
    quota(Path::new("/")).map_or(allowed, |quota| quota.min(allowed))
}

/// CPUs that the scheduler may put this process on (sched_getaffinity(2)), at least 1.
pub fn affinity() -> u32 {
    // The set holds 1024 CPUs; on a host with more the call fails and the standard library has a way round.
    let count = match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count(),
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    };
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

/// Whole CPUs' worth of time that the control groups of this process grant it, at least 1; none without a
/// quota. The tightest of all levels counts (cgroups(7), cpu.max and cpu.cfs_quota_us). `root` is `/`
/// but for tests.
pub fn quota(root: &Path) -> Option<u32> {
    let quota = |level: &Level| match level.hierarchy {
        Hierarchy::V1 => v1_quota(&level.folder),
        Hierarchy::V2 => v2_quota(&level.folder),
    };
    cgroup::levels(root, "cpu").iter().filter_map(quota).min()
}

/// `max 100000` or `150000 100000` (cgroup-v2.rst).
fn v2_quota(folder: &Path) -> Option<u32> {
    let text = read(&folder.join("cpu.max"))?;
    let mut words = text.split_whitespace();
    whole(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
}

/// -1 is no quota (sched-bwc.rst).
fn v1_quota(folder: &Path) -> Option<u32> {
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    whole(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn whole(quota: u64, period: u64) -> Option<u32> {
    let cpus = quota.checked_div(period)?;
    Some(u32::try_from(cpus).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const V2: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 20 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

    #[test]
    fn a_v2_quota_is_rounded_down_and_the_tightest_level_counts() {
        let host = host(&[
            ("proc/self/cgroup", "0::/system.slice/web.service\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/system.slice/web.service/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(2));
    }

    #[test]
    fn half_a_cpu_is_one() {
        let host = host(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(1));
    }

    #[test]
    fn a_v1_quota_counts_beside_a_v2_hierarchy_without_one() {
        let host = host(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"),
            (
                "proc/self/mountinfo",
                "31 20 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                 32 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "350000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(3));
    }

    #[test]
    fn without_a_quota_there_is_none() {
        let host = host(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(host.path()), None);
        assert_eq!(quota(Path::new("/nowhere")), None);
    }

    #[test]
    fn odd_files_of_the_kernel_are_no_quota() {
        for text in ["", "max", "100000", "100000 0", "-5 100000", "x y", "\u{0}"] {
            let host = host(&[
                ("proc/self/cgroup", "0::/../../web\nrubbish\n:::\n"),
                ("proc/self/mountinfo", &format!("rubbish\n - \n{V2}")),
                ("sys/fs/cgroup/cpu.max", text),
            ]);
            assert_eq!(quota(host.path()), None, "{text:?}");
        }
    }

    #[test]
    fn this_process_has_a_cpu() {
        assert!(affinity() >= 1);
        assert!(available_parallelism() <= affinity());
    }
}
