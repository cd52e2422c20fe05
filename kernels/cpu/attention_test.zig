//! Tests of paged attention: against plain float64 arithmetic over awkward shapes, and bit for bit against
//! itself however the same rows are batched, chunked and spread over units.

const std = @import("std");
const attention = @import("attention.zig");
const amx = @import("attention_amx.zig");
const float8 = @import("float8.zig");
const plan = @import("attention_plan.zig");
const tiles = @import("tiles.zig");

const Allocator = std.mem.Allocator;

/// The sequences of one step, and everything needed to run it and to know what it must give.
const Case = struct {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block_size: u32,
    kv_type: attention.KvType,
    sliding_window: u32 = 0,
    soft_cap: f32 = 0,
    sinks: bool = false,
    split: bool = true,
    /// A value of the first KV head that is no finite number, its position and its dimension, in every sequence.
    stray: ?struct { position: usize, d: usize, value: f32 } = null,
    /// New tokens and keys (these included) of each sequence.
    tokens: []const u32,
    contexts: []const u32,
};

fn hash(values: anytype) f32 {
    var hasher = std.hash.Wyhash.init(7);
    inline for (values) |value| hasher.update(std.mem.asBytes(&@as(u64, value)));
    const bits = hasher.final();
    return @as(f32, @floatFromInt(@as(i64, @bitCast(bits)) >> 40)) / (1 << 23);
}

/// Every q, k and v is a function of (sequence identity, position, head, dimension), so that the same row can
/// be asked for in differently shaped batches. Keys repeat the query's size so that scores vary by several units.
fn element(kind: u32, sequence: u32, position: usize, head: usize, d: usize) f32 {
    return hash(.{ kind, sequence, position, head, d });
}

fn round(kv_type: attention.KvType, x: f32) f32 {
    return switch (kv_type) {
        .f32 => x,
        .f16 => @floatCast(@as(f16, @floatCast(x))),
        .bf16 => @bitCast(@as(u32, @bitCast(x)) & 0xffff0000),
        .f8e4m3 => float8.widen(float8.narrow(@as(@Vector(1, f32), .{x})))[0],
    };
}

fn store(kv_type: attention.KvType, cache: []u8, index: usize, x: f32) void {
    switch (kv_type) {
        .f32 => std.mem.writeInt(u32, cache[index * 4 ..][0..4], @bitCast(x), .little),
        .f16 => std.mem.writeInt(u16, cache[index * 2 ..][0..2], @bitCast(@as(f16, @floatCast(x))), .little),
        .bf16 => std.mem.writeInt(u16, cache[index * 2 ..][0..2], @truncate(@as(u32, @bitCast(x)) >> 16), .little),
        .f8e4m3 => cache[index] = float8.narrow(@as(@Vector(1, f32), .{x}))[0],
    }
}

