//! The packed product of several tokens at once by the tile unit (Intel AMX, int8): a panel of 16 rows is
//! unpacked into scratch, a group of 256 elements at a time, and meets up to 16 tokens per instruction.
//!
//! Scales are multiplied into the weights, which take two or three bytes then, and the sums of a whole group stay in
//! the tiles. Sums whose bytes of x and of the weights have the same weight together share a tile. They are exact,
//! like those of `matmul_packed.zig`, and meet the same f32 operations in the same order, so a token's bits do not
//! tell which of the two computed it.
//!
//! The tile unit, the stores of its sums and their scaling wait for each other unless they come mixed in the
//! program: while one group is multiplied, the sums of the one before leave the tiles and are scaled. And the tiles
//! load twice as fast from the first-level cache, so that all tokens meet a group of some panels before the next
//! is unpacked.

const std = @import("std");
const activations = @import("activations.zig");
const layouts = @import("packed.zig");
const math = @import("math.zig");
const matmul = @import("matmul.zig");
const packed_panels = @import("matmul_packed.zig");
const scaled_weights = @import("scaled_weights.zig");
const simd = @import("simd.zig");
const tiles = @import("tiles.zig");

const F32 = simd.F32;
const I32 = simd.I32;
const Layout = layouts.Layout;
const Integers = activations.Integers;
const group_slabs = layouts.group_slabs;
const slab_registers = layouts.slab_registers;
const tile_tokens = activations.tile_tokens;

/// Fewer tokens are faster without unpacking.
pub const tokens_min = activations.padded_tokens_min;

/// Tokens that meet a group: their bytes of it, and the sums of a unit, fit the second-level cache.
const block_tokens_max = 512;
const panels_max = matmul.unit_rows_max / layouts.panel_rows;

/// Panels that a tile of activations meets while it is in the first-level cache: with two, weights and activations
/// have room in it.
const panels_at_once = 2;
/// Cache lines of a tile's integers in a group that are asked for with each of those panels, for the next tile.
const lines_ahead = tile_tokens * @sizeOf(Integers) / std.atomic.cache_line / panels_at_once;

/// What the multiplication has to know of a layout.
const Kind = struct {
    /// Bytes that hold a weight with its scale.
    planes: usize,
    /// Minima of a row in a group.
    minima: usize,
    /// Lowest bits that are left of sums.
    shift: usize,

    fn of(comptime l: Layout) Kind {
        return .{
            .planes = scaled_weights.planeCount(l),
            .shift = l.sumShift(),
            .minima = if (l.has_min) group_slabs * l.subs() else 0,
        };
    }

    /// Tiles of sums: by the weight of their bytes, the greatest first.
    fn sums(comptime kind: Kind) usize {
        return kind.planes + 1;
    }
};

/// A group of a panel as the tile unit and the scaling want it: by plane, the greatest first, and register,
/// `[16 rows][4]` bytes. From the slabs that are not there to the end of a quarter there are zeros.
fn Group(comptime kind: Kind) type {
    return extern struct {
        bytes: [kind.planes][group_slabs * slab_registers]simd.U8,
        unit: F32,
        min: [kind.minima]F32,
    };
}

/// Sums of the 16 rows for each token of a tile, as they grow from group to group.
const Totals = [tile_tokens]F32;

const PanelTotals = [block_tokens_max / tile_tokens]Totals;

fn Scratch(comptime kind: Kind) type {
    return extern struct {
        groups: [panels_at_once]Group(kind),
        totals: [panels_max]PanelTotals,
    };
}

/// Bytes of scratch for one unit.
pub const scratch_bytes = @sizeOf(Scratch(.{ .planes = 3, .minima = 2 * group_slabs, .shift = 0 }));

/// The rows `first .. end` of a segment, a unit or less, for all tokens.
pub fn run(comptime l: Layout, a: *const matmul.Arguments, segment: *const matmul.Segment, panels: [*]const u8, first: usize, end: usize, scratch: []align(64) u8) void {
    const kind = comptime Kind.of(l);
    comptime std.debug.assert(@sizeOf(Scratch(kind)) <= scratch_bytes);
    const own: *Scratch(kind) = @ptrCast(scratch.ptr);
    const panel_bytes = l.panelBytes(a.k);
    const panel_count = std.math.divCeil(usize, end - first, layouts.panel_rows) catch unreachable;
    const first_panel = panels + first / layouts.panel_rows * panel_bytes;

    configure();
    defer tiles.release();
    var block: usize = 0;
    while (block < a.tokens) : (block += block_tokens_max) {
        const tile_count = a.x_groups.wholeTiles(block, block_tokens_max);
        const block_end = @min(a.tokens, block + tile_count * tile_tokens);
        if (tile_count > 0) {
            addBlock(l, a, first_panel, panel_count, block, tile_count, own);
            storeBlock(kind, a, segment, first, panel_count, block, block_end, own);
        }
        // A last tile of few tokens.
        if (block_end == a.tokens or tile_count * tile_tokens == block_tokens_max) continue;
        packed_panels.runFew(l, a, segment, first_panel, panel_count, first, block_end);
    }
}

