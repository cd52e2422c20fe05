//! embed: one block per row and 1024 elements.

const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const launch = @import("launch.zig");

pub const family = "embed";
pub const codes = [_]ops.OpCode{.embed};

const o = ops.embed.operand;

pub fn lower(l: *launch.Lowering) status.Error!void {
    const table = l.tensor(o.table);
    try l.launch(.{
        .name = try l.kernelName("embed", table.dtype),
        .grid = .{ .rows = .{ .rows = l.rows(o.out), .y = try l.parts(table.shape[1], 1024) } },
        .threads = 128,
    }, launch.c.struct_Embed{
        .rows = l.leading(o.out),
        .op = l.op_index,
        .vocabulary = table.shape[0],
        .out = l.matrix(o.out),
        .table = @ptrFromInt(l.address(o.table)),
        .row_bytes = table.strideBytes(),
        .ids = @ptrFromInt(l.address(o.ids)),
        .width = table.shape[1],
        .scale = l.op.attributeF32(ops.embed.attribute.scale),
    });
}
