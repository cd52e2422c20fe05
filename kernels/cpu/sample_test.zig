//! Tests of sampling: against the definition written with a full sort in float64, the drawn frequencies, and
//! everything a hostile row can hold.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const philox = @import("philox.zig");
const sample = @import("sample.zig");

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const nan = std.math.nan(f32);
const inf = std.math.inf(f32);

const Adjustment = struct { token: i32, multiplier: f32 = 1, addend: f32 = 0 };

const Row = struct {
    temperature: f32 = 0,
    top_k: i32 = 0,
    top_p: f32 = 1,
    min_p: f32 = 0,
    seed: u64 = 0,
    position: u32 = 0,
    logprob_count: i32 = -1,
    forced_token: i32 = -1,
    adjustments: []const Adjustment = &.{},
};

const top_count_max = 8;

const Result = struct {
    status: sample.Status,
    token: i32,
    logprob: f32,
    top_tokens: [top_count_max]i32,
    top_logprobs: [top_count_max]f32,
};

/// Runs one row of its own; the logits are copied first.
fn run(allocator: std.mem.Allocator, original: []const f32, row: Row) !Result {
    const logits = try allocator.dupe(f32, original);
    defer allocator.free(logits);
    const n = row.adjustments.len;
    const tokens = try allocator.alloc(i32, n);
    defer allocator.free(tokens);
    const multipliers = try allocator.alloc(f32, n);
    defer allocator.free(multipliers);
    const addends = try allocator.alloc(f32, n);
    defer allocator.free(addends);
    for (row.adjustments, 0..) |adjustment, i| {
        tokens[i] = adjustment.token;
        multipliers[i] = adjustment.multiplier;
        addends[i] = adjustment.addend;
    }
    const starts = [_]i32{ 0, @intCast(n) };
    var result: Result = undefined;
    const parameters = encode(row);
    const arguments: sample.Arguments = .{
        .tokens = @ptrCast(&result.token),
        .logprobs = @ptrCast(&result.logprob),
        .top_tokens = &result.top_tokens,
        .top_logprobs = &result.top_logprobs,
        .top_count_max = top_count_max,
        .logits = logits.ptr,
        .logits_stride = logits.len,
        .vocabulary = @intCast(logits.len),
        .parameters = &parameters,
        .adjustment_starts = &starts,
        .adjustment_tokens = tokens.ptr,
        .adjustment_multipliers = multipliers.ptr,
        .adjustment_addends = addends.ptr,
        .adjustments_max = n,
    };
    const scratch = try allocator.alignedAlloc(u8, .@"64", sample.scratchBytes(logits.len));
    defer allocator.free(scratch);
    @memset(scratch, 0xff);
    result.status = sample.sampleRow(&arguments, 0, scratch);
    return result;
}

fn encode(row: Row) [ops.sampling.words]i32 {
    var words: [ops.sampling.words]i32 = @splat(0);
    words[ops.sampling.temperature] = @bitCast(row.temperature);
    words[ops.sampling.top_k] = row.top_k;
    words[ops.sampling.top_p] = @bitCast(row.top_p);
    words[ops.sampling.min_p] = @bitCast(row.min_p);
    words[ops.sampling.seed_low] = @bitCast(@as(u32, @truncate(row.seed)));
    words[ops.sampling.seed_high] = @bitCast(@as(u32, @truncate(row.seed >> 32)));
    words[ops.sampling.position] = @bitCast(row.position);
    words[ops.sampling.logprob_count] = row.logprob_count;
    words[ops.sampling.forced_token] = row.forced_token;
    return words;
}

/// The definition: sort, cut, cut, cut, draw.
fn reference(arena: std.mem.Allocator, logits: []const f32, row: Row) !usize {
    const order = try arena.alloc(usize, logits.len);
    for (order, 0..) |*id, i| id.* = i;
    std.sort.block(usize, order, logits, struct {
        fn before(l: []const f32, x: usize, y: usize) bool {
            return l[x] > l[y] or (l[x] == l[y] and x < y);
        }
    }.before);
    const weights = try arena.alloc(f64, logits.len);
    for (order, weights) |id, *w| w.* = @exp((@as(f64, logits[id]) - logits[order[0]]) / row.temperature);
    var kept = if (row.top_k == 0) logits.len else @min(logits.len, @as(usize, @intCast(row.top_k)));
    var mass: f64 = 0;
    for (weights[0..kept]) |w| mass += w;
    if (row.top_p < 1) {
        var before: f64 = 0;
        var count: usize = 0;
        while (count < kept and (count == 0 or before < row.top_p * mass)) : (count += 1) before += weights[count];
        kept = count;
    }
    while (kept > 1 and weights[kept - 1] < row.min_p) kept -= 1;
    mass = 0;
    for (weights[0..kept]) |w| mass += w;
    const target = philox.uniform(.{ @truncate(row.seed), @truncate(row.seed >> 32) }, row.position) * mass;
    var sum: f64 = 0;
    for (order[0..kept], weights[0..kept]) |id, w| {
        sum += w;
        if (sum > target) return id;
    }
    return order[kept - 1];
}