/// The totals of some panels for whole tiles of tokens.
fn addBlock(comptime l: Layout, a: *const matmul.Arguments, first_panel: [*]const u8, panel_count: usize, first_token: usize, tile_count: usize, scratch: *Scratch(Kind.of(l))) void {
    const panel_bytes = l.panelBytes(a.k);
    const slabs = a.k / layouts.slab_elements;
    for (0..a.x_groups.groups) |group| {
        const present = @min(group_slabs, slabs - group * group_slabs);
        var panel: usize = 0;
        while (panel < panel_count) : (panel += panels_at_once) {
            const count = @min(panels_at_once, panel_count - panel);
            for (scratch.groups[0..count], panel..) |*unpacked, index| {
                unpack(l, first_panel + index * panel_bytes + group * l.spanBytes(), present, panels_at_once * panel_bytes, unpacked);
            }
            const factors: Factors = .{ .a = a, .group = group, .quarters = std.math.divCeil(usize, present, quarter_slabs) catch unreachable, .first_token = first_token, .tile_count = tile_count };
            multiply(Kind.of(l), &factors, scratch.groups[0..count], scratch.totals[panel..][0..count]);
        }
    }
}

/// Stores totals; tokens outside, so that what one thread writes of a token lies together.
fn storeBlock(comptime kind: Kind, a: *const matmul.Arguments, segment: *const matmul.Segment, first_row: usize, panel_count: usize, first_token: usize, end_token: usize, scratch: *const Scratch(kind)) void {
    for (first_token..end_token) |token| {
        const at = token - first_token;
        for (scratch.totals[0..panel_count], 0..) |*totals, panel| {
            matmul.storeLanes(a, segment, first_row + panel * layouts.panel_rows, token, totals[at / tile_tokens][at % tile_tokens]);
        }
    }
}

/// `next`: bytes to the same place of the panels that come next, which the loads of this one do not announce.
fn unpack(comptime l: Layout, span: [*]const u8, slabs: usize, next: usize, group: *Group(Kind.of(l))) void {
    @setEvalBranchQuota(100_000);
    const head = layouts.header(l, span);
    group.unit = packed_panels.unitOf(l, head);
    var slab = span + l.headerBytes();
    for (0..slabs) |index| {
        inline for (0..l.slabLines()) |line| @prefetch(slab + next + 64 * line, .{ .locality = 2 });
        inline for (0..l.subs()) |sub| {
            const factor: scaled_weights.Factor = .of(l, layouts.wholeScale(l, slab, sub));
            const registers = comptime slab_registers / l.subs();
            inline for (sub * registers..(sub + 1) * registers) |j| {
                const planes = scaled_weights.products(l, layouts.integers(l, slab, j), factor);
                inline for (planes, &group.bytes) |bytes, *plane| plane[index * slab_registers + j] = bytes;
            }
            if (l.has_min) group.min[index * l.subs() + sub] = layouts.minimum(l, head, slab, sub);
        }
        slab += l.slabBytes();
    }
    for (slabs..std.mem.alignForward(usize, slabs, quarter_slabs)) |index| {
        for (&group.bytes) |*plane| plane[index * slab_registers ..][0..slab_registers].* = @splat(@splat(0));
    }
    if (l.has_min) for (group.min[slabs * l.subs() ..]) |*min| {
        min.* = @splat(0);
    };
}

/// Elements that one product takes.
const quarter_elements = 64;
const quarter_slabs = quarter_elements / layouts.slab_elements;
const quarters_max = activations.group_elements / quarter_elements;

/// 0 to 3: sums; 4, 5: high and low bytes of x; 6, 7: weights.
fn configure() void {
    var configuration: tiles.Configuration = .{};
    for (0..8) |tile| configuration.set(tile, tile_tokens, 64);
    configuration.load();
}

/// What a group of some panels is multiplied with.
const Factors = struct {
    a: *const matmul.Arguments,
    group: usize,
    /// Quarters of the group that are there.
    quarters: usize,
    first_token: usize,
    tile_count: usize,
};

/// A group of a tile of tokens on its way through the tile unit.
fn Work(comptime kind: Kind) type {
    return struct {
        group: *const Group(kind),
        quarters: usize,
        x: activations.Group,
        has_low: bool,
        /// Activations that come next, in the second-level cache so far.
        next: [*]const u8,
        /// What the group is added to, and where the result goes.
        from: *const Totals,
        to: *Totals,
    };
}

