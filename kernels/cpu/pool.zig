//! The threads of a device. A thread that enters a job stays in it to the end and meets the others at barriers.
//! Waiting spins for a short while and then parks, so that a processor that is shared with other work is given
//! up instead of burnt; a pool of one has no threads and no barriers.

const std = @import("std");
const builtin = @import("builtin");
const status = @import("../abi/status.zig");

pub const threads_max = 256;

/// How long a thread spins before it parks: longer than the gap between two steps of a busy engine at a
/// barrier's scale, far shorter than a scheduler's time slice.
const spin_ns = 50_000;

pub const Job = *const fn (context: *anyopaque, thread: u32) void;

pub const Pool = struct {
    count: u32,
    threads: [threads_max]std.Thread = undefined,
    job: Job = undefined,
    context: *anyopaque = undefined,
    closing: std.atomic.Value(bool) = .init(false),
    /// Number of jobs published so far.
    generation: Event align(std.atomic.cache_line) = .{},
    /// Number of barriers passed so far, and the threads that have arrived at the next.
    passed: Event align(std.atomic.cache_line) = .{},
    arrived: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),

    pub fn open(pool: *Pool, count: u32) status.Error!void {
        pool.* = .{ .count = count };
        for (1..count) |index| {
            pool.threads[index] = std.Thread.spawn(.{}, worker, .{ pool, @as(u32, @intCast(index)) }) catch |failure| {
                pool.count = @intCast(index);
                pool.close();
                return status.fail(error.System, "cannot start thread {d} of {d}: {s}", .{ index + 1, count, @errorName(failure) });
            };
        }
    }

    pub fn close(pool: *Pool) void {
        pool.closing.store(true, .release);
        pool.generation.advance();
        for (pool.threads[1..pool.count]) |thread| thread.join();
    }

    /// Runs the job on every thread, the caller's being thread 0; returns when all have finished.
    pub fn run(pool: *Pool, job: Job, context: *anyopaque) void {
        pool.job = job;
        pool.context = context;
        pool.generation.advance();
        job(context, 0);
        pool.barrier();
    }

    /// Every thread of a job must call it equally often; what was written before it is visible after it.
    pub fn barrier(pool: *Pool) void {
        if (pool.count == 1) return;
        const before = pool.passed.value.load(.acquire);
        if (pool.arrived.fetchAdd(1, .acq_rel) + 1 == pool.count) {
            pool.arrived.store(0, .monotonic);
            pool.passed.advance();
        } else pool.passed.waitWhile(before);
    }

    fn worker(pool: *Pool, index: u32) void {
        var seen: u32 = 0;
        while (true) {
            pool.generation.waitWhile(seen);
            seen +%= 1;
            if (pool.closing.load(.acquire)) return;
            pool.job(pool.context, index);
            pool.barrier();
        }
    }
};

/// A counter that threads can wait on.
const Event = struct {
    value: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),

    fn advance(event: *Event) void {
        _ = event.value.fetchAdd(1, .seq_cst);
        if (event.sleepers.load(.seq_cst) > 0) wakeAll(&event.value);
    }

    fn waitWhile(event: *Event, old: u32) void {
        const deadline = nowNs() + spin_ns;
        var spins: u32 = 0;
        while (event.value.load(.acquire) == old) {
            std.atomic.spinLoopHint();
            spins += 1;
            if (spins % 64 == 0 and nowNs() > deadline) {
                _ = event.sleepers.fetchAdd(1, .seq_cst);
                while (event.value.load(.seq_cst) == old) park(&event.value, old);
                _ = event.sleepers.fetchSub(1, .seq_cst);
                return;
            }
        }
    }
};

fn nowNs() u64 {
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
