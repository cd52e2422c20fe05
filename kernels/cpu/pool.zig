//! The threads of a device and how they meet.
//!
//! Nobody waits for a thread, only for work: a stage of a job is over when its units are done, whoever did them.
//! So a thread that lost its processor to another program holds up the others for the unit in its hands and for
//! nothing else; when it comes back it finds the stages it missed finished and catches up. The price is that the
//! owner may be done with a job while a thread still walks through it; epochs tell such a thread to leave, and
//! `quiesce` waits for it before the job's memory goes.
//!
//! Waiting spins for a short while and then parks, so that a shared processor is given up instead of burnt.
//!
//! Threads run where the system puts them, or are pinned. The owner is pinned to its own processor only while it
//! computes, and confined to those of all threads in between: what it starts then inherits no more than that.

const std = @import("std");
const builtin = @import("builtin");
const affinity = @import("affinity.zig");
const status = @import("../abi/status.zig");

pub const threads_max = 256;

/// How long a thread spins before it parks: longer than the owner needs between two steps of a busy engine, far
/// shorter than a scheduler's time slice.
const spin_ns = 60_000;
/// Of `spin_rounds`: the clock decides.
const by_clock = std.math.maxInt(u32);

pub const Job = *const fn (context: *anyopaque, thread: u32) void;

pub const Pool = struct {
    count: u32,
    threads: [threads_max]std.Thread = undefined,
    job: Job = undefined,
    context: *anyopaque = undefined,
    closing: std.atomic.Value(bool) = .init(false),
    /// How often a thread looks before it parks.
    spin_rounds: std.atomic.Value(u32) = .init(by_clock),
    pins: ?Pins = null,
    /// Even: no job may be entered. Odd: the job may be entered. Rises with every job.
    generation: Word align(std.atomic.cache_line) = .{},
    /// Threads inside a job, the owner not counted.
    active: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),
    /// Rises when a stage ends while somebody is parked for it.
    progress: Word align(std.atomic.cache_line) = .{},

    pub fn open(pool: *Pool, count: u32) status.Error!void {
        pool.* = .{ .count = count };
        for (1..count) |index| {
            pool.threads[index] = std.Thread.spawn(.{}, worker, .{ pool, @as(u32, @intCast(index)) }) catch |failure| {
                pool.count = @intCast(index);
                pool.close();
                return status.fail(error.System, "cannot start thread {d} of {d}: {s}", .{ index + 1, count, @errorName(failure) });
            };
            name(pool.threads[index], index);
        }
    }

    /// Gives every thread processors of this list, by turns, and confines the owner, who calls this, to all of them.
    pub fn pin(pool: *Pool, processors: []const u32) status.Error!void {
        if (!affinity.supported) return status.fail(error.InvalidArgument, "this system does not pin threads", .{});
        if (processors.len == 0) return status.fail(error.InvalidArgument, "a list of no processors to pin threads to", .{});
        const before = if (pool.pins) |pins| pins.before else try affinity.current();
        const all = try affinity.confineToAll(processors);
        pool.pins = .{ .before = before, .all = all, .owner = affinity.deal(processors, pool.count, 0) };
        for (1..pool.count) |index| {
            try affinity.confineThread(pool.threads[index], &affinity.deal(processors, pool.count, @intCast(index)));
        }
    }

    /// How many rounds a waiting thread spins before it parks. Threads that wait already begin to wait anew.
    pub fn spin(pool: *Pool, rounds: u32) void {
        pool.spin_rounds.store(rounds, .seq_cst);
        pool.invite();
    }

    pub fn close(pool: *Pool) void {
        pool.closing.store(true, .seq_cst);
        pool.generation.advance();
        for (pool.threads[1..pool.count]) |thread| thread.join();
        if (affinity.supported) {
            if (pool.pins) |*pins| _ = affinity.confine(&pins.before);
        }
    }

    /// Invites every thread into the job and runs it as thread 0; returns when the owner's own call returns.
    /// The job sees to it that its work is done by then. `context` stays valid until `quiesce`.
    pub fn run(pool: *Pool, job: Job, context: *anyopaque) void {
        if (pool.count > 1) {
            const same = pool.generation.load() % 2 == 1 and pool.job == job and pool.context == context;
            if (!same) {
                pool.quiesce();
                pool.job = job;
                pool.context = context;
                pool.generation.advance();
            } else {
                pool.invite();
            }
        }
        if (affinity.supported) {
            if (pool.pins) |*pins| return pins.runOwner(job, context);
        }
        job(context, 0);
    }

    /// Two at once: whether a job may be entered stays as it is, and threads that wait for a change see one.
    fn invite(pool: *Pool) void {
        _ = pool.generation.value.fetchAdd(2, .seq_cst);
        pool.generation.wake();
    }

    /// Lets nobody enter the present job any more and waits until all have left it.
    pub fn quiesce(pool: *Pool) void {
        if (pool.count == 1) return;
        if (pool.generation.load() % 2 == 1) pool.generation.advance();
        while (pool.active.load(.seq_cst) > 0) std.Thread.yield() catch {};
    }

    fn worker(pool: *Pool, index: u32) void {
        var seen: u32 = 0;
        while (true) {
            pool.generation.waitWhile(seen, .of(pool));
            if (pool.closing.load(.seq_cst)) return;
            _ = pool.active.fetchAdd(1, .seq_cst);
            // Once counted as active, an odd number means that the owner cannot change the job under us.
            seen = pool.generation.load();
            if (seen % 2 == 1) pool.job(pool.context, index);
            _ = pool.active.fetchSub(1, .seq_cst);
        }
    }
};