/// Adds the products of a group of some panels to the totals of whole tiles of tokens.
fn multiply(comptime kind: Kind, factors: *const Factors, groups: []const Group(kind), totals: []PanelTotals) void {
    const rows = factors.a.x_groups;
    var nowhere: Totals = undefined;
    const zeros: Totals = @splat(@splat(0));
    // Nothing comes before the first: what the tiles hold is scaled to nowhere.
    var before: Work(kind) = .{ .group = &groups[0], .quarters = 0, .x = rows.first(factors.first_token), .has_low = false, .next = undefined, .from = &zeros, .to = &nowhere };
    for (0..factors.tile_count) |tile| {
        const x = rows.first(factors.first_token + tile * tile_tokens).after(factors.group * tile_tokens);
        const has_low = rows.bytesOf(x, tile_tokens) == .both;
        const next_token = factors.first_token + @min(tile + 1, factors.tile_count - 1) * tile_tokens;
        const next: [*]const u8 = @ptrCast(rows.first(next_token).after(factors.group * tile_tokens).integers);
        for (groups, totals, 0..) |*group, *of_panel, panel| {
            const work: Work(kind) = .{
                .group = group,
                .quarters = factors.quarters,
                .x = x,
                .has_low = has_low,
                .next = next + panel * lines_ahead * std.atomic.cache_line,
                .from = if (factors.group == 0) &zeros else &of_panel[tile],
                .to = &of_panel[tile],
            };
            step(kind, &before, &work);
            before = work;
        }
    }
    var none = before;
    none.quarters = 0;
    step(kind, &before, &none);
}

/// Multiplies one group while the sums of the one before leave the tiles and are scaled; without quarters only the
/// latter. A tile of sums is stored just before it is used again: its last product is then long done.
inline fn step(comptime kind: Kind, before: *const Work(kind), work: *const Work(kind)) void {
    var sums: [kind.sums()][tile_tokens]I32 = undefined;
    inline for (0..quarters_max) |quarter| {
        inline for (0..kind.planes) |plane| {
            if (quarter == 0) {
                if (plane == 0) leave(0, &sums);
                leave(plane + 1, &sums);
            }
            if (quarter < work.quarters) {
                multiplyPlane(kind, quarter, plane, work);
                inline for (comptime share(quarter * kind.planes + plane, quarters_max * kind.planes, lines_ahead)) |line| {
                    @prefetch(work.next + line * std.atomic.cache_line, .{ .locality = 3 });
                }
            }
            // Behind the first quarter all sums have left.
            if (quarter > 0) inline for (comptime share((quarter - 1) * kind.planes + plane, (quarters_max - 1) * kind.planes, tile_tokens)) |t| {
                addScaled(kind, before, &sums, t);
            };
        }
    }
}

/// Which of `count` things are the part `index` of as many as equal parts.
fn share(index: usize, parts: usize, count: usize) []const usize {
    var things: []const usize = &.{};
    for (index * count / parts..(index + 1) * count / parts) |thing| things = things ++ .{thing};
    return things;
}

inline fn leave(comptime tile: usize, sums: anytype) void {
    tiles.store(tile, &sums[tile]);
    tiles.zero(tile);
}

/// A plane of the weights with both bytes of x.
inline fn multiplyPlane(comptime kind: Kind, comptime quarter: usize, comptime plane: usize, work: *const Work(kind)) void {
    const element = quarter * quarter_elements;
    const weights = 6 + plane % 2;
    if (plane == 0) tiles.load(4, &work.x.integers[0].high[element], @sizeOf(Integers));
    if (plane == 0) tiles.load(5, &work.x.integers[0].low[element], @sizeOf(Integers));
    tiles.load(weights, &work.group.bytes[plane][element / 4], 64);
    // The greatest byte alone has the sign.
    const multiplyTiles = if (plane == 0) tiles.addBytes else tiles.addUnsigned;
    multiplyTiles(plane, 4, weights);
    if (work.has_low) multiplyTiles(plane + 1, 5, weights);
}

/// Adds the scaled sums of a token to its totals.
inline fn addScaled(comptime kind: Kind, work: *const Work(kind), sums: *const [kind.sums()][tile_tokens]I32, comptime t: usize) void {
    const record = &work.x.records[t];
    var total = work.from[t];
    inline for (&work.group.min, 0..) |*min, part| {
        const sum = if (kind.minima == group_slabs) record.total_32[part] else record.total_16[part];
        total = math.mulAdd(min.*, @splat(sum), total);
    }
    work.to[t] = math.mulAdd(upperSum(kind, sums, t), work.group.unit * @as(F32, @splat(record.scale)), total);
}

/// What `wholeSum` and `wideSum` make of the sums of x with the weights, from those of their bytes.
inline fn upperSum(comptime kind: Kind, sums: *const [kind.sums()][tile_tokens]I32, comptime t: usize) F32 {
    // From the least on, each a byte's weight above the one before.
    var upper: I32 = @splat(0);
    inline for (0..kind.planes + 1) |index| {
        const weight = comptime 8 * index;
        const sum = sums[kind.planes - index][t];
        if (comptime weight + 8 <= kind.shift) {
            upper = (upper +% sum) >> @splat(8);
        } else if (comptime weight < kind.shift) {
            upper = (upper +% sum) >> @splat(kind.shift - weight);
        } else {
            upper +%= sum << @splat(weight - kind.shift);
        }
    }
    return @floatFromInt(upper);
}
