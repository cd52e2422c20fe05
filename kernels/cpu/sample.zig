//! Chooses a token for one row of logits (op `sample`): adjustments, temperature, top-k, top-p, min-p and the
//! draw; log-probabilities of the model's own distribution.
//!
//! The order of candidates is by logit, greatest first, ties by token id. All filters keep a prefix of that
//! order, so nothing is ever sorted: a prefix is found by bisecting the candidates on their keys. A NaN logit is
//! never chosen and weighs nothing.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const math = @import("math.zig");
const philox = @import("philox.zig");

const parameter = ops.sampling;
const lanes = math.lanes;
const F = math.F;
const infinity = std.math.inf(f32);

pub const Arguments = struct {
    /// `[rows]`
    tokens: [*]i32,
    /// `[rows]`
    logprobs: [*]f32,
    /// `[rows, top_count_max]`
    top_tokens: [*]i32,
    top_logprobs: [*]f32,
    top_count_max: u32,
    /// `[rows, vocabulary]`, adjusted in place
    logits: [*]f32,
    /// Elements from one row to the next.
    logits_stride: usize,
    vocabulary: u32,
    /// `[rows, sampling.words]`
    parameters: [*]const i32,
    /// `[rows + 1]`
    adjustment_starts: [*]const i32,
    /// `[adjustments_max]`
    adjustment_tokens: [*]const i32,
    adjustment_multipliers: [*]const f32,
    adjustment_addends: [*]const f32,
    adjustments_max: usize,
};

pub const Status = enum {
    ok,
    /// A sampling parameter is NaN or out of its range.
    parameters,
    /// The row's adjustments do not lie in order inside the list.
    adjustment_starts,
    /// An adjustment names a token outside the vocabulary.
    adjustment_token,
    /// The forced token is outside the vocabulary.
    forced_token,
    /// Every logit is NaN or minus infinity: the model overflowed, or the adjustments forbid all tokens. The
    /// row's token is 0.
    no_candidate,

    pub fn message(status: Status) []const u8 {
        return switch (status) {
            .ok => "ok",
            .parameters => "a sampling parameter is out of its range",
            .adjustment_starts => "adjustment_starts does not rise within the adjustment list",
            .adjustment_token => "an adjusted token is outside the vocabulary",
            .forced_token => "the forced token is outside the vocabulary",
            .no_candidate => "no token is left to choose: every logit is NaN or minus infinity",
        };
    }
};

/// Bytes of scratch memory that `sampleRow` needs, aligned to 64.
pub fn scratchBytes(vocab: usize) usize {
    return Scratch.bytes(vocab);
}

const Scratch = struct {
    /// The model's own logits when adjustments would hide them; later the weights relative to the largest.
    own: []f32,
    weights: []f32,
    candidates: []Candidate,

    fn bytes(vocab: usize) usize {
        return paddedCount(vocab) * (2 * @sizeOf(f32) + @sizeOf(Candidate));
    }

    fn init(memory: []u8, vocab: usize) Scratch {
        std.debug.assert(memory.len >= bytes(vocab));
        const count = paddedCount(vocab);
        const floats: [*]f32 = @ptrCast(@alignCast(memory.ptr));
        return .{
            .own = floats[0..vocab],
            .weights = floats[count..][0..vocab],
            .candidates = @as([*]Candidate, @ptrCast(@alignCast(floats + 2 * count)))[0..vocab],
        };
    }

    fn paddedCount(vocab: usize) usize {
        return std.mem.alignForward(usize, vocab, 16);
    }
};

/// A token in the order of candidates: ascending keys are descending logits, ties by ascending id.
const Candidate = u64;

fn candidateOf(logit: f32, id: usize) Candidate {
    const bits: u32 = @bitCast(logit + 0.0); // -0 and 0 tie
    const rising = if (bits >> 31 != 0) ~bits else bits | 0x80000000;
    return @as(u64, ~rising) << 32 | id;
}

fn idOf(candidate: Candidate) u32 {
    return @truncate(candidate);
}

