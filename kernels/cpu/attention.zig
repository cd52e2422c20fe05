//! Causal attention of a ragged batch over paged keys and values (op `paged_attention`).
//!
//! Keys are taken in ranges of 256 at absolute positions. A row's result in one range is a partial: the largest
//! score, the sum of exponentials and the weighted sum of values; the partials of a row are merged in the order
//! of their ranges (the online softmax of Milakov and Gimelshein, "Online normalizer calculation for softmax",
//! 2018, and of FlashAttention, Dao et al. 2022). Which unit computes a range, which rows share its loads and
//! how a prompt was cut into chunks changes nothing in that arithmetic: a row is bit-identical alone and among
//! others and for any number of threads.
//!
//! Work comes in two stages with a barrier between them. Stage one: `runUnit` for each of `unitCount` units. A
//! unit is one sequence, one KV head and either a tile of query rows over all of their ranges, or - for a
//! sequence of few rows and many keys - one range, whose partial it leaves in the workspace. Stage two:
//! `runCombineUnit` for each of `combineUnitCount` units merges those partials.

const std = @import("std");
const math = @import("math.zig");
const blocks = @import("attention_blocks.zig");
const plan = @import("attention_plan.zig");

const lanes = math.lanes;
const F = math.F;

const range_keys = plan.range_keys;
const Slice = plan.Slice;
const Walk = plan.Walk;
const Partial = plan.Partial;
const firstKey = plan.firstKey;
const groupSize = plan.groupSize;
const tileTokens = plan.tileTokens;
const paddedDim = plan.paddedDim;

pub const KvType = blocks.KvType;
pub const Arguments = plan.Arguments;
pub const Fault = plan.Fault;
pub const validate = plan.validate;
pub const workspaceFloats = plan.workspaceFloats;

/// Keys widened to f32 at once when many rows share them.
const widened_keys = 32;

/// Floats of the scratch memory each thread passes to `runUnit`.
pub fn scratchFloats(heads: usize, kv_heads: usize, head_dim: usize) usize {
    const rows = paddedRows(@max(plan.tile_rows, heads / kv_heads));
    return Scratch.floats(rows, paddedDim(head_dim));
}

pub fn unitCount(a: *const Arguments) usize {
    var walk: Walk = .{ .a = a };
    var total: usize = 0;
    while (walk.next()) |slice| total += slice.units(a);
    return total;
}

/// Stage one. `scratch` has at least `scratchFloats` elements and belongs to the calling thread.
pub fn runUnit(a: *const Arguments, unit: usize, scratch: []f32) void {
    var walk: Walk = .{ .a = a };
    var rest = unit;
    while (walk.next()) |slice| {
        const units = slice.units(a);
        if (rest < units) {
            return switch (a.kv_type) {
                inline else => |kv| runSlice(kv, a, slice, rest, scratch),
            };
        }
        rest -= units;
    }
}

/// One unit per row of the sequences whose ranges were spread over units.
pub fn combineUnitCount(a: *const Arguments) usize {
    var walk: Walk = .{ .a = a };
    var total: usize = 0;
    while (walk.next()) |slice| {
        if (slice.partials != null) total += slice.tokens;
    }
    return total;
}

/// Stage two, after every unit of stage one has run.
pub fn runCombineUnit(a: *const Arguments, unit: usize, scratch: []f32) void {
    var walk: Walk = .{ .a = a };
    var rest = unit;
    while (walk.next()) |slice| {
        if (slice.partials == null) continue;
        if (rest < slice.tokens) return combineRow(a, slice, rest, scratch);
        rest -= slice.tokens;
    }
}

/// The scratch memory of one thread, cut up.
const Scratch = struct {
    /// `[rows, dim]`
    q: [*]f32,
    /// `[rows, range_keys + block_keys_max]`
    scores: [*]f32,
    /// `[widened_keys, dim]`
    widened: [*]f32,
    /// `[rows, dim + 2]`, the range at hand and the ranges so far
    part: [*]f32,
    total: [*]f32,

    const score_stride = range_keys;

    fn floats(rows: usize, dim: usize) usize {
        return rows * (3 * dim + 4 + score_stride) + widened_keys * dim;
    }

    fn init(memory: []f32, rows: usize, dim: usize) Scratch {
        std.debug.assert(memory.len >= floats(rows, dim));
        var at = memory.ptr;
        const q = at;
        at += rows * dim;
        const scores = at;
        at += rows * score_stride;
        const widened = at;
        at += widened_keys * dim;
        const part = at;
        at += rows * (dim + 2);
        return .{ .q = q, .scores = scores, .widened = widened, .part = part, .total = at };
    }

    fn partial(memory: [*]f32, row: usize, dim: usize) Partial {
        return .{ .floats = memory[row * (dim + 2) ..][0 .. dim + 2] };
    }
};

