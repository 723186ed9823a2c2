//! What the control group of each worker is bounded to (cgroups(7), v2). Whether there is one is for each start to say.

use toml::de::DeValue;

use super::keys::AppKey;
use super::reader::Reader;
use super::size;
use super::value::Refusal;
use crate::supervisor::policy::MemoryLimit;

/// Nothing that is not set is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupBounds {
    /// memory.high, in bytes.
    pub memory_high: Option<u64>,
    /// memory.max, in bytes.
    pub memory_max: Option<u64>,
    /// pids.max.
    pub pids_max: Option<u32>,
    /// cpu.weight, 1 to 10 000.
    pub cpu_weight: Option<u32>,
}

impl GroupBounds {
    /// The keys that are set: each with the controller that it takes, its file and what is written there.
    pub fn files(&self) -> Vec<Bound> {
        let bound = |key, controller, file, value: Option<u64>| {
            value.map(|value| Bound { key, controller, file, value })
        };
        [
            bound("memory_high", "memory", "memory.high", self.memory_high),
            bound("memory_max", "memory", "memory.max", self.memory_max),
            bound("pids_max", "pids", "pids.max", self.pids_max.map(u64::from)),
            bound("cpu_weight", "cpu", "cpu.weight", self.cpu_weight.map(u64::from)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// One key, in the words of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// As the ecosystem file spells it.
    pub key: &'static str,
    /// Which the kernel must have for it.
    pub controller: &'static str,
    /// Below the group's folder.
    pub file: &'static str,
    /// Written there.
    pub value: u64,
}

impl Reader<'_, '_, '_, AppKey> {
    /// All four keys.
    pub(super) fn group_bounds(&mut self) -> GroupBounds {
        let bounds = GroupBounds {
            memory_high: self.read(AppKey::MemoryHigh, bytes),
            memory_max: self.read(AppKey::MemoryMax, bytes),
            pids_max: self.count(AppKey::PidsMax),
            cpu_weight: self.count(AppKey::CpuWeight),
        };
        if let (Some(high), Some(max)) = (bounds.memory_high, bounds.memory_max)
            && high > max
        {
            let message = "is above memory_max, at which the worker is killed: it would never be reached";
            self.conflict(
                AppKey::MemoryHigh,
                message,
                "write less than memory_max, or leave one of them out",
            );
        }
        bounds
    }
}

/// A share would be one of what there is for all; the group of each worker is bounded for itself.
fn bytes(value: &DeValue<'_>) -> Result<u64, Refusal> {
    match size::memory_limit(value, Some(0))? {
        MemoryLimit::Each(bytes) => Ok(bytes),
        MemoryLimit::Shared(_) => Err(Refusal::wrong("write an amount for each worker, such as \"512M\"")),
    }
}

/// In the words of the file; none where nothing is set.
pub(super) fn shown(key: AppKey, bounds: GroupBounds) -> Option<String> {
    match key {
        AppKey::MemoryHigh => bounds.memory_high.map(|bytes| size::show(MemoryLimit::Each(bytes))),
        AppKey::MemoryMax => bounds.memory_max.map(|bytes| size::show(MemoryLimit::Each(bytes))),
        AppKey::PidsMax => bounds.pids_max.map(|most| most.to_string()),
        AppKey::CpuWeight => bounds.cpu_weight.map(|weight| weight.to_string()),
        _ => None,
    }
}