const Parameters = struct {
    temperature: f32,
    top_k: i32,
    top_p: f32,
    min_p: f32,
    seed: [2]u32,
    position: u32,
    logprob_count: i32,
    forced_token: i32,

    fn of(a: *const Arguments, row: usize) Parameters {
        const words = a.parameters[row * parameter.words ..][0..parameter.words];
        return .{
            .temperature = @bitCast(words[parameter.temperature]),
            .top_k = words[parameter.top_k],
            .top_p = @bitCast(words[parameter.top_p]),
            .min_p = @bitCast(words[parameter.min_p]),
            .seed = .{ @bitCast(words[parameter.seed_low]), @bitCast(words[parameter.seed_high]) },
            .position = @bitCast(words[parameter.position]),
            .logprob_count = words[parameter.logprob_count],
            .forced_token = words[parameter.forced_token],
        };
    }

    /// Written so that a NaN fails every comparison.
    fn valid(p: Parameters, top_count_max: u32) bool {
        return p.temperature >= 0 and p.temperature < infinity and p.top_k >= 0 and p.top_p >= 0 and p.top_p <= 1 and
            p.min_p >= 0 and p.min_p <= 1 and p.logprob_count >= -1 and p.logprob_count <= top_count_max;
    }
};

/// Handles one row; rows are independent of each other. `scratch` belongs to the calling thread.
/// Whatever the status, every output of the row is written and nothing else.
pub fn sampleRow(a: *const Arguments, row: usize, memory: []align(64) u8) Status {
    a.tokens[row] = 0;
    a.logprobs[row] = 0;
    const top_tokens = a.top_tokens[row * a.top_count_max ..][0..a.top_count_max];
    const top_logprobs = a.top_logprobs[row * a.top_count_max ..][0..a.top_count_max];
    @memset(top_tokens, -1);
    @memset(top_logprobs, 0);
    const p = Parameters.of(a, row);
    if (!p.valid(a.top_count_max)) return .parameters;
    if (p.forced_token < -1 or p.forced_token >= a.vocabulary) return .forced_token;
    const adjustments = Adjustments.of(a, row) catch |err| return switch (err) {
        error.Starts => .adjustment_starts,
        error.Token => .adjustment_token,
    };
    const scratch: Scratch = .init(memory, a.vocabulary);
    const logits = (a.logits + row * a.logits_stride)[0..a.vocabulary];
    const wants_logprobs = p.logprob_count >= 0;

    var own: []const f32 = logits;
    var normalizer: Normalizer = undefined;
    if (wants_logprobs) {
        normalizer = .of(logits);
        const count: usize = @intCast(p.logprob_count);
        const found = findTop(logits, top_tokens[0..count], top_logprobs[0..count]);
        for (top_logprobs[0..found]) |*value| value.* = normalizer.logprob(value.*);
        if (adjustments.tokens.len > 0 and p.forced_token < 0) {
            @memcpy(scratch.own, logits);
            own = scratch.own;
        }
    }
    const token: usize = if (p.forced_token >= 0) @intCast(p.forced_token) else token: {
        adjustments.apply(logits);
        break :token choose(p, logits, scratch) orelse return .no_candidate;
    };
    a.tokens[row] = @intCast(token);
    if (wants_logprobs) a.logprobs[row] = normalizer.logprob(own[token]);
    return .ok;
}

/// The changes to a row's logits, checked.
const Adjustments = struct {
    tokens: []const i32,
    multipliers: []const f32,
    addends: []const f32,

    fn of(a: *const Arguments, row: usize) error{ Starts, Token }!Adjustments {
        const begin = a.adjustment_starts[row];
        const end = a.adjustment_starts[row + 1];
        if (begin < 0 or begin > end or end > a.adjustments_max) return error.Starts;
        const first: usize = @intCast(begin);
        const last: usize = @intCast(end);
        for (a.adjustment_tokens[first..last]) |token| {
            if (token < 0 or token >= a.vocabulary) return error.Token;
        }
        return .{
            .tokens = a.adjustment_tokens[first..last],
            .multipliers = a.adjustment_multipliers[first..last],
            .addends = a.adjustment_addends[first..last],
        };
    }

    fn apply(adjustments: Adjustments, logits: []f32) void {
        for (adjustments.tokens, adjustments.multipliers, adjustments.addends) |token, multiplier, addend| {
            const logit = &logits[@intCast(token)];
            logit.* = (if (logit.* > 0) logit.* / multiplier else logit.* * multiplier) + addend;
        }
    }
};