/// Query rows of one KV head of one sequence: tokens in order, the heads of the group together.
const Tile = struct {
    a: *const Arguments,
    slice: Slice,
    kv_head: usize,
    first_token: usize,
    rows: usize,
    scratch: Scratch,

    fn token(tile: *const Tile, row: usize) usize {
        return tile.first_token + row / groupSize(tile.a);
    }

    fn head(tile: *const Tile, row: usize) usize {
        return tile.kv_head * groupSize(tile.a) + row % groupSize(tile.a);
    }

    /// The keys `[first, last)` that a row sees, relative to the beginning of a range and cut to it.
    fn visible(tile: *const Tile, row: usize, range: usize) Span {
        const position = tile.slice.context - tile.slice.tokens + tile.token(row);
        const base = range * range_keys;
        return .{
            .first = @min(firstKey(tile.a, position) -| base, range_keys),
            .last = @min((position + 1) -| base, range_keys),
        };
    }
};

const Span = struct {
    first: usize,
    last: usize,

    fn empty(span: Span) bool {
        return span.first >= span.last;
    }

    fn intersection(x: Span, y: Span) Span {
        return .{ .first = @max(x.first, y.first), .last = @min(x.last, y.last) };
    }
};

fn runSlice(comptime kv: KvType, a: *const Arguments, slice: Slice, unit: usize, memory: []f32) void {
    const part = unit / a.kv_heads;
    const dim = paddedDim(a.head_dim);
    // The last tile of a prompt sees the most keys: begin with it, so that no thread is left alone at the end.
    const tokens_per_tile = tileTokens(a);
    const tile_index = if (slice.partials != null) 0 else slice.tiles(a) - 1 - part;
    const first_token = tile_index * tokens_per_tile;
    const rows = @min(tokens_per_tile, slice.tokens - first_token) * groupSize(a);
    const tile: Tile = .{
        .a = a,
        .slice = slice,
        .kv_head = unit % a.kv_heads,
        .first_token = first_token,
        .rows = rows,
        .scratch = .init(memory, paddedRows(rows), dim),
    };
    loadQueries(&tile, dim);
    if (slice.partials != null) {
        runRange(kv, &tile, slice.first_range + part, dim);
        for (0..rows) |row| {
            const target = slice.partial(a, tile.token(row), tile.head(row), part);
            @memcpy(target.floats, Scratch.partial(tile.scratch.part, row, dim).floats);
        }
        return;
    }
    for (0..rows) |row| Scratch.partial(tile.scratch.total, row, dim).clear();
    const first_position = slice.context - slice.tokens + first_token;
    const last_position = slice.context - slice.tokens + tile.token(rows - 1);
    for (firstKey(a, first_position) / range_keys..last_position / range_keys + 1) |range| {
        runRange(kv, &tile, range, dim);
        for (0..rows) |row| {
            if (tile.visible(row, range).empty()) continue;
            Scratch.partial(tile.scratch.total, row, dim).merge(Scratch.partial(tile.scratch.part, row, dim));
        }
    }
    for (0..rows) |row| {
        const total = Scratch.partial(tile.scratch.total, row, dim);
        writeRow(a, slice.first_row + tile.token(row), tile.head(row), total);
    }
}

fn combineRow(a: *const Arguments, slice: Slice, row: usize, memory: []f32) void {
    const floats = plan.partialFloats(a.head_dim);
    const total: Partial = .{ .floats = memory[0..floats] };
    for (0..a.heads) |head| {
        total.clear();
        for (0..slice.ranges) |range| {
            const part = slice.partial(a, row, head, range);
            if (part.denominator().* != 0) total.merge(part);
        }
        writeRow(a, slice.first_row + row, head, total);
    }
}

/// Divides by the denominator, the head's sink included, and stores the row.
fn writeRow(a: *const Arguments, token: usize, head: usize, total: Partial) void {
    var keep: f32 = 1;
    var denominator = total.denominator().*;
    if (a.sinks) |sinks| {
        const largest = @max(total.maximum().*, sinks[head]);
        keep = math.exp(total.maximum().* - largest);
        denominator = math.mulAdd(denominator, keep, math.exp(sinks[head] - largest));
    }
    const factor = keep / denominator;
    const out = a.out + token * a.out_stride + head * a.head_dim;
    for (0..a.head_dim) |d| out[d] = total.floats[d] * factor;
}