/// Where a pinned owner may run.
const Pins = struct {
    before: affinity.Set,
    /// The processors of all threads.
    all: affinity.Set,
    owner: affinity.Set,

    /// The system may take processors away later; then the thread runs on what is left, which is as good as it gets.
    fn runOwner(pins: *const Pins, job: Job, context: *anyopaque) void {
        const narrower = !pins.owner.same(&pins.all);
        if (narrower) _ = affinity.confine(&pins.owner);
        job(context, 0);
        if (narrower) _ = affinity.confine(&pins.all);
    }
};

/// What lists of threads show; a thread without its name works as well.
fn name(thread: std.Thread, index: usize) void {
    if (builtin.os.tag != .linux) return;
    var text: [16]u8 = undefined;
    const terminated = std.fmt.bufPrintZ(&text, "mistral-{d}", .{index}) catch return;
    _ = std.c.pthread_setname_np(thread.getHandle(), terminated);
}

/// Part of a stage's units, taken in order: the units of one thread, until the others run out of theirs.
pub const Lane = struct {
    /// Epoch in the high half, next unit in the low half.
    next: std.atomic.Value(u64) align(std.atomic.cache_line) = .init(0),
    end: u32 = 0,

    fn take(lane: *Lane, epoch: u32) ?u32 {
        var value = lane.next.load(.acquire);
        while (value >> 32 == epoch) {
            const unit: u32 = @truncate(value);
            if (unit >= lane.end) return null;
            value = lane.next.cmpxchgWeak(value, value + 1, .acq_rel, .acquire) orelse return unit;
        }
        return null;
    }
};

/// The units of one stage: handed out one by one, counted when done. Belongs to an epoch, so that a thread of an
/// earlier run of the same job takes none.
///
/// Neighbouring units are one thread's, as long as it keeps up: it walks through a part of the weights of its own,
/// and what it asks the memory for in advance is for itself. Who is done with his own helps the others.
pub const Units = struct {
    lanes: []Lane,
    done: std.atomic.Value(u32) = .init(0),
    count: u32 = 0,

    /// Threads beyond these share lanes: looking through all of them must cost nothing.
    pub const lanes_max = 64;

    /// Called by the owner, with all units of the epoch before done. A thread that still looks at that epoch must
    /// not take the new count for its own, so the epoch changes first, with nothing to take.
    pub fn reset(units: *Units, epoch: u32, count: u32) void {
        const tag = @as(u64, epoch) << 32;
        for (units.lanes) |*lane| lane.next.store(tag | std.math.maxInt(u32), .seq_cst);
        units.count = count;
        units.done.store(0, .seq_cst);
        for (units.lanes, 0..) |*lane, index| {
            lane.end = units.bound(index + 1);
            lane.next.store(tag | units.bound(index), .seq_cst);
        }
    }

    /// Where a lane's units begin.
    fn bound(units: *const Units, index: usize) u32 {
        return @intCast(@as(u64, units.count) * index / units.lanes.len);
    }

    /// The unit that a thread will begin with when nobody else does before; null when none of its own is left.
    pub fn upcoming(units: *const Units, thread: u32) ?u32 {
        const lane = &units.lanes[thread % units.lanes.len];
        const unit: u32 = @truncate(lane.next.load(.monotonic));
        return if (unit < lane.end) unit else null;
    }

    /// The next unit for a thread, or null when all are taken or the epoch is over.
    pub fn take(units: *Units, epoch: u32, thread: u32) ?u32 {
        const own = thread % units.lanes.len;
        for (units.lanes[own..]) |*lane| if (lane.take(epoch)) |unit| return unit;
        for (units.lanes[0..own]) |*lane| if (lane.take(epoch)) |unit| return unit;
        return null;
    }

    /// Reports so many units that `take` gave; what they wrote is visible to whoever sees the stage finished.
    pub fn finish(units: *Units, pool: *Pool, finished: u32) void {
        if (finished == 0) return;
        const all = units.done.fetchAdd(finished, .seq_cst) + finished == units.count;
        if (all and pool.progress.sleepers.load(.seq_cst) > 0) pool.progress.advance();
    }

    fn over(units: *Units, epoch: u32) bool {
        return units.done.load(.seq_cst) == units.count or units.epochOf() != epoch;
    }

    /// Waits until the stage is finished, and asks for what comes next meanwhile. False: the epoch is over, leave.
    pub fn wait(units: *Units, pool: *Pool, epoch: u32, ahead: *Ahead) bool {
        var patience: Patience = .of(pool);
        while (!units.over(epoch)) {
            ahead.request(Ahead.lines_per_spin);
            if (patience.spin()) continue;
            _ = pool.progress.sleepers.fetchAdd(1, .seq_cst);
            while (true) {
                const seen = pool.progress.load();
                if (units.over(epoch)) break;
                park(&pool.progress.value, seen);
            }
            _ = pool.progress.sleepers.fetchSub(1, .seq_cst);
        }
        return units.epochOf() == epoch;
    }

    fn epochOf(units: *Units) u32 {
        return @intCast(units.lanes[0].next.load(.seq_cst) >> 32);
    }
};

