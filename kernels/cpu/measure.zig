//! What this machine can do at best, measured with the instructions that the kernels use: bytes read from memory,
//! and arithmetic between registers, by several threads at once. The bounds that speeds are judged by; no program
//! needs it.
//!
//! Time is cut into windows. All threads of a window begin together and each counts what it did until its end, so
//! the rates of a window add up; the best window is the peak.

const std = @import("std");
const builtin = @import("builtin");
const math = @import("math.zig");
const pools = @import("pool.zig");
const simd = @import("simd.zig");
const status = @import("../abi/status.zig");
const tiles = @import("tiles.zig");
const Buffer = @import("memory.zig").Buffer;

/// `src/backend/measure.ts` has the same numbers.
pub const Kind = enum(u32) {
    /// Bytes per second read from memory of a given size, over and over.
    read = 0,
    /// f32 operations per second: a multiply-add is two.
    f32_multiply_add = 1,
    /// The same of 8-bit integers with the processor's vectors.
    int8_dot = 2,
    /// The same with its tile unit.
    int8_tile = 3,
    /// The same of bfloat16.
    bf16_tile = 4,
};

/// Per second.
pub const Rates = extern struct { best: f64, median: f64 };

const windows = 10;
const window_ns_min = 1_000_000;
/// A thread looks at the clock after so many bytes, and after so many operations as take about as long.
const chunk_bytes = 1 << 20;
const chunk_rounds = 2048;
/// A thread reads at so many places of its chunk in turn; one alone does not keep the memory busy.
const streams = 4;
const line_bytes = 256;

/// Measures one of `Kind` for about `seconds`. `bytes` is the size of the memory that is read, of no meaning to the
/// others.
export fn mistral_measure(threads: u32, kind: u32, bytes: u64, seconds: f64, out: *Rates) i32 {
    out.* = run(threads, kind, bytes, seconds) catch |failure| return @intFromEnum(status.statusOf(failure));
    return @intFromEnum(status.Status.ok);
}

fn run(threads: u32, kind: u32, bytes: u64, seconds: f64) status.Error!Rates {
    if (threads == 0 or threads > pools.threads_max)
        return status.fail(error.InvalidArgument, "{d} threads; 1 to {d} are possible", .{ threads, pools.threads_max });
    const known = std.enums.fromInt(Kind, kind) orelse
        return status.fail(error.InvalidArgument, "there is no measurement {d}", .{kind});
    // Before the threads start, which inherit it.
    tiles.askPermission();
    var pool: pools.Pool = undefined;
    try pool.open(threads);
    defer pool.close();
    return measure(&pool, known, bytes, seconds);
}

fn measure(pool: *pools.Pool, kind: Kind, bytes: u64, seconds: f64) status.Error!Rates {
    if (!(seconds > 0 and seconds <= 60))
        return status.fail(error.InvalidArgument, "cannot measure for {d} seconds; 0 to 60 are possible", .{seconds});
    if ((kind == .int8_tile or kind == .bf16_tile) and !tiles.available())
        return status.fail(error.InvalidArgument, "this processor or system has no tile unit", .{});
    const slice_bytes = bytes / pool.count / (streams * line_bytes) * (streams * line_bytes);
    if (kind == .read and slice_bytes == 0)
        return status.fail(error.InvalidArgument, "{d} bytes are too few to read with {d} threads", .{ bytes, pool.count });

    var buffer = if (kind == .read) try Buffer.create(slice_bytes * pool.count) else null;
    defer if (buffer) |*memory| memory.free();
    if (buffer) |memory| useLargePages(memory);
    var window: Window = .{
        .kind = kind,
        .memory = if (buffer) |memory| memory.memory else undefined,
        .slice_bytes = slice_bytes,
        .threads = pool.count,
        .length_ns = @max(window_ns_min, @as(u64, @intFromFloat(seconds * 1e9 / windows))),
    };
    var rates: [windows]f64 = undefined;
    for (&rates) |*rate| {
        window.arrived.store(0, .seq_cst);
        window.left.store(0, .seq_cst);
        pool.run(Window.enter, &window);
        rate.* = 0;
        for (window.rates[0..pool.count]) |own| rate.* += own;
        window.touched = true;
    }
    // The window lies on this stack.
    pool.quiesce();
    std.mem.sort(f64, &rates, {}, std.sort.asc(f64));
    return .{ .best = rates[windows - 1], .median = (rates[windows / 2 - 1] + rates[windows / 2]) / 2 };
}

/// Fewer entries of the page table to look up; where the system does not have them nothing is lost.
fn useLargePages(buffer: Buffer) void {
    if (builtin.os.tag != .linux) return;
    const pages = buffer.mapping orelse return;
    _ = std.c.madvise(@ptrCast(pages.ptr), pages.len, std.c.MADV.HUGEPAGE);
}

