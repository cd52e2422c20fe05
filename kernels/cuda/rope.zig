//! rope_table and rope.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const launch = @import("launch.zig");

pub const family = "rope";
pub const codes = [_]ops.OpCode{ .rope_table, .rope };

pub fn lower(l: *launch.Lowering) status.Error!void {
    return if (l.op.code == .rope_table) lowerTable(l) else lowerRotation(l);
}

fn lowerTable(l: *launch.Lowering) status.Error!void {
    const o = ops.rope_table.operand;
    const pairs = l.tensor(o.out).shape[2];
    try l.launch(.{
        .name = "rope_table",
        .grid = .{ .rows = .{ .rows = l.rows(o.out) } },
        .threads = std.math.clamp(std.mem.alignForward(u32, pairs, 32), 32, 128),
    }, launch.c.struct_RopeTable{
        .rows = l.leading(o.out),
        .out = l.matrix(o.out),
        .positions = @ptrFromInt(l.address(o.positions)),
        .frequencies = @ptrFromInt(l.address(o.inverse_frequencies)),
        .pairs = pairs,
        .scale = l.op.attributeF32(ops.rope_table.attribute.scale),
    });
}

fn lowerRotation(l: *launch.Lowering) status.Error!void {
    const o = ops.rope.operand;
    const x = l.tensor(o.x);
    const pairs = l.tensor(o.table).shape[2];
    const interleaved = l.op.attributes[ops.rope.attribute.interleaved] == 1;
    try l.launch(.{
        .name = if (interleaved) "rope_pairs" else "rope_halves",
        .grid = .{ .rows = .{ .rows = l.rows(o.x), .y = try l.parts(@as(u64, x.shape[1]) * pairs, 256) } },
        .threads = 256,
    }, launch.c.struct_Rope{
        .rows = l.leading(o.x),
        .x = l.matrix(o.x),
        .table = l.matrix(o.table),
        .heads = x.shape[1],
        .head_dim = x.shape[2],
        .pairs = pairs,
        .spare = 0,
    });
}