/// Memory that a thread is about to read, to be asked for while it has to wait.
pub const Ahead = struct {
    at: [*]const u8,
    lines: u32,

    pub const none: Ahead = .{ .at = undefined, .lines = 0 };
    /// More would be gone from the cache, of the smaller processors, when it is needed.
    pub const lines_max = (64 << 10) / line_bytes;
    /// What a processor can have under way, so that asking takes no time.
    pub const lines_at_once = 32;
    const lines_per_spin = 4;
    const line_bytes = 64;

    pub fn of(memory: [*]const u8) Ahead {
        return .{ .at = memory, .lines = lines_max };
    }

    pub fn request(ahead: *Ahead, lines: u32) void {
        const count = @min(lines, ahead.lines);
        for (0..count) |line| @prefetch(ahead.at + line_bytes * line, .{ .locality = 2 });
        ahead.at += line_bytes * count;
        ahead.lines -= count;
    }
};

/// A number that threads can wait on.
const Word = struct {
    value: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),

    fn load(word: *Word) u32 {
        return word.value.load(.seq_cst);
    }

    fn advance(word: *Word) void {
        _ = word.value.fetchAdd(1, .seq_cst);
        word.wake();
    }

    fn wake(word: *Word) void {
        if (word.sleepers.load(.seq_cst) > 0) wakeAll(&word.value);
    }

    fn waitWhile(word: *Word, old: u32, patience_at_first: Patience) void {
        var patience = patience_at_first;
        while (word.load() == old) {
            if (patience.spin()) continue;
            _ = word.sleepers.fetchAdd(1, .seq_cst);
            while (word.load() == old) park(&word.value, old);
            _ = word.sleepers.fetchSub(1, .seq_cst);
        }
    }
};

/// Spins for `spin_ns`, looking at the clock only now and then, or so many rounds as were asked for.
const Patience = struct {
    rounds: u32,
    spins: u32 = 0,
    deadline: u64 = 0,

    fn of(pool: *const Pool) Patience {
        return .{ .rounds = pool.spin_rounds.load(.seq_cst) };
    }

    fn spin(patience: *Patience) bool {
        if (patience.rounds != by_clock and patience.spins >= patience.rounds) return false;
        std.atomic.spinLoopHint();
        patience.spins +%= 1;
        if (patience.rounds != by_clock) return true;
        if (patience.spins % 64 != 0) return true;
        const now = nowNs();
        if (patience.deadline == 0) patience.deadline = now + spin_ns;
        return now < patience.deadline;
    }
};

pub fn nowNs() u64 {
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// Sleeps while the word has this value; may return early.
fn park(word: *std.atomic.Value(u32), value: u32) void {
    switch (builtin.os.tag) {
        .linux => _ = std.os.linux.futex_4arg(&word.raw, .{ .cmd = .WAIT, .private = true }, value, null),
        .macos => _ = std.c.__ulock_wait(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true }, &word.raw, value, 0),
        else => @compileError("no way to park a thread on this system"),
    }
}

fn wakeAll(word: *std.atomic.Value(u32)) void {
    switch (builtin.os.tag) {
        .linux => _ = std.os.linux.futex_3arg(&word.raw, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32)),
        .macos => _ = std.c.__ulock_wake(.{ .op = .COMPARE_AND_WAIT, .WAKE_ALL = true, .NO_ERRNO = true }, &word.raw, 0),
        else => @compileError("no way to wake a thread on this system"),
    }
}