/// Copies the tile's queries, zeros behind each row and in the rows that fill up the last block.
fn loadQueries(tile: *const Tile, dim: usize) void {
    const a = tile.a;
    for (0..paddedRows(tile.rows)) |row| {
        const target = tile.scratch.q[row * dim ..][0..dim];
        @memset(target, 0);
        if (row >= tile.rows) continue;
        const source = a.q + (tile.slice.first_row + tile.token(row)) * a.q_stride + tile.head(row) * a.head_dim;
        @memcpy(target[0..a.head_dim], source[0..a.head_dim]);
    }
}

/// The partials of all rows of a tile in one range.
fn runRange(comptime kv: KvType, tile: *const Tile, range: usize, dim: usize) void {
    const a = tile.a;
    // The first row sees the earliest key, the last row the latest.
    const span: Span = .{ .first = tile.visible(0, range).first, .last = tile.visible(tile.rows - 1, range).last };
    for (0..paddedRows(tile.rows)) |row| Scratch.partial(tile.scratch.part, row, dim).clear();
    if (span.empty()) return;
    var offsets: [range_keys]usize = undefined;
    locateKeys(kv, tile, range, span, &offsets);
    const keys: blocks.Rows = .{ .base = a.k_cache, .offsets = &offsets };
    const values: blocks.Rows = .{ .base = a.v_cache, .offsets = &offsets };
    // Few rows read the cache as it is; many rows share one widening of it.
    const widen = kv != .f32 and tile.rows > blocks.block_rows_max;
    var widened_offsets: [range_keys]usize = undefined;
    if (widen) {
        for (&widened_offsets, 0..) |*offset, j| offset.* = j % widened_keys * dim * @sizeOf(f32);
    }
    const widened: blocks.Rows = .{ .base = @ptrCast(tile.scratch.widened), .offsets = &widened_offsets };
    var at = span.first - span.first % widened_keys;
    while (at < span.last) : (at += widened_keys) {
        const part = span.intersection(.{ .first = at, .last = at + widened_keys });
        if (widen) {
            widenRows(kv, tile, keys, part, dim);
            scoreTile(.f32, tile, range, part, widened, dim);
        } else scoreTile(kv, tile, range, part, keys, dim);
    }
    if (!widen) blocks.prefetchRows(kv, values, span.first, span.last, a.head_dim);
    for (0..tile.rows) |row| softmax(tile, row, range, dim);
    at = span.first - span.first % widened_keys;
    while (at < span.last) : (at += widened_keys) {
        const part = span.intersection(.{ .first = at, .last = at + widened_keys });
        if (widen) {
            widenRows(kv, tile, values, part, dim);
            valueTile(.f32, tile, range, part, widened, dim);
        } else valueTile(kv, tile, range, part, values, dim);
    }
}

/// Byte offsets of the keys of a span in the cache. Blocks of keys are scored whole, so the places up to the
/// next multiple on either side repeat the nearest key; their scores are never looked at.
fn locateKeys(comptime kv: KvType, tile: *const Tile, range: usize, span: Span, offsets: *[range_keys]usize) void {
    const a = tile.a;
    const row_bytes = a.head_dim * kv.bytes();
    const table = a.block_tables + tile.slice.sequence * a.blocks_per_sequence;
    const first = range * range_keys + span.first;
    var column = first / a.block_size;
    var inside = first % a.block_size;
    var j = span.first;
    while (j < span.last) : (column += 1) {
        const block: usize = @intCast(table[column]);
        const begin = (block * a.kv_heads + tile.kv_head) * a.block_size;
        while (inside < a.block_size and j < span.last) : (inside += 1) {
            offsets[j] = (begin + inside) * row_bytes;
            j += 1;
        }
        inside = 0;
    }
    const multiple = blocks.block_keys_max;
    @memset(offsets[span.first - span.first % multiple .. span.first], offsets[span.first]);
    @memset(offsets[span.last..], offsets[span.last - 1]);
}

fn widenRows(comptime kv: KvType, tile: *const Tile, rows: blocks.Rows, span: Span, dim: usize) void {
    for (span.first..span.last) |j| {
        blocks.widenRow(kv, rows.base + rows.offsets[j], tile.a.head_dim, tile.scratch.widened + j % widened_keys * dim);
    }
}

/// Rows of the next register block when `left` are left; three are taken as four, the last row of them zeros.
fn blockRows(left: usize) usize {
    return if (left >= 3) blocks.block_rows_max else left;
}

