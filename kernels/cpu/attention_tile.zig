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
    /// The ranges to run: all that hold keys of some row, or one of those.
    ranges: Span,
    /// What is read after them.
    next: ?Start = null,

    /// `only`: of a slice whose ranges are spread over units, the range of this one.
    pub fn init(a: *const plan.Arguments, slice: plan.Slice, kv_head: usize, first_token: usize, only: ?usize) Tile {
        const group = plan.groupSize(a);
        const tokens = @min(slice.tileTokens(a), slice.tokens - first_token);
        var tile: Tile = .{ .a = a, .slice = slice, .kv_head = kv_head, .first_token = first_token, .rows = tokens * group, .group = group, .ranges = undefined };
        tile.ranges = if (only) |range| .{ .first = range, .last = range + 1 } else .{
            .first = plan.firstKey(a, tile.position(0)) / range_keys,
            .last = tile.position(tile.rows - 1) / range_keys + 1,
        };
        return tile;
    }

    /// Whether other units have other ranges of the same rows.
    pub fn isSpread(tile: *const Tile) bool {
        return tile.slice.partials != null;
    }

    /// What is read first.
    pub fn start(tile: *const Tile) Start {
        const key = @max(plan.firstKey(tile.a, tile.position(0)), tile.ranges.first * range_keys);
        return .{ .sequence = tile.slice.sequence, .kv_head = tile.kv_head, .key = key, .context = tile.slice.context };
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
        const whole = span.outward(together);
        places.ahead = cache.rowsAhead(kv, a.head_dim);
        places.first = whole.first;
        places.count = whole.last - whole.first;
        const begin = span.first - whole.first;
        const end = span.last - whole.first;
        var own = tile.start();
        own.key = range * range_keys + span.first;
        inline for (.{ a.k_cache, a.v_cache }, 0..) |rows, which| {
            const addresses = places.addresses[which * places.count ..][0..places.count];
            own.locate(kv, a, rows, addresses[begin..end]);
            @memset(addresses[0..begin], addresses[begin]);
            @memset(addresses[end..], addresses[end - 1]);
        }
        const behind = places.addresses[2 * places.count ..][0..places.ahead];
        @memset(behind, places.addresses[2 * places.count - 1]);
        var next = own;
        next.key = (range + 1) * range_keys;
        if (range + 1 == tile.ranges.last) next = tile.next orelse return;
        next.locate(kv, a, a.k_cache, behind[0..@min(behind.len, next.context - next.key)]);
    }
};

/// A key of a KV head of a sequence.
pub const Start = struct {
    sequence: usize,
    kv_head: usize,
    key: usize,
    /// Keys of the sequence.
    context: usize,

    /// The addresses of so many keys, or values, from there on.
    fn locate(start: Start, comptime kv: cache.KvType, a: *const plan.Arguments, rows: [*]const u8, addresses: [][*]const u8) void {
        const row_bytes = a.head_dim * kv.bytes();
        const table = a.block_tables + start.sequence * a.blocks_per_sequence;
        var column = start.key / a.block_size;
        var inside = start.key % a.block_size;
        var i: usize = 0;
        while (i < addresses.len) : (column += 1) {
            const block: usize = @intCast(table[column]);
            const count = @min(a.block_size - inside, addresses.len - i);
            var row = rows + block * a.block_bytes + (start.kv_head * a.block_size + inside) * row_bytes;
            for (addresses[i..][0..count]) |*address| {
                address.* = row;
                row += row_bytes;
            }
            i += count;
            inside = 0;
        }
    }
};

/// The addresses of the keys of a span, behind them of its values and of the keys that come next, in the order in
/// which they are read: what is up to `ahead` places on can be requested without a look at where the span ends. Where
/// the span was rounded outward, the places so added repeat the nearest key, and what comes of them is not used.
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
