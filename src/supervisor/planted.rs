//! The mistakes that the model check is checked by. Only builds with debug assertions can make them: in
//! a release nothing is stored, and every question is answered no when it is compiled.

/// Deliberate mistakes, by which the model check is checked: it must find each of them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A predecessor leaves before its successor was ready for `min_healthy_time`.
    RetiresBeforeHealthy,
    /// The slot that a fact is about is looked at only where the fact itself changes it.
    LooksAway,
    /// `kill_timeout` has no effect.
    NeverKills,
    /// A reload waits for ever for a worker that is not ready.
    NoReadyDeadline,
    /// Nothing bounds the number of live processes.
    NoCap,
    /// At that bound whoever is wanted waits until a drain is over by itself.
    DrainsKeepRoom,
    /// A reload starts workers before the host was asked for room.
    ReloadsUnmeasured,
    /// `next_deadline` leaves the back-off out.
    BackoffSleepsForEver,
    /// A stop forgets workers that are starting.
    StopSparesStarting,
    /// A crashed worker is started again in the same turn.
    RespawnsWithoutBackoff,
    /// A late READY=1 makes a leaving worker ready.
    LateReadyRevives,
    /// The mirror closes the hole by shifting instead of moving the last one into it.
    MirrorShifts,
    /// A socket that its worker shut down keeps its place in the mirror.
    ShutDownKeepsItsPlace,
    /// A worker is told to stop while packets still find its sockets.
    StopsInTheOpen,
    /// `cron_restart` starts whom somebody stopped.
    CronStartsTheStopped,
    /// A change of files starts whom somebody stopped.
    ChangeStartsTheStopped,
    /// A worker's exit does not change the steering.
    ExitKeepsSteering,
    /// Of several queued reloads only one is answered.
    CoalescedIsUnanswered,
    /// A roll-back stops the old generation.
    RollbackStopsOld,
    /// A worker whose tree is not empty counts as gone.
    LeftoverIsForgotten,
    /// A server that ends with a request under way counts as one that finishes what it has.
    AnyExitFinishes,
    /// What one generation was seen to finish, the next is believed to, unexamined.
    TrustsTheUnexamined,
    /// A socket that its worker closed still counts as its worker's.
    AbandonedStaysServing,
    /// A starting worker gets all the time it asks for.
    ExtendIsUnbounded,
    /// A worker that was told to stop puts off its SIGKILL.
    ExtendPostponesKill,
    /// A spent worker leaves as soon as its successor was started.
    RenewsBeforeReady,
    /// All spent workers of an app are replaced at a time.
    RenewsAllAtOnce,
    /// A worker that leaves is asked how it is.
    ProbesTheLeaving,
    /// The first bad answer counts as all that it may give.
    OneBadAnswerIsEnough,
    /// A worker that could not be asked counts as one that gave a bad answer.
    UnaskedIsBad,
    /// A worker of a reload counts as proven before it was asked how it is.
    SettlesUnasked,
    /// What the host lacks for a moment counts as an unstable exit.
    HiccupIsCharged,
    /// An app starts before what it depends on is ready.
    StartsUnordered,
    /// An app leaves before who depends on it has.
    StopsUnordered,
    /// The same, of an app that is restarted.
    RestartsUnordered,
    /// `autorestart = false` has no effect.
    RestartsTheEnded,
    /// `stop_exit_codes` has no effect.
    RestartsStopCodes,
    /// A held reload takes old workers away.
    CanaryRetires,
    /// A held reload starts more workers than its share takes.
    CanaryGrows,
    /// A worker of a held reload that fails is replaced as if it were any other.
    CanaryIsTrusted,
    /// A promotion takes old workers away before new ones are proven.
    PromotionRetires,
    /// Who takes a held reload back takes the old workers away, too.
    RollbackStopsAll,
    /// What only judges workers replaces them.
    AdjustReplaces,
    /// What only judges workers ends a reload that is held at a share.
    AdjustEndsTheHeld,
    /// As soon as somebody waits, every worker counts as behind.
    CrowdIsEverybody,
    /// A worker that leaves goes on taking connections from a queue that others serve.
    LeavingGoesOnTaking,
    /// The last that is left does not take connections from a shared queue again.
    LastStaysAway,
    /// A shared socket is closed with its last worker, although the next one is to come.
    SharedEndsWithItsWorker,
    /// A successor that is never ready keeps its predecessor's turn for ever.
    LateStaysBeside,
    /// A worker that has to stop before its successor comes does, whether others serve or not.
    SparesTheLast,
    /// Where nobody serves, who leaves shuts the shared socket for those who start, too.
    OneShutsForAll,
    /// A start that was dropped because its worker was to end counts as an unstable exit.
    DroppedIsCharged,
    /// A deadline is judged although facts from before it were not told yet.
    JudgesUnheard,
    /// Who waits for a worker that no signal ends waits for ever.
    AwaitsTheUnkillable,
    /// The clocks of a worker run from its order, however long its start waits its turn.
    QueuedIsLate,
}

/// The mistake that this supervisor makes, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Planted(#[cfg(debug_assertions)] Option<Bug>);

#[cfg(debug_assertions)]
impl Planted {
    pub(super) const fn new(bug: Bug) -> Planted {
        Planted(Some(bug))
    }

    pub(super) fn has(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }
}

#[cfg(not(debug_assertions))]
impl Planted {
    pub(super) const fn new(_: Bug) -> Planted {
        Planted()
    }

    pub(super) const fn has(self, _: Bug) -> bool {
        false
    }
}