/// Runs a case; sequence i has identity `identities[i]`. Returns out `[tokens, heads * head_dim]`.
fn run(arena: Allocator, case: Case, identities: []const u32) ![]f32 {
    const sequences = case.tokens.len;
    var tokens: usize = 0;
    var longest: usize = 0;
    for (case.tokens, case.contexts) |t, c| {
        tokens += t;
        longest = @max(longest, c);
    }
    const blocks_per_sequence = std.math.divCeil(usize, longest, case.block_size) catch unreachable;
    const block_count = sequences * blocks_per_sequence + 1;
    const element_bytes = case.kv_type.bytes();
    // Something else lies between the blocks.
    const block_stride = case.kv_heads * case.block_size * case.head_dim + 16;
    const cache_elements = block_count * block_stride;
    // Slots nobody wrote hold NaN in every type; so does what the kernel must overwrite.
    const k_cache = try arena.alloc(u8, cache_elements * element_bytes);
    const v_cache = try arena.alloc(u8, cache_elements * element_bytes);
    @memset(k_cache, 0xff);
    @memset(v_cache, 0xff);
    const tables = try arena.alloc(i32, sequences * blocks_per_sequence);
    @memset(tables, -1);
    const starts = try arena.alloc(i32, sequences + 1);
    const contexts = try arena.alloc(i32, sequences);
    const width = case.heads * case.head_dim;
    const q_stride = width + 24;
    const q = try arena.alloc(f32, tokens * q_stride);
    const out = try arena.alloc(f32, tokens * width);
    @memset(out, std.math.nan(f32));
    starts[0] = 0;
    for (0..sequences) |s| {
        starts[s + 1] = starts[s] + @as(i32, @intCast(case.tokens[s]));
        contexts[s] = @intCast(case.contexts[s]);
        for (0..std.math.divCeil(usize, case.contexts[s], case.block_size) catch unreachable) |b| {
            // Neighbouring blocks of a sequence lie far apart and backwards.
            tables[s * blocks_per_sequence + b] = @intCast(block_count - 1 - (b * sequences + s));
        }
        for (0..case.contexts[s]) |position| {
            const block: usize = @intCast(tables[s * blocks_per_sequence + position / case.block_size]);
            for (0..case.kv_heads) |head| for (0..case.head_dim) |d| {
                const index = block * block_stride + (head * case.block_size + position % case.block_size) * case.head_dim + d;
                store(case.kv_type, k_cache, index, element(1, identities[s], position, head, d));
                store(case.kv_type, v_cache, index, element(2, identities[s], position, head, d));
                if (case.stray) |stray| {
                    if (head == 0 and position == stray.position and d == stray.d) store(case.kv_type, v_cache, index, stray.value);
                }
            };
        }
        for (0..case.tokens[s]) |i| for (0..case.heads) |head| for (0..case.head_dim) |d| {
            const position = case.contexts[s] - case.tokens[s] + i;
            q[(@as(usize, @intCast(starts[s])) + i) * q_stride + head * case.head_dim + d] = 4 * element(0, identities[s], position, head, d);
        };
    }
    const sinks = try arena.alloc(f32, case.heads);
    for (sinks, 0..) |*sink, head| sink.* = 2 * element(3, 0, 0, head, 0);
    const workspace_floats = attention.workspaceFloats(tokens, sequences, case.heads, case.head_dim, longest);
    const arguments: attention.Arguments = .{
        .out = out.ptr,
        .out_stride = width,
        .q = q.ptr,
        .q_stride = q_stride,
        .k_cache = k_cache.ptr,
        .v_cache = v_cache.ptr,
        .block_bytes = block_stride * element_bytes,
        .kv_type = case.kv_type,
        .heads = case.heads,
        .kv_heads = case.kv_heads,
        .head_dim = case.head_dim,
        .block_size = case.block_size,
        .block_tables = tables.ptr,
        .blocks_per_sequence = blocks_per_sequence,
        .sequence_starts = starts.ptr,
        .context_lengths = contexts.ptr,
        .sequences = @intCast(sequences),
        .sinks = if (case.sinks) sinks.ptr else null,
        .scale = 1 / @sqrt(@as(f32, @floatFromInt(case.head_dim))),
        .sliding_window = case.sliding_window,
        .soft_cap = case.soft_cap,
        .workspace = try arena.alloc(f32, if (case.split) workspace_floats else 0),
        .layout = try .create(arena, sequences),
    };
    try std.testing.expectEqual(null, attention.prepare(&arguments, tokens, block_count));
    tiles.askPermission();
    const scratch = try arena.alignedAlloc(f32, .@"64", attention.scratchFloats(case.heads, case.kv_heads, case.head_dim));
    // Units in an odd order, with soiled memory: none may lean on another.
    @memset(arguments.workspace, std.math.nan(f32));
    const units = attention.unitCount(&arguments);
    for (0..units) |unit| {
        @memset(scratch, std.math.nan(f32));
        attention.runUnit(&arguments, (unit ^ 1) % units, scratch);
        if (units % 2 == 1 and unit == units - 1) attention.runUnit(&arguments, unit, scratch);
    }
    for (0..attention.combineUnitCount(&arguments)) |unit| attention.runCombineUnit(&arguments, unit, scratch);
    return out;
}

