//! gated_mul, soft_cap and gather_rows: a thread per element.

const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const launch = @import("launch.zig");

pub const family = "pointwise";
pub const codes = [_]ops.OpCode{ .gated_mul, .soft_cap, .gather_rows };

const threads = 256;

pub fn lower(l: *launch.Lowering) status.Error!void {
    return switch (l.op.code) {
        .gated_mul => lowerGatedMul(l),
        .soft_cap => lowerSoftCap(l),
        else => lowerGatherRows(l),
    };
}

fn gridOf(l: *const launch.Lowering, operand: usize) status.Error!launch.GridRule {
    return .{ .rows = .{ .rows = l.rows(operand), .y = try l.parts(l.tensor(operand).width(), threads) } };
}

fn lowerGatedMul(l: *launch.Lowering) status.Error!void {
    const o = ops.gated_mul.operand;
    const names = [_][:0]const u8{ "gated_mul_silu", "gated_mul_gelu_tanh", "gated_mul_gelu" };
    try l.launch(.{
        .name = names[l.op.attributes[ops.gated_mul.attribute.activation]],
        .grid = try gridOf(l, o.out),
        .threads = threads,
    }, launch.c.struct_GatedMul{
        .rows = l.leading(o.out),
        .out = l.matrix(o.out),
        .gate_up = l.matrix(o.gate_up),
        .width = l.tensor(o.out).shape[1],
        .spare = 0,
    });
}

fn lowerSoftCap(l: *launch.Lowering) status.Error!void {
    const o = ops.soft_cap.operand;
    try l.launch(.{ .name = "soft_cap", .grid = try gridOf(l, o.x), .threads = threads }, launch.c.struct_SoftCap{
        .rows = l.leading(o.x),
        .x = l.matrix(o.x),
        .width = @intCast(l.tensor(o.x).width()),
        .cap = l.op.attributeF32(ops.soft_cap.attribute.cap),
    });
}

fn lowerGatherRows(l: *launch.Lowering) status.Error!void {
    const o = ops.gather_rows.operand;
    try l.launch(.{ .name = "gather_rows", .grid = try gridOf(l, o.out), .threads = threads }, launch.c.struct_GatherRows{
        .rows = l.leading(o.out),
        .x_rows = l.leading(o.x),
        .out = l.matrix(o.out),
        .x = l.matrix(o.x),
        .indices = @ptrFromInt(l.address(o.indices)),
        .width = l.tensor(o.out).shape[1],
        .op = l.op_index,
    });
}
