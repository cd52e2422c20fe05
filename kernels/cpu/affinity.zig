//! Which processors a device's threads run on. Linux takes such wishes; other systems are told apart by `supported`.

const std = @import("std");
const builtin = @import("builtin");
const status = @import("../abi/status.zig");

const linux = std.os.linux;

pub const supported = builtin.os.tag == .linux;

/// As many as any kernel is built for.
pub const processors_max = 8192;

extern "c" fn pthread_setaffinity_np(thread: std.c.pthread_t, size: usize, set: *const Set) c_int;

pub const Set = extern struct {
    words: [processors_max / 64]u64 = @splat(0),

    pub fn add(set: *Set, processor: u32) void {
        set.words[processor / 64] |= @as(u64, 1) << @intCast(processor % 64);
    }

    pub fn has(set: *const Set, processor: u32) bool {
        return set.words[processor / 64] >> @intCast(processor % 64) & 1 == 1;
    }

    pub fn same(set: *const Set, other: *const Set) bool {
        return std.mem.eql(u64, &set.words, &other.words);
    }

    /// `0-3,8`, cut where the buffer ends.
    pub fn write(set: *const Set, buffer: []u8) []const u8 {
        var writer: std.Io.Writer = .fixed(buffer);
        var processor: u32 = 0;
        while (processor < processors_max) : (processor += 1) {
            if (!set.has(processor)) continue;
            const first = processor;
            while (processor + 1 < processors_max and set.has(processor + 1)) processor += 1;
            if (writer.end > 0) writer.writeByte(',') catch break;
            writer.print("{d}", .{first}) catch break;
            if (processor > first) writer.print("-{d}", .{processor}) catch break;
        }
        return writer.buffered();
    }
};

/// The processors of one of several threads: dealt out like cards, so that none is left over and two threads share
/// one only when there are more threads than processors.
pub fn deal(processors: []const u32, threads: u32, thread: u32) Set {
    var set: Set = .{};
    if (processors.len <= threads) {
        set.add(processors[thread % processors.len]);
        return set;
    }
    var index: usize = thread;
    while (index < processors.len) : (index += threads) set.add(processors[index]);
    return set;
}

/// Where the calling thread may run.
pub fn current() status.Error!Set {
    var set: Set = .{};
    const result = linux.syscall3(.sched_getaffinity, 0, @sizeOf(Set), @intFromPtr(&set));
    return switch (linux.errno(result)) {
        .SUCCESS => set,
        else => |failure| status.fail(error.System, "the system does not tell the processors of a thread: {s}", .{@tagName(failure)}),
    };
}

/// Lets the calling thread run on these alone, as far as the system grants them. False when it grants none.
pub fn confine(set: *const Set) bool {
    return linux.errno(linux.syscall3(.sched_setaffinity, 0, @sizeOf(Set), @intFromPtr(set))) == .SUCCESS;
}

/// The same for another thread.
pub fn confineThread(thread: std.Thread, set: *const Set) status.Error!void {
    const result = pthread_setaffinity_np(thread.getHandle(), @sizeOf(Set), set);
    if (result != 0) {
        const failure: linux.E = @enumFromInt(result);
        return status.fail(error.System, "the system does not pin a thread: {s}", .{@tagName(failure)});
    }
}

/// Lets the calling thread run on these processors alone. Fails, with everything as before, when one of them cannot
/// be had.
pub fn confineToAll(processors: []const u32) status.Error!Set {
    const before = try current();
    var wanted: Set = .{};
    for (processors) |processor| {
        if (processor >= processors_max) return refuse(processor, &before);
        wanted.add(processor);
    }
    // The system takes a list of which it grants only a part, so what it granted is read back.
    const granted = if (confine(&wanted)) try current() else Set{};
    if (granted.same(&wanted)) return wanted;
    for (processors) |processor| {
        if (!granted.has(processor)) return refuse(processor, &before);
    }
    unreachable;
}

fn refuse(processor: u32, before: *const Set) status.Error {
    // What a process may use is more than what its threads use at the moment: all that is granted when all is wanted.
    const everything: Set = .{ .words = @splat(std.math.maxInt(u64)) };
    const possible = if (confine(&everything)) try current() else before.*;
    _ = confine(before);
    var buffer: [256]u8 = undefined;
    const list = possible.write(&buffer);
    var path: [64]u8 = undefined;
    const name = std.fmt.bufPrintZ(&path, "/sys/devices/system/cpu/cpu{d}", .{processor}) catch unreachable;
    if (std.c.access(name, 0) != 0)
        return status.fail(error.InvalidArgument, "threads cannot be pinned to processor {d}, which does not exist; this process may use {s}", .{ processor, list });
    return status.fail(error.InvalidArgument, "threads cannot be pinned to processor {d}, which this process may not use or which is switched off; it may use {s}", .{ processor, list });
}
