//! rms_norm: one block per norm.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const launch = @import("launch.zig");

pub const family = "norm";
pub const codes = [_]ops.OpCode{.rms_norm};

const o = ops.rms_norm.operand;

pub fn lower(l: *launch.Lowering) status.Error!void {
    const x = l.tensor(o.x);
    const width = x.shape[x.rank - 1];
    const groups = x.width() / width;
    const vectors = width % 4 == 0 and l.hasVectorRows(o.x) and l.hasVectorRows(o.out) and
        l.hasVectorRows(o.weight) and l.hasVectorRows(o.residual);
    const items = if (vectors) width / 4 else width;
    try l.launch(.{
        .name = "rms_norm",
        .grid = .{ .rows = .{ .rows = l.rows(o.x), .y = try l.parts(groups, 1) } },
        .threads = std.math.clamp(std.mem.alignForward(u32, items, 32), 32, 1024),
    }, launch.c.struct_RmsNorm{
        .rows = l.leading(o.x),
        .out = l.matrix(o.out),
        .x = l.matrix(o.x),
        .residual = l.matrix(o.residual),
        .weight = @ptrFromInt(l.address(o.weight)),
        .width = width,
        .epsilon = l.op.attributeF32(ops.rms_norm.attribute.epsilon),
        .weight_offset = l.op.attributeF32(ops.rms_norm.attribute.weight_offset),
        .vectors = @intFromBool(vectors),
    });
}