const Window = struct {
    kind: Kind,
    memory: [*]u8,
    slice_bytes: usize,
    threads: u32,
    length_ns: u64,
    /// Whether the pages exist: before they are written, all are the same page of zeros.
    touched: bool = false,
    arrived: std.atomic.Value(u32) = .init(0),
    left: std.atomic.Value(u32) = .init(0),
    rates: [pools.threads_max]f64 = undefined,

    fn enter(context: *anyopaque, thread: u32) void {
        const window: *Window = @ptrCast(@alignCast(context));
        const slice = window.memory[window.slice_bytes * thread ..][0..if (window.kind == .read) window.slice_bytes else 0];
        if (!window.touched) @memset(slice, @truncate(thread + 1));
        _ = window.arrived.fetchAdd(1, .seq_cst);
        while (window.arrived.load(.seq_cst) < window.threads) std.Thread.yield() catch {};
        window.rates[thread] = switch (window.kind) {
            .read => rateOf(Reading, .{ .slice = slice }, window.length_ns),
            .f32_multiply_add => rateOf(MultiplyAdd, .{}, window.length_ns),
            .int8_dot => rateOf(Dot, .{}, window.length_ns),
            .int8_tile => if (simd.has_amx) rateOf(Tile(.int8), .{}, window.length_ns) else unreachable,
            .bf16_tile => if (simd.has_bf16_tiles) rateOf(Tile(.bf16), .{}, window.length_ns) else unreachable,
        };
        _ = window.left.fetchAdd(1, .seq_cst);
        // The owner's return ends the window, so it comes last.
        if (thread == 0) while (window.left.load(.seq_cst) < window.threads) std.Thread.yield() catch {};
    }
};

/// Units per second that `work.chunk()` reports, from now until the time is over.
fn rateOf(comptime Work: type, initial: Work, length_ns: u64) f64 {
    var work = initial;
    work.begin();
    defer work.end();
    var units: u64 = 0;
    const begin = pools.nowNs();
    while (true) {
        units += work.chunk();
        const elapsed = pools.nowNs() - begin;
        if (elapsed >= length_ns) return @as(f64, @floatFromInt(units)) * 1e9 / @as(f64, @floatFromInt(elapsed));
    }
}

const Reading = struct {
    slice: []const u8,
    at: usize = 0,

    fn begin(_: *Reading) void {}
    fn end(_: *Reading) void {}

    fn chunk(work: *Reading) u64 {
        const V = @Vector(64, u8);
        const size = @min(chunk_bytes, work.slice.len - work.at);
        const stride = size / streams;
        const first = work.slice.ptr + work.at;
        var sums: [line_bytes / 64]V = @splat(@splat(0));
        var offset: usize = 0;
        while (offset < stride) : (offset += line_bytes) {
            inline for (0..streams) |stream| {
                const line: *const [line_bytes / 64]V = @ptrCast(@alignCast(first + stream * stride + offset));
                inline for (&sums, line) |*sum, value| sum.* ^= value;
            }
        }
        std.mem.doNotOptimizeAway(sums);
        work.at += size;
        if (work.at == work.slice.len) work.at = 0;
        return size;
    }
};

/// As many sums side by side as hide the latency of an instruction and leave registers for its operands.
const MultiplyAdd = struct {
    const sums = 12;
    factor: math.F = @splat(0.75),
    addend: math.F = @splat(0.25),

    fn begin(_: *MultiplyAdd) void {}
    fn end(_: *MultiplyAdd) void {}

    fn chunk(work: *MultiplyAdd) u64 {
        const factor: *volatile math.F = &work.factor;
        const addend: *volatile math.F = &work.addend;
        const a = factor.*;
        const b = addend.*;
        var acc: [sums]math.F = undefined;
        inline for (&acc, 0..) |*sum, index| sum.* = @splat(@floatFromInt(index));
        for (0..chunk_rounds) |_| {
            inline for (&acc) |*sum| sum.* = math.mulAdd(sum.*, a, b);
        }
        std.mem.doNotOptimizeAway(acc);
        return chunk_rounds * sums * math.lanes * 2;
    }
};

const Dot = struct {
    const sums = if (simd.has_avx512) 12 else if (simd.has_avx2 or builtin.cpu.arch == .aarch64) 4 else 2;
    u: simd.U8 = @splat(3),
    s: simd.I8 = @splat(-5),

    fn begin(_: *Dot) void {}
    fn end(_: *Dot) void {}

    fn chunk(work: *Dot) u64 {
        const left: *volatile simd.U8 = &work.u;
        const right: *volatile simd.I8 = &work.s;
        var acc: [sums]simd.I32 = @splat(@splat(0));
        for (0..chunk_rounds / 8) |_| {
            // Read anew, or the compiler adds the same number once, times the rounds.
            const u = left.*;
            const s = right.*;
            inline for (0..8) |_| {
                inline for (&acc) |*sum| sum.* = simd.dot(sum.*, u, s);
            }
        }
        std.mem.doNotOptimizeAway(acc);
        return chunk_rounds * sums * simd.group_elements * 2;
    }
};

/// Sixteen rows of 64 bytes times sixteen columns, into four tiles in turn.
fn Tile(comptime element: enum { int8, bf16 }) type {
    return struct {
        const row_elements = if (element == .int8) 64 else 32;

        fn begin(_: *@This()) void {
            var configuration: tiles.Configuration = .{};
            for (0..8) |tile| configuration.set(tile, 16, 64);
            configuration.load();
        }

        fn end(_: *@This()) void {
            tiles.release();
        }

        fn chunk(_: *@This()) u64 {
            const add = if (element == .int8) tiles.addBytes else tiles.addBf16;
            for (0..chunk_rounds) |_| {
                add(0, 4, 6);
                add(1, 4, 7);
                add(2, 5, 6);
                add(3, 5, 7);
            }
            return chunk_rounds * 4 * 16 * 16 * row_elements * 2;
        }
    };
}
