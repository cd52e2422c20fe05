//! The operands of paged attention, their check, and the division of a step into units: which sequences have
//! their ranges of keys spread over units, and where their partials lie.

const std = @import("std");
const math = @import("math.zig");
const cache = @import("attention_cache.zig");
const softmax = @import("attention_softmax.zig");

const lanes = math.lanes;

/// Keys of one partial.
pub const range_keys = 256;
/// Query rows (tokens times heads of a group) of a tile at most, unless one token has more.
pub const tile_rows = 256;
/// Partials the workspace may hold per query head, however many sequences and ranges there are.
const partials_per_head_max = 1024;

pub const Arguments = struct {
    /// `[tokens, heads * head_dim]`
    out: [*]f32,
    out_stride: usize,
    /// `[tokens, heads, head_dim]`
    q: [*]const f32,
    /// Elements from one token to the next.
    q_stride: usize,
    /// `[blocks, kv_heads, block_size, head_dim]`
    k_cache: [*]const u8,
    v_cache: [*]const u8,
    /// Bytes from one block of a cache to the next.
    block_bytes: usize,
    kv_type: cache.KvType,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    block_size: u32,
    /// `[sequences, blocks_per_sequence]`
    block_tables: [*]const i32,
    blocks_per_sequence: usize,
    /// `[sequences + 1]`
    sequence_starts: [*]const i32,
    /// `[sequences]`
    context_lengths: [*]const i32,
    sequences: u32,
    /// `[heads]`
    sinks: ?[*]const f32,
    scale: f32,
    sliding_window: u32,
    soft_cap: f32,
    /// Shared by all units; any length, 0 keeps every sequence unsplit. See `workspaceFloats`.
    workspace: []f32,
    /// Where `prepare` says which units are whose; ops that agree in all that it reads may share one.
    layout: *Layout,

    /// Whether the division of every step, and what is wrong with it, is the same for both.
    pub fn agrees(a: *const Arguments, b: *const Arguments) bool {
        inline for (.{ "block_tables", "blocks_per_sequence", "sequence_starts", "context_lengths", "heads", "kv_heads", "head_dim", "block_size", "sliding_window" }) |name| {
            if (@field(a, name) != @field(b, name)) return false;
        }
        return a.workspace.len == b.workspace.len;
    }
};

/// Which units of a step belong to which sequence.
pub const Layout = struct {
    /// One of each sequence that has rows, in order; room for as many as there can be sequences.
    places: []Place,
    count: usize = 0,
    units: usize = 0,
    combine_units: usize = 0,

    const Place = struct {
        sequence: u32,
        /// Of all units, and of those that combine.
        first_unit: u32,
        first_combine_unit: u32,
        /// Where the sequence's partials begin in the workspace; null when its ranges are not spread over units.
        partials: ?usize,
    };

    pub fn create(allocator: std.mem.Allocator, max_sequences: usize) !*Layout {
        const layout = try allocator.create(Layout);
        layout.* = .{ .places = try allocator.alloc(Place, max_sequences) };
        return layout;
    }

    /// The sequence of a unit, and which of its units it is.
    pub fn find(layout: *const Layout, a: *const Arguments, comptime first: FirstUnit, unit: usize) Part {
        var low: usize = 0;
        var high = layout.count;
        // The last place that begins at the unit or before it; those without units begin where the next one does.
        while (high - low > 1) {
            const middle = low + (high - low) / 2;
            if (@field(layout.places[middle], @tagName(first)) <= unit) low = middle else high = middle;
        }
        const place = layout.places[low];
        var slice = Slice.of(a, place.sequence);
        slice.partials = place.partials;
        return .{ .slice = slice, .unit = unit - @field(place, @tagName(first)) };
    }

    pub const FirstUnit = enum { first_unit, first_combine_unit };
    pub const Part = struct { slice: Slice, unit: usize };
};

pub const Fault = enum {
    /// `sequence_starts` does not rise from 0 to the number of tokens.
    sequence_starts,
    /// A context length is below the sequence's new tokens or above what its block table can hold.
    context_length,
    /// A block table entry that would be read is not a block of the cache.
    block_table,

    pub fn message(fault: Fault) []const u8 {
        return switch (fault) {
            .sequence_starts => "sequence_starts does not rise from 0 to the number of tokens",
            .context_length => "a context length is below its sequence's new tokens or above its block table's capacity",
            .block_table => "a block table entry is not a block of the cache",
        };
    }
};