/// The largest error of a case relative to float64.
fn errorOf(arena: Allocator, case: Case, identities: []const u32) !f64 {
    const out = try run(arena, case, identities);
    var worst: f64 = 0;
    var first: usize = 0;
    const group = case.heads / case.kv_heads;
    const scale = 1 / @sqrt(@as(f64, @floatFromInt(case.head_dim)));
    const scores = try arena.alloc(f64, std.mem.max(u32, case.contexts));
    const sum = try arena.alloc(f64, case.head_dim);
    for (case.tokens, case.contexts, identities) |tokens, context, identity| {
        for (0..tokens) |i| for (0..case.heads) |head| {
            const position = context - tokens + i;
            const begin = if (case.sliding_window == 0) 0 else (position + 1) -| case.sliding_window;
            var largest: f64 = if (case.sinks) 2 * element(3, 0, 0, head, 0) else -std.math.inf(f64);
            for (begin..position + 1) |key| {
                var dot: f64 = 0;
                for (0..case.head_dim) |d| {
                    const k = round(case.kv_type, element(1, identity, key, head / group, d));
                    dot += 4 * @as(f64, element(0, identity, position, head, d)) * k;
                }
                dot *= scale;
                if (case.soft_cap != 0) dot = case.soft_cap * std.math.tanh(dot / case.soft_cap);
                scores[key] = dot;
                largest = @max(largest, dot);
            }
            var denominator: f64 = if (case.sinks) @exp(2 * element(3, 0, 0, head, 0) - largest) else 0;
            @memset(sum, 0);
            for (begin..position + 1) |key| {
                const p = @exp(scores[key] - largest);
                denominator += p;
                for (sum, 0..) |*value, d| value.* += p * round(case.kv_type, element(2, identity, key, head / group, d));
            }
            for (sum, 0..) |value, d| {
                const actual = out[(first + i) * case.heads * case.head_dim + head * case.head_dim + d];
                const difference = @abs(actual - value / denominator);
                if (!(difference <= worst)) worst = difference;
            }
        };
        first += tokens;
    }
    return worst;
}

fn byTiles(case: Case) bool {
    return switch (case.kv_type) {
        inline else => |kv| if (comptime amx.couldTake(kv)) amx.takes(kv, case.heads / case.kv_heads) else false,
    };
}

fn expectClose(case: Case) !void {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const identities = [_]u32{ 11, 12, 13, 14, 15, 16, 17, 18 };
    const worst = try errorOf(arena.allocator(), case, identities[0..case.tokens.len]);
    // Values lie in [-1, 1): this is a few units in the last place of a sum of that size, or, where products take
    // 16 bits of each number, of a score.
    const limit: f64 = if (byTiles(case)) 1.2e-5 else 3e-6;
    if (!(worst < limit)) {
        std.debug.print("error {e} in {any}\n", .{ worst, case });
        return error.TestUnexpectedResult;
    }
}

test "matches float64 for every cache type and head dimension" {
    for ([_]u32{ 8, 12, 16, 40, 64, 72, 80, 96, 128, 256 }, 0..) |head_dim, i| {
        for (std.enums.values(attention.KvType)) |kv_type| for ([_]u32{ 3, 7 }) |group| {
            // The larger group costs most of the time: each head dimension with a type or two.
            if (group == 7 and (i + @intFromEnum(kv_type)) % 2 == 0 and head_dim > 64) continue;
            try expectClose(.{
                .heads = 2 * group,
                .kv_heads = 2,
                .head_dim = head_dim,
                .block_size = 16,
                .kv_type = kv_type,
                .tokens = &.{ 1, 5, 23, 2 },
                .contexts = &.{ 33, 5, 23, 270 },
            });
        };
    }
}

test "matches float64 for every group size, with window, cap and sinks" {
    for ([_][2]u32{ .{ 9, 3 }, .{ 4, 4 }, .{ 4, 2 }, .{ 8, 1 }, .{ 7, 1 }, .{ 5, 1 }, .{ 71, 1 } }) |heads| {
        for (0..8) |features| {
            try expectClose(.{
                .heads = heads[0],
                .kv_heads = heads[1],
                .head_dim = 16,
                .block_size = 8,
                .kv_type = .f16,
                .sliding_window = if (features & 1 != 0) 19 else 0,
                .soft_cap = if (features & 2 != 0) 1.5 else 0,
                .sinks = features & 4 != 0,
                .tokens = &.{ 1, 40, 1, 3, 1 },
                .contexts = &.{ 1, 40, 16, 65, 300 },
            });
        }
    }
}

