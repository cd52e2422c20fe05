//! Where the time of a program's steps goes, stage by stage, as its owner's thread sees it. Off unless asked for.

const std = @import("std");
const nowNs = @import("pool.zig").nowNs;

/// What the host reads; `src/backend/cpu-profile.ts` knows the layout.
pub const StageTime = extern struct {
    kind: u32,
    first_op: u32,
    last_op: u32,
    runs: u32,
    work_ns: u64,
    wait_ns: u64,

    comptime {
        std.debug.assert(@sizeOf(StageTime) == 32);
    }
};

/// A watch that a thread carries through the stages; one that is not measured has none.
pub const Watch = struct {
    times: ?[]StageTime,
    last_ns: u64 = 0,

    pub fn start(times: ?[]StageTime) Watch {
        return .{ .times = times, .last_ns = if (times == null) 0 else nowNs() };
    }

    pub fn worked(watch: *Watch, stage: usize) void {
        const times = watch.times orelse return;
        times[stage].work_ns += watch.lap();
    }

    pub fn waited(watch: *Watch, stage: usize) void {
        const times = watch.times orelse return;
        times[stage].wait_ns += watch.lap();
        times[stage].runs += 1;
    }

    fn lap(watch: *Watch) u64 {
        const now = nowNs();
        defer watch.last_ns = now;
        return now - watch.last_ns;
    }
};