test "chooses what a full sort in float64 chooses" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const allocator = arena.allocator();
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    for (0..6000) |i| {
        _ = arena.reset(.retain_capacity);
        const vocab = ([_]usize{ 1, 2, 7, 33, 500, 3001 })[i % 6];
        const logits = try allocator.alloc(f32, vocab);
        const spread = ([_]f32{ 0, 1, 4, 12, 40 })[random.uintLessThan(usize, 5)];
        const coarse = random.boolean();
        for (logits) |*logit| {
            logit.* = random.floatNorm(f32) * spread;
            // Coarse logits tie often.
            if (coarse) logit.* = @round(logit.*);
        }
        const row: Row = .{
            .temperature = ([_]f32{ 0.1, 0.7, 1, 3, 100 })[random.uintLessThan(usize, 5)],
            .top_k = if (random.boolean()) 0 else random.intRangeAtMost(i32, 1, 80),
            .top_p = if (random.boolean()) 1 else random.float(f32),
            .min_p = if (random.boolean()) 0 else random.float(f32) * 0.3,
            .seed = random.int(u64),
            .position = random.int(u32),
        };
        const result = try run(allocator, logits, row);
        try expectEqual(.ok, result.status);
        const expected: i32 = @intCast(try reference(allocator, logits, row));
        if (result.token != expected) std.debug.print("vocab {d} spread {d} row {any}\n", .{ vocab, spread, row });
        try expectEqual(expected, result.token);
    }
}

test "drawn frequencies follow the distribution" {
    const logits = [_]f32{ 0, 1, 2, -1, 0.5 };
    var counts: [5]f64 = @splat(0);
    const draws = 40_000;
    for (0..draws) |i| {
        const result = try run(std.testing.allocator, &logits, .{ .temperature = 1, .seed = 99, .position = @intCast(i) });
        counts[@intCast(result.token)] += 1;
    }
    var total: f64 = 0;
    for (logits) |logit| total += @exp(@as(f64, logit));
    var chi: f64 = 0;
    for (logits, counts) |logit, count| {
        const expected = draws * @exp(@as(f64, logit)) / total;
        chi += (count - expected) * (count - expected) / expected;
    }
    try expect(chi < 18.47); // 4 degrees of freedom, 0.1 %
}

test "greedy takes the lowest of equal logits, wherever they lie" {
    const allocator = std.testing.allocator;
    const logits = try allocator.alloc(f32, 10_007);
    defer allocator.free(logits);
    for ([_]usize{ 0, 1, 15, 16, 4095, 4096, 10_000, 10_006 }) |first| {
        for (logits, 0..) |*logit, i| logit.* = -5 - @as(f32, @floatFromInt(i % 3));
        logits[first] = 2;
        logits[10_006] = 2;
        try expectEqual(@as(i32, @intCast(first)), (try run(allocator, logits, .{})).token);
    }
}

test "log-probabilities are of the unadjusted distribution, sorted, ties by id" {
    const logits = [_]f32{ 1, 3, -2, 3, 0, nan };
    const result = try run(std.testing.allocator, &logits, .{
        .logprob_count = 7,
        .adjustments = &.{ .{ .token = 1, .addend = -100 }, .{ .token = 3, .addend = -100 }, .{ .token = 0, .addend = 1 } },
    });
    try expectEqual(.ok, result.status);
    try expectEqual(0, result.token);
    var total: f64 = 0;
    for (logits[0..5]) |logit| total += @exp(@as(f64, logit));
    try std.testing.expectApproxEqAbs(1 - @log(total), result.logprob, 1e-6);
    try expectEqual([top_count_max]i32{ 1, 3, 0, 4, 2, -1, -1, -1 }, result.top_tokens);
    for (result.top_logprobs, result.top_tokens) |logprob, token| {
        const expected = if (token < 0) 0 else logits[@intCast(token)] - @log(total);
        try std.testing.expectApproxEqAbs(expected, logprob, 1e-6);
    }
}

test "log-probabilities of a whole vocabulary sum to one" {
    const allocator = std.testing.allocator;
    const logits = try allocator.alloc(f32, 32_003);
    defer allocator.free(logits);
    var prng = std.Random.DefaultPrng.init(3);
    for (logits) |*logit| logit.* = prng.random().floatNorm(f32) * 5;
    var total: f64 = 0;
    for (logits) |logit| total += @exp(@as(f64, logit));
    const result = try run(allocator, logits, .{ .logprob_count = 8, .forced_token = 31_999 });
    try expectEqual(31_999, result.token);
    try std.testing.expectApproxEqAbs(logits[31_999] - @log(total), result.logprob, 1e-5);
    for (1..8) |i| try expect(result.top_logprobs[i] <= result.top_logprobs[i - 1]);
    try std.testing.expectApproxEqAbs(std.mem.max(f32, logits) - @log(total), result.top_logprobs[0], 1e-5);
}