fn choose(p: Parameters, logits: []const f32, scratch: Scratch) ?usize {
    const best = argmax(logits) orelse return null;
    if (p.temperature == 0 or p.top_k == 1) return best;
    return draw(p, logits, logits[best], scratch);
}

/// Index of the greatest logit, the lowest of equals; null when none is above minus infinity.
fn argmax(logits: []const f32) ?usize {
    // The winning run is remembered and looked through once more, so that the first pass only compares.
    const run = 4096;
    var best: f32 = -infinity;
    var best_run: usize = 0;
    var begin: usize = 0;
    while (begin < logits.len) : (begin += run) {
        const largest = maximum(logits[begin..@min(begin + run, logits.len)]);
        if (largest > best) {
            best = largest;
            best_run = begin;
        }
    }
    if (best == -infinity) return null;
    return best_run + std.mem.indexOfScalar(f32, logits[best_run..], best).?;
}

fn maximum(values: []const f32) f32 {
    var best: [4]F = @splat(@splat(-infinity));
    var i: usize = 0;
    while (i + 4 * lanes <= values.len) : (i += 4 * lanes) {
        inline for (0..4) |part| best[part] = math.greater(best[part], values[i + part * lanes ..][0..lanes].*);
    }
    var largest = math.max(math.greater(math.greater(best[0], best[1]), math.greater(best[2], best[3])));
    for (values[i..]) |value| largest = if (value > largest) value else largest;
    return largest;
}

/// Turns logits into natural log-probabilities.
const Normalizer = struct {
    largest: f32,
    /// Natural logarithm of the sum of e^(logit - largest).
    log_sum: f64,

    fn of(logits: []const f32) Normalizer {
        const largest = maximum(logits);
        const total = weigh(logits, largest, 1, null).total;
        return .{ .largest = largest, .log_sum = if (total > 0) @log(total) else 0 };
    }

    fn logprob(normalizer: Normalizer, logit: f32) f32 {
        if (logit == normalizer.largest) return @floatCast(-normalizer.log_sum);
        return @floatCast(@as(f64, logit) - normalizer.largest - normalizer.log_sum);
    }
};

/// Weights at or above each of these, relative to the largest, are summed apart before any candidate is gathered: most of
/// a vocabulary never is. Powers of e: 4, 8 and 16 units of logit below the largest.
const thresholds = [_]f32{ 1.8315639e-2, 3.3546263e-4, 1.1253517e-7 };

const Masses = struct {
    total: f64 = 0,
    /// Sum and number of the weights at or above each threshold.
    above: [thresholds.len]f64 = @splat(0),
    count: [thresholds.len]usize = @splat(0),
};