/// Raw scores of all rows of the tile against the keys of a span.
fn scoreTile(comptime kv: KvType, tile: *const Tile, range: usize, span: Span, keys: blocks.Rows, dim: usize) void {
    var row: usize = 0;
    while (row < tile.rows) : (row += blocks.block_rows_max) {
        const last_row = @min(row + blocks.block_rows_max, tile.rows) - 1;
        const seen: Span = .{ .first = tile.visible(row, range).first, .last = tile.visible(last_row, range).last };
        const part = span.intersection(seen);
        if (part.empty()) continue;
        switch (blockRows(tile.rows - row)) {
            inline 1, 2, 4 => |rows| blocks.score(kv, rows, .{
                .q = tile.scratch.q + row * dim,
                .q_stride = dim,
                .keys = keys,
                .first = part.first,
                .last = part.last,
                .prefetch_last = range_keys - 1,
                .dim = tile.a.head_dim,
                .out = tile.scratch.scores + row * range_keys,
                .out_stride = range_keys,
            }),
            else => unreachable,
        }
    }
}

/// Turns the raw scores of a row into exponentials relative to the largest; notes that and their sum.
fn softmax(tile: *const Tile, row: usize, range: usize, dim: usize) void {
    const a = tile.a;
    const seen = tile.visible(row, range);
    if (seen.empty()) return;
    const scores = tile.scratch.scores + row * range_keys;
    const begin = seen.first - seen.first % lanes;
    const first: @Vector(lanes, u32) = @splat(@intCast(seen.first));
    const last: @Vector(lanes, u32) = @splat(@intCast(seen.last));
    const nothing: F = @splat(-std.math.inf(f32));
    var largest = nothing;
    var j = begin;
    while (j < seen.last) : (j += lanes) {
        var s: F = scores[j..][0..lanes].*;
        s *= @splat(a.scale);
        if (a.soft_cap != 0) s = math.tanh(s / @as(F, @splat(a.soft_cap))) * @as(F, @splat(a.soft_cap));
        const index = std.simd.iota(u32, lanes) + @as(@Vector(lanes, u32), @splat(@intCast(j)));
        s = @select(f32, index >= first, s, nothing);
        s = @select(f32, index < last, s, nothing);
        largest = math.greater(largest, s);
        scores[j..][0..lanes].* = s;
    }
    const maximum = math.max(largest);
    var total: F = @splat(0);
    j = begin;
    while (j < seen.last) : (j += lanes) {
        const p = math.exp(@as(F, scores[j..][0..lanes].*) - @as(F, @splat(maximum)));
        scores[j..][0..lanes].* = p;
        total += p;
    }
    const partial = Scratch.partial(tile.scratch.part, row, dim);
    partial.maximum().* = maximum;
    partial.denominator().* = math.sum(total);
}

/// Adds the weighted values of a span of keys to the partials of all rows. Keys that every row of a register
/// block sees are added for the block; the few before and after, row by row: a key that a row does not see must
/// not touch it, whatever it holds.
fn valueTile(comptime kv: KvType, tile: *const Tile, range: usize, span: Span, values: blocks.Rows, dim: usize) void {
    var row: usize = 0;
    while (row < tile.rows) : (row += blocks.block_rows_max) {
        const end = @min(row + blocks.block_rows_max, tile.rows);
        const common = span.intersection(tile.visible(row, range)).intersection(tile.visible(end - 1, range));
        if (common.empty()) {
            for (row..end) |r| addValues(kv, 1, tile, r, span.intersection(tile.visible(r, range)), values, dim);
            continue;
        }
        for (row..end) |r| {
            const seen = span.intersection(tile.visible(r, range));
            addValues(kv, 1, tile, r, .{ .first = seen.first, .last = common.first }, values, dim);
        }
        switch (blockRows(tile.rows - row)) {
            inline 1, 2, 4 => |rows| addValues(kv, rows, tile, row, common, values, dim),
            else => unreachable,
        }
        for (row..end) |r| {
            const seen = span.intersection(tile.visible(r, range));
            addValues(kv, 1, tile, r, .{ .first = common.last, .last = seen.last }, values, dim);
        }
    }
}

fn addValues(comptime kv: KvType, comptime rows: usize, tile: *const Tile, row: usize, span: Span, values: blocks.Rows, dim: usize) void {
    blocks.accumulate(kv, rows, .{
        .weights = tile.scratch.scores + row * range_keys,
        .weights_stride = range_keys,
        .values = values,
        .first = span.first,
        .last = span.last,
        .prefetch_last = range_keys - 1,
        .dim = tile.a.head_dim,
        .out = tile.scratch.part + row * (dim + 2),
        .out_stride = dim + 2,
    });
}

fn paddedRows(rows: usize) usize {
    return std.mem.alignForward(usize, rows, blocks.block_rows_max);
}