test "matches float64 around block and range borders" {
    for ([_]u32{ 31, 32, 33, 255, 256, 257, 511, 512, 513, 700 }) |context| {
        for ([_]u32{ 32, 7, 1024 }) |block_size| {
            try expectClose(.{
                .heads = 3,
                .kv_heads = 1,
                .head_dim = 32,
                .block_size = block_size,
                .kv_type = .bf16,
                .sliding_window = if (context % 2 == 0) 250 else 0,
                .tokens = &.{ 1, 30 },
                .contexts = &.{ context, context },
            });
        }
    }
}

test "a row is bit-identical alone, in a chunk, in a batch, split over ranges or not" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const allocator = arena.allocator();
    for ([_][2]u32{ .{ 9, 3 }, .{ 2, 2 }, .{ 4, 2 }, .{ 16, 2 } }) |heads| {
        for ([_]u32{ 24, 64 }) |head_dim| for ([_]u32{ 0, 70 }) |window| for ([_]attention.KvType{ .f32, .f16, .bf16, .f8e4m3 }) |kv_type| {
            if (kv_type == .bf16 and heads[0] != 16) continue;
            const context = 530;
            const base: Case = .{
                .heads = heads[0],
                .kv_heads = heads[1],
                .head_dim = head_dim,
                .block_size = 32,
                .kv_type = kv_type,
                .sliding_window = window,
                .soft_cap = if (window != 0) 5 else 0,
                .sinks = window != 0,
                .tokens = &.{context},
                .contexts = &.{context},
            };
            const width = heads[0] * head_dim;
            const whole = try run(allocator, base, &.{42});
            for ([_]u32{ 1, 2, 5, 37, 200 }) |chunk| {
                for ([_]u32{ 3, 256, 257, 300, 511, 530 }) |end| {
                    if (end < chunk) continue;
                    for ([_]bool{ false, true }) |split| {
                        var case = base;
                        case.split = split;
                        case.tokens = &.{ 1, chunk, 6 };
                        case.contexts = &.{ 290, end, 6 };
                        const mixed = try run(allocator, case, &.{ 7, 42, 9 });
                        const expected = whole[(end - chunk) * width .. end * width];
                        const actual = mixed[width .. (1 + chunk) * width];
                        try std.testing.expectEqualSlices(u32, @ptrCast(expected), @ptrCast(actual));
                    }
                }
            }
            _ = arena.reset(.retain_capacity);
        };
    }
}

test "a value that is infinite or NaN spoils its dimension of the rows that see it, and nothing else" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const head_dim = 40;
    for ([_][2]u32{ .{ 4, 2 }, .{ 14, 2 } }) |heads| {
        for ([_]attention.KvType{ .f32, .f16, .bf16, .f8e4m3 }) |kv_type| for ([_]u32{ 3, 35 }) |d| for ([_]u32{ 2, 300 }) |tokens| {
            const context = 300;
            const position: usize = if (tokens == 2) context - 1 else 277;
            var case: Case = .{
                .heads = heads[0],
                .kv_heads = heads[1],
                .head_dim = head_dim,
                .block_size = 32,
                .kv_type = kv_type,
                .sliding_window = 20,
                .tokens = &.{tokens},
                .contexts = &.{context},
            };
            const sound = try run(arena.allocator(), case, &.{42});
            // 8-bit floats have no infinity.
            const value = if (kv_type == .f8e4m3 or d == 3) std.math.nan(f32) else -std.math.inf(f32);
            case.stray = .{ .position = position, .d = d, .value = value };
            const spoilt = try run(arena.allocator(), case, &.{42});
            for (sound, spoilt, 0..) |before, after, index| {
                const row = context - tokens + index / (heads[0] * head_dim);
                const head = index / head_dim % heads[0];
                const sees = position <= row and row < position + 20 and head < heads[0] / heads[1];
                if (sees and index % head_dim == d) {
                    try std.testing.expect(!std.math.isFinite(after));
                } else {
                    try std.testing.expectEqual(@as(u32, @bitCast(before)), @as(u32, @bitCast(after)));
                }
            }
            _ = arena.reset(.retain_capacity);
        };
    }
}