/// Weights `e^((logit - largest) * inverse_temperature)`, 0 for NaN, and their sums in a fixed order: f32 lanes
/// over runs of 1024, runs in f64. Stores the weights and tells them by threshold only if `out` is given.
fn weigh(logits: []const f32, largest: f32, inverse_temperature: f32, out: ?[]f32) Masses {
    var masses: Masses = .{};
    var begin: usize = 0;
    const run = 1024;
    while (begin < logits.len) : (begin += run) {
        const end = @min(begin + run, logits.len);
        var total: F = @splat(0);
        var above: [thresholds.len]F = @splat(@splat(0));
        var count: [thresholds.len]@Vector(lanes, u32) = @splat(@splat(0));
        var i = begin;
        while (i < end) : (i += lanes) {
            var logit: F = undefined;
            if (i + lanes <= end) {
                logit = logits[i..][0..lanes].*;
            } else {
                var rest: [lanes]f32 = @splat(-infinity);
                @memcpy(rest[0 .. end - i], logits[i..end]);
                logit = rest;
            }
            const w = weight(logit, @splat(largest), @splat(inverse_temperature));
            total += w;
            const weights = out orelse continue;
            inline for (thresholds, 0..) |threshold, t| {
                const counts = w >= @as(F, @splat(threshold));
                above[t] += @select(f32, counts, w, @as(F, @splat(0)));
                count[t] += @intFromBool(counts);
            }
            if (i + lanes <= end) weights[i..][0..lanes].* = w else {
                const rest: [lanes]f32 = w;
                @memcpy(weights[i..end], rest[0 .. end - i]);
            }
        }
        masses.total += math.sum(total);
        inline for (0..thresholds.len) |t| {
            masses.above[t] += math.sum(above[t]);
            masses.count[t] += @reduce(.Add, count[t]);
        }
    }
    return masses;
}

inline fn weight(logit: F, largest: F, inverse_temperature: F) F {
    const zero: F = @splat(0);
    // Equal to the largest is weight 1, even when both are infinite.
    const distance = @select(f32, logit == largest, zero, (logit - largest) * inverse_temperature);
    const w = math.exp(distance);
    return @select(f32, w == w, w, zero);
}

/// The `ids.len` greatest logits in order, ties by id; NaN is left out. Returns how many there are.
fn findTop(logits: []const f32, ids: []i32, values: []f32) usize {
    if (ids.len == 0) return 0;
    var found: usize = 0;
    var bar = -infinity;
    var i: usize = 0;
    while (i < logits.len) : (i += lanes) {
        if (i + lanes <= logits.len and found == ids.len) {
            const logit: F = logits[i..][0..lanes].*;
            if (!@reduce(.Or, logit > @as(F, @splat(bar)))) continue;
        }
        for (logits[i..@min(i + lanes, logits.len)], i..) |logit, id| {
            if (std.math.isNan(logit)) continue;
            if (found == ids.len) {
                if (!(logit > bar)) continue;
            } else found += 1;
            var at = found - 1;
            while (at > 0 and values[at - 1] < logit) : (at -= 1) {
                values[at] = values[at - 1];
                ids[at] = ids[at - 1];
            }
            values[at] = logit;
            ids[at] = @intCast(id);
            bar = values[found - 1];
        }
    }
    return found;
}

/// Draws a token from what the filters leave. `largest` is above minus infinity.
fn draw(p: Parameters, logits: []const f32, largest: f32, scratch: Scratch) usize {
    const weights = scratch.weights;
    // A tiny temperature has no finite inverse; the largest such inverse sends every other weight to 0 as well.
    const inverse_temperature = @min(1 / p.temperature, std.math.floatMax(f32));
    const masses = weigh(logits, largest, inverse_temperature, weights);
    const chance = philox.uniform(p.seed, p.position);
    const top_k: usize = if (p.top_k == 0) logits.len else @min(logits.len, @as(usize, @intCast(p.top_k)));
    const bar = gatherBar(p, top_k, chance, masses, logits.len);
    var kept = gather(logits, weights, bar, scratch.candidates);

    var mass = masses.total;
    if (top_k < logits.len) {
        kept = prefixOf(kept, weights, .{ .count = top_k });
        mass = massOf(kept, weights);
    }
    // Tokens stay while the mass before them is below the share; the first always stays.
    if (p.top_p < 1) kept = prefixOf(kept, weights, .{ .mass = p.top_p * mass });
    if (p.min_p > 0) kept = keepHeavy(kept, weights, p.min_p);
    if (p.top_p < 1 or p.min_p > 0) mass = massOf(kept, weights);
    const drawn = prefixOf(kept, weights, .{ .above = chance * mass });
    return idOf(drawn[drawn.len - 1]);
}