test "adjustments apply in order, to positive and negative logits" {
    const logits = [_]f32{ 2, -1, 1.5 };
    // 2 / 2 = 1; (-1) * 2 + 4 = 2; 1.5 twice: 1.5 / 1.5 - 3 = -2, then -2 * 2 + 4.5 = 0.5.
    const adjustments = [_]Adjustment{
        .{ .token = 0, .multiplier = 2 },
        .{ .token = 1, .multiplier = 2, .addend = 4 },
        .{ .token = 2, .multiplier = 1.5, .addend = -3 },
        .{ .token = 2, .multiplier = 2, .addend = 4.5 },
    };
    try expectEqual(1, (try run(std.testing.allocator, &logits, .{ .adjustments = &adjustments })).token);
    try expectEqual(0, (try run(std.testing.allocator, &logits, .{ .adjustments = adjustments[2..] })).token);
    try expectEqual(2, (try run(std.testing.allocator, &logits, .{ .adjustments = adjustments[3..] })).token);
}

test "NaN and infinite logits are handled, never chosen wrongly" {
    const allocator = std.testing.allocator;
    for ([_]f32{ 0, 1, 1e-30 }) |temperature| {
        const row: Row = .{ .temperature = temperature, .logprob_count = 2, .seed = 4 };
        try expectEqual(2, (try run(allocator, &.{ nan, -inf, 5, nan }, row)).token);
        const infinite = try run(allocator, &.{ 3, inf, nan, -inf }, row);
        try expectEqual(1, infinite.token);
        try expectEqual(0, infinite.logprob);
        for ([_][]const f32{ &.{ nan, nan, nan }, &.{ -inf, -inf }, &.{ -inf, nan } }) |logits| {
            const result = try run(allocator, logits, row);
            try expectEqual(.no_candidate, result.status);
            try expectEqual(0, result.token);
        }
    }
}

test "parameters out of range are refused and the row's outputs still written" {
    const logits = [_]f32{ 1, 2, 3 };
    const bad = [_]Row{
        .{ .temperature = nan }, .{ .temperature = -1 },  .{ .temperature = inf },                 .{ .top_k = -1 },
        .{ .top_p = nan },       .{ .top_p = -0.1 },      .{ .top_p = 1.5 },                       .{ .min_p = nan },
        .{ .min_p = -1 },        .{ .min_p = 2 },         .{ .logprob_count = -2 },                .{ .logprob_count = 9 },
        .{ .forced_token = 3 },  .{ .forced_token = -2 }, .{ .adjustments = &.{.{ .token = 3 }} }, .{ .adjustments = &.{.{ .token = -1 }} },
    };
    for (bad, 0..) |row, i| {
        const result = try run(std.testing.allocator, &logits, row);
        const expected: sample.Status = if (i < 12) .parameters else if (i < 14) .forced_token else .adjustment_token;
        try expectEqual(expected, result.status);
        try expectEqual(0, result.token);
        try expectEqual(-1, result.top_tokens[0]);
    }
}

test "adjustment lists that are not in order are refused" {
    const allocator = std.testing.allocator;
    const scratch = try allocator.alignedAlloc(u8, .@"64", sample.scratchBytes(3));
    defer allocator.free(scratch);
    for ([_][2]i32{ .{ -1, 0 }, .{ 1, 0 }, .{ 0, 3 }, .{ 3, 3 }, .{ std.math.minInt(i32), std.math.maxInt(i32) } }) |starts| {
        var logits = [_]f32{ 1, 2, 3 };
        var token: i32 = 5;
        var logprob: f32 = 5;
        const parameters = encode(.{});
        const tokens = [_]i32{ 0, 1 };
        const floats = [_]f32{ 1, 1 };
        var top_token: [1]i32 = .{7};
        var top_logprob: [1]f32 = .{7};
        const arguments: sample.Arguments = .{
            .tokens = @ptrCast(&token),
            .logprobs = @ptrCast(&logprob),
            .top_tokens = &top_token,
            .top_logprobs = &top_logprob,
            .top_count_max = 0,
            .logits = &logits,
            .logits_stride = 3,
            .vocabulary = 3,
            .parameters = &parameters,
            .adjustment_starts = &starts,
            .adjustment_tokens = &tokens,
            .adjustment_multipliers = &floats,
            .adjustment_addends = &floats,
            .adjustments_max = 2,
        };
        try expectEqual(.adjustment_starts, sample.sampleRow(&arguments, 0, scratch));
        try expectEqual(7, top_token[0]);
    }
}