test "inputs that would be read out of bounds are refused" {
    var starts = [_]i32{ 0, 1, 3 };
    var contexts = [_]i32{ 20, 40 };
    var tables = [_]i32{ 1, 2, -1, 3, 4, 5 };
    var nothing: [0]f32 = .{};
    var a: attention.Arguments = undefined;
    a.block_tables = &tables;
    a.blocks_per_sequence = 3;
    a.block_size = 16;
    a.sequence_starts = &starts;
    a.context_lengths = &contexts;
    a.sequences = 2;
    a.heads = 2;
    a.kv_heads = 1;
    a.head_dim = 8;
    a.sliding_window = 0;
    a.workspace = &nothing;
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    a.layout = try .create(arena.allocator(), 2);
    const expect = std.testing.expectEqual;
    try expect(null, attention.prepare(&a, 3, 6));
    try expect(.block_table, attention.prepare(&a, 3, 5).?);
    try expect(.sequence_starts, attention.prepare(&a, 4, 6).?);
    try expect(.sequence_starts, attention.prepare(&a, 2, 6).?);
    starts = .{ 0, 2, 1 };
    try expect(.sequence_starts, attention.prepare(&a, 1, 6).?);
    starts = .{ 1, 2, 3 };
    try expect(.sequence_starts, attention.prepare(&a, 3, 6).?);
    starts = .{ 0, 1, 3 };
    contexts = .{ 0, 40 };
    try expect(.context_length, attention.prepare(&a, 3, 6).?);
    contexts = .{ 20, 49 };
    try expect(.context_length, attention.prepare(&a, 3, 6).?);
    contexts = .{ 33, 40 };
    try expect(.block_table, attention.prepare(&a, 3, 6).?);
    // A block that the window has passed is never read.
    contexts = .{ 20, 40 };
    tables[3] = -7;
    try expect(.block_table, attention.prepare(&a, 3, 6).?);
    a.sliding_window = 16;
    try expect(null, attention.prepare(&a, 3, 6));
}

test "every unit of a step finds its sequence, in order, whatever is spread and whoever rests" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var random: std.Random.DefaultPrng = .init(11);
    var starts: [41]i32 = undefined;
    var contexts: [40]i32 = undefined;
    var a: attention.Arguments = undefined;
    a.heads = 6;
    a.kv_heads = 3;
    a.head_dim = 16;
    a.sliding_window = 0;
    a.sequence_starts = &starts;
    a.context_lengths = &contexts;
    a.layout = try .create(arena.allocator(), contexts.len);
    for (0..200) |round_index| {
        a.sequences = random.random().uintAtMost(u32, contexts.len);
        a.blocks_per_sequence = 0;
        starts[0] = 0;
        for (starts[0..a.sequences], starts[1 .. a.sequences + 1], contexts[0..a.sequences]) |start, *end, *context| {
            // Rests, decodes, or is a prompt of one tile or of several.
            const tokens = ([_]i32{ 0, 1, 1, 100, 300 })[random.random().uintLessThan(usize, 5)];
            end.* = start + tokens;
            context.* = tokens + random.random().uintAtMost(u16, 600);
        }
        // Enough for all, for some, for none.
        a.workspace = @as([*]f32, undefined)[0..([_]usize{ 1 << 30, 40_000, 0 })[round_index % 3]];
        plan.divide(&a);
        var unit: usize = 0;
        var combine_unit: usize = 0;
        for (0..a.sequences) |sequence| {
            if (starts[sequence] == starts[sequence + 1]) continue;
            const first = a.layout.find(&a, .first_unit, unit);
            for (0..first.slice.units(&a)) |expected| {
                const part = a.layout.find(&a, .first_unit, unit);
                try std.testing.expectEqual(sequence, part.slice.sequence);
                try std.testing.expectEqual(expected, part.unit);
                unit += 1;
            }
            if (first.slice.partials == null) continue;
            for (0..first.slice.tokens) |expected| {
                const part = a.layout.find(&a, .first_combine_unit, combine_unit);
                try std.testing.expectEqual(sequence, part.slice.sequence);
                try std.testing.expectEqual(expected, part.unit);
                combine_unit += 1;
            }
        }
        try std.testing.expectEqual(unit, attention.unitCount(&a));
        try std.testing.expectEqual(combine_unit, attention.combineUnitCount(&a));
        if (round_index % 3 == 2) try std.testing.expectEqual(0, combine_unit);
    }
}