/// A weight that every token of the final choice is sure to reach, as great as the sums by threshold can show.
fn gatherBar(p: Parameters, top_k: usize, chance: f64, masses: Masses, vocab: usize) f32 {
    // The sums by threshold are rounded differently from the ones that decide.
    const margin = 1.00001;
    const share: f64 = if (p.top_p < 1) p.top_p else chance;
    var bar = std.math.floatTrueMin(f32);
    for (thresholds, masses.above, masses.count) |threshold, above, count| {
        const enough = if (top_k < vocab) count >= top_k else above >= share * masses.total * margin;
        if (enough) {
            bar = threshold;
            break;
        }
    }
    if (p.min_p == 0) return bar;
    // Without top-k and top-p the draw is over all that min-p leaves. Top-p of top-k needs the mass of all k.
    // Otherwise what min-p drops is never needed.
    if (top_k == vocab and p.top_p == 1) return p.min_p;
    return if (top_k < vocab and p.top_p < 1) bar else @max(bar, p.min_p);
}

fn gather(logits: []const f32, weights: []const f32, bar: f32, out: []Candidate) []Candidate {
    var count: usize = 0;
    var i: usize = 0;
    while (i < logits.len) : (i += lanes) {
        const end = @min(i + lanes, logits.len);
        if (i + lanes <= logits.len and !@reduce(.Or, @as(F, weights[i..][0..lanes].*) >= @as(F, @splat(bar)))) continue;
        for (logits[i..end], weights[i..end], i..) |logit, w, id| {
            if (!(w >= bar)) continue;
            out[count] = candidateOf(logit, id);
            count += 1;
        }
    }
    return out[0..count];
}

fn massOf(candidates: []const Candidate, weights: []const f32) f64 {
    var mass: f64 = 0;
    for (candidates) |candidate| mass += weights[idOf(candidate)];
    return mass;
}

/// Moves the candidates of at least this weight to the front and returns them; the heaviest always stays.
fn keepHeavy(candidates: []Candidate, weights: []const f32, bar: f32) []Candidate {
    var count: usize = 0;
    for (candidates, 0..) |candidate, i| {
        if (weights[idOf(candidate)] >= bar) {
            candidates[i] = candidates[count];
            candidates[count] = candidate;
            count += 1;
        }
    }
    return candidates[0..count];
}

/// Where a prefix of the order of candidates ends.
const Boundary = union(enum) {
    /// At this many candidates.
    count: usize,
    /// At the first candidate with which the mass reaches this.
    mass: f64,
    /// At the first candidate with which the mass exceeds this.
    above: f64,

    fn reached(boundary: Boundary, count: usize, mass: f64) bool {
        return switch (boundary) {
            .count => |limit| count >= limit,
            .mass => |limit| mass >= limit,
            .above => |limit| mass > limit,
        };
    }
};

/// Moves the shortest prefix of the order of candidates that reaches the boundary to the front, and its last
/// candidate to its end; all of them when none does. Returns the prefix. `candidates` is not empty.
fn prefixOf(candidates: []Candidate, weights: []const f32, boundary: Boundary) []Candidate {
    var first: usize = 0;
    var rest = candidates;
    var mass: f64 = 0;
    while (rest.len > 24) {
        // Keys are unique, so the middle of their range leaves some on either side.
        var least: Candidate = rest[0];
        var greatest: Candidate = rest[0];
        for (rest) |candidate| {
            least = @min(least, candidate);
            greatest = @max(greatest, candidate);
        }
        const middle = least + (greatest - least) / 2;
        var count: usize = 0;
        var part: f64 = 0;
        for (rest, 0..) |candidate, i| {
            if (candidate <= middle) {
                rest[i] = rest[count];
                rest[count] = candidate;
                count += 1;
                part += weights[idOf(candidate)];
            }
        }
        if (boundary.reached(first + count, mass + part)) {
            rest = rest[0..count];
        } else {
            first += count;
            mass += part;
            rest = rest[count..];
        }
    }
    std.sort.insertion(Candidate, rest, {}, std.sort.asc(Candidate));
    for (rest) |candidate| {
        first += 1;
        mass += weights[idOf(candidate)];
        if (boundary.reached(first, mass)) break;
    }
    return candidates[0..first];
}