/// Divides a valid step into units, handing out the workspace first come first served.
pub fn divide(a: *const Arguments) void {
    const layout = a.layout;
    layout.count = 0;
    layout.units = 0;
    layout.combine_units = 0;
    var used: usize = 0;
    for (0..a.sequences) |sequence| {
        if (a.sequence_starts[sequence] == a.sequence_starts[sequence + 1]) continue;
        var slice = Slice.of(a, sequence);
        if (slice.ranges > 1 and slice.tiles(a) == 1) {
            const floats = slice.tokens * a.heads * slice.ranges * softmax.partialFloats(paddedDim(a.head_dim));
            if (used + floats <= a.workspace.len) {
                slice.partials = used;
                used += floats;
            }
        }
        layout.places[layout.count] = .{
            .sequence = @intCast(sequence),
            .first_unit = @intCast(layout.units),
            .first_combine_unit = @intCast(layout.combine_units),
            .partials = slice.partials,
        };
        layout.count += 1;
        layout.units += slice.units(a);
        if (slice.partials != null) layout.combine_units += slice.tokens;
    }
}

/// Checks everything that `runUnit` will use as an index, then divides the step into units. O(blocks in use); to be
/// run before every step, once for each layout.
pub fn prepare(a: *const Arguments, tokens: usize, block_count: usize) ?Fault {
    if (validate(a, tokens, block_count)) |fault| return fault;
    divide(a);
    return null;
}

fn validate(a: *const Arguments, tokens: usize, block_count: usize) ?Fault {
    if (a.sequence_starts[0] != 0) return .sequence_starts;
    const capacity = a.blocks_per_sequence * a.block_size;
    for (0..a.sequences) |s| {
        const begin = a.sequence_starts[s];
        const end = a.sequence_starts[s + 1];
        if (begin > end or end > tokens) return .sequence_starts;
        const context = a.context_lengths[s];
        if (context < end - begin or context > capacity) return .context_length;
        if (begin == end) continue;
        const slice = Slice.of(a, s);
        const table = a.block_tables + s * a.blocks_per_sequence;
        for (table[slice.first_key / a.block_size .. (slice.context - 1) / a.block_size + 1]) |block| {
            if (block < 0 or block >= block_count) return .block_table;
        }
    }
    return if (a.sequence_starts[a.sequences] == tokens) null else .sequence_starts;
}

/// Floats of a workspace that lets every step of at most these sizes use all threads. One partial per query
/// head and range of at least the longest context, and of more sequences as far as a fixed bound goes.
pub fn workspaceFloats(max_tokens: usize, max_sequences: usize, heads: usize, head_dim: usize, context_max: usize) usize {
    const ranges = divCeil(context_max, range_keys);
    if (ranges < 2) return 0;
    const wanted = @min(max_tokens, max_sequences * 4) * ranges;
    return heads * @max(ranges, @min(wanted, partials_per_head_max)) * softmax.partialFloats(paddedDim(head_dim));
}

/// One sequence's part of the work.
pub const Slice = struct {
    sequence: usize,
    first_row: usize,
    tokens: usize,
    context: usize,
    /// The first key that any of the rows sees.
    first_key: usize,
    first_range: usize,
    ranges: usize,
    /// Where the sequence's partials begin in the workspace; null when its ranges are not spread over units.
    partials: ?usize = null,

    pub fn of(a: *const Arguments, sequence: usize) Slice {
        const begin: usize = @intCast(a.sequence_starts[sequence]);
        const end: usize = @intCast(a.sequence_starts[sequence + 1]);
        const context: usize = @intCast(a.context_lengths[sequence]);
        const first_key = firstKey(a, context - (end - begin));
        const first_range = first_key / range_keys;
        return .{
            .sequence = sequence,
            .first_row = begin,
            .tokens = end - begin,
            .context = context,
            .first_key = first_key,
            .first_range = first_range,
            .ranges = (context + range_keys - 1) / range_keys - first_range,
        };
    }

    pub fn tiles(slice: Slice, a: *const Arguments) usize {
        return divCeil(slice.tokens, @max(1, tile_rows / groupSize(a)));
    }

    /// Tokens of a tile: all tiles about as large, none of few rows that would read all keys for themselves.
    pub fn tileTokens(slice: Slice, a: *const Arguments) usize {
        return divCeil(slice.tokens, slice.tiles(a));
    }

    pub fn units(slice: Slice, a: *const Arguments) usize {
        return a.kv_heads * if (slice.partials != null) slice.ranges else slice.tiles(a);
    }

    /// The partials of one row of the tile of a KV head, range after range.
    pub fn rangePartials(slice: Slice, a: *const Arguments, kv_head: usize, row: usize) softmax.Partials {
        const dim = paddedDim(a.head_dim);
        const index = (kv_head * slice.tokens * groupSize(a) + row) * slice.ranges;
        const stride = softmax.partialFloats(dim);
        return .{ .base = a.workspace[slice.partials.?..].ptr + index * stride, .stride = stride, .dim = dim };
    }
};

pub fn firstKey(a: *const Arguments, position: usize) usize {
    return if (a.sliding_window == 0) 0 else (position + 1) -| a.sliding_window;
}

fn divCeil(x: usize, y: usize) usize {
    return std.math.divCeil(usize, x, y) catch unreachable;
}

pub fn groupSize(a: *const Arguments) usize {
    return a.heads / a.kv_heads;
}

pub fn paddedDim(head_dim: usize) usize {
    return std.mem.alignForward(usize, head_dim, lanes);
}
