//! A tile: query rows of one KV head of one sequence, and which keys each of them sees.

const std = @import("std");
const math = @import("math.zig");
const cache = @import("attention_cache.zig");
const plan = @import("attention_plan.zig");

const range_keys = plan.range_keys;

/// Tokens in order, the heads of the group together.
pub const Tile = struct {
    a: *const plan.Arguments,
    slice: plan.Slice,
    kv_head: usize,
    first_token: usize,
    rows: usize,
    /// Heads of the group.
    group: usize,

    pub fn init(a: *const plan.Arguments, slice: plan.Slice, kv_head: usize, first_token: usize) Tile {
        const group = plan.groupSize(a);
        const tokens = @min(plan.tileTokens(a), slice.tokens - first_token);
        return .{ .a = a, .slice = slice, .kv_head = kv_head, .first_token = first_token, .rows = tokens * group, .group = group };
    }

    pub fn token(tile: *const Tile, row: usize) usize {
        return tile.first_token + row / tile.group;
    }

    pub fn head(tile: *const Tile, row: usize) usize {
        return tile.kv_head * tile.group + row % tile.group;
    }

    pub fn query(tile: *const Tile, row: usize) [*]const f32 {
        const a = tile.a;
        return a.q + (tile.slice.first_row + tile.token(row)) * a.q_stride + tile.head(row) * a.head_dim;
    }

    fn position(tile: *const Tile, row: usize) usize {
        return tile.slice.context - tile.slice.tokens + tile.token(row);
    }

    /// The ranges `[first, last)` that hold keys of some row.
    pub fn ranges(tile: *const Tile) Span {
        return .{
            .first = plan.firstKey(tile.a, tile.position(0)) / range_keys,
            .last = tile.position(tile.rows - 1) / range_keys + 1,
        };
    }

    /// The keys that a row sees, relative to the beginning of a range and cut to it.
    pub fn visible(tile: *const Tile, row: usize, range: usize) Span {
        const base = range * range_keys;
        return .{
            .first = @min(plan.firstKey(tile.a, tile.position(row)) -| base, range_keys),
            .last = @min((tile.position(row) + 1) -| base, range_keys),
        };
    }

    /// The keys that any of the rows `[first, last)` sees: the first row sees the earliest, the last row the latest.
    pub fn seenByAny(tile: *const Tile, first: usize, last: usize, range: usize) Span {
        return .{ .first = tile.visible(first, range).first, .last = tile.visible(last - 1, range).last };
    }

    /// The keys that every one of the rows `[first, last)` sees.
    pub fn seenByAll(tile: *const Tile, first: usize, last: usize, range: usize) Span {
        return .{ .first = tile.visible(last - 1, range).first, .last = tile.visible(first, range).last };
    }

    /// Writes the byte offsets of the keys of a span in the cache. Keys are taken a register of lanes together, so
    /// the places up to the next multiple on either side repeat the nearest key; what comes of them is not used.
    pub fn locate(tile: *const Tile, comptime kv: cache.KvType, range: usize, span: Span, offsets: *[range_keys]usize) void {
        const a = tile.a;
        const row_bytes = a.head_dim * kv.bytes();
        const table = a.block_tables + tile.slice.sequence * a.blocks_per_sequence;
        const first = range * range_keys + span.first;
        var column = first / a.block_size;
        var inside = first % a.block_size;
        var j = span.first;
        while (j < span.last) : (column += 1) {
            const block: usize = @intCast(table[column]);
            const count = @min(a.block_size - inside, span.last - j);
            var offset = ((block * a.kv_heads + tile.kv_head) * a.block_size + inside) * row_bytes;
            for (offsets[j..][0..count]) |*target| {
                target.* = offset;
                offset += row_bytes;
            }
            j += count;
            inside = 0;
        }
        const whole = span.outward();
        @memset(offsets[whole.first..span.first], offsets[span.first]);
        @memset(offsets[span.last..whole.last], offsets[span.last - 1]);
    }
};

pub const Span = struct {
    first: usize,
    last: usize,

    pub fn empty(span: Span) bool {
        return span.first >= span.last;
    }

    pub fn intersection(x: Span, y: Span) Span {
        return .{ .first = @max(x.first, y.first), .last = @min(x.last, y.last) };
    }

    /// Rounded outward to whole registers of lanes.
    pub fn outward(span: Span) Span {
        return .{ .first = span.first - span.first % math.lanes, .last = std.mem.alignForward(usize, span.last, math.lanes) };
    }
};
