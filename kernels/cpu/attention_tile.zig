//! A tile: query rows of one KV head of one sequence, and which keys each of them sees.

const std = @import("std");
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
        const tokens = @min(slice.tileTokens(a), slice.tokens - first_token);
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

    /// Where the keys and values of a span of a range lie. The span is rounded outward to multiples of `together`,
    /// which keys are taken together.
    pub fn locate(tile: *const Tile, comptime kv: cache.KvType, range: usize, span: Span, comptime together: usize, places: *Places) void {
        const a = tile.a;
        const row_bytes = a.head_dim * kv.bytes();
        const table = a.block_tables + tile.slice.sequence * a.blocks_per_sequence;
        const whole = span.outward(together);
        const keys = &places.addresses;
        const values = places.addresses[whole.last - whole.first ..];
        places.ahead = cache.rowsAhead(kv, a.head_dim);
        places.first = whole.first;
        places.count = whole.last - whole.first;
        const first = range * range_keys + span.first;
        var column = first / a.block_size;
        var inside = first % a.block_size;
        var i = span.first - whole.first;
        const end = span.last - whole.first;
        while (i < end) : (column += 1) {
            const block: usize = @intCast(table[column]);
            const count = @min(a.block_size - inside, end - i);
            var offset = block * a.block_bytes + (tile.kv_head * a.block_size + inside) * row_bytes;
            for (keys[i..][0..count], values[i..][0..count]) |*key, *value| {
                key.* = a.k_cache + offset;
                value.* = a.v_cache + offset;
                offset += row_bytes;
            }
            i += count;
            inside = 0;
        }
        const begin = span.first - whole.first;
        @memset(keys[0..begin], keys[begin]);
        @memset(keys[end..places.count], keys[end - 1]);
        @memset(values[0..begin], values[begin]);
        @memset(values[end..][0 .. places.count - end + cache.rows_ahead_max], values[end - 1]);
    }
};

/// The addresses of the keys of a span and, behind them, of its values, in the order in which they are read: what
/// is up to `cache.rows_ahead_max` places on can be requested without a look at where the span ends. Where the span
/// was rounded outward, the places so added repeat the nearest key, and what comes of them is not used.
pub const Places = struct {
    addresses: [2 * range_keys + cache.rows_ahead_max][*]const u8,
    ahead: usize,
    first: usize,
    count: usize,

    /// Requests the rows that are read before those requested in passing arrive.
    pub fn requestFirst(places: *const Places, comptime kv: cache.KvType, dim: usize) void {
        for (places.addresses[0..places.ahead]) |row| cache.prefetch(kv, row, 0, dim);
    }

    /// Indexed by the place of a key in its range.
    pub fn keys(places: *const Places) cache.Rows {
        return .{ .addresses = @as([*]const [*]const u8, &places.addresses) - places.first, .ahead = places.ahead };
    }

    pub fn values(places: *const Places) cache.Rows {
        return .{ .addresses = places.keys().addresses + places.count, .ahead = places.ahead };
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

    /// Rounded outward to multiples of `together`.
    pub fn outward(span: Span, comptime together: usize) Span {
        return .{ .first = span.first - span.first % together, .last = std.mem.alignForward(usize, span.last, together) };
    }
};
