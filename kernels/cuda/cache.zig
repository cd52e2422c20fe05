//! kv_write: one block per token.

const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const launch = @import("launch.zig");

pub const family = "cache";
pub const codes = [_]ops.OpCode{.kv_write};

const o = ops.kv_write.operand;

pub fn lower(l: *launch.Lowering) status.Error!void {
    const cache = l.tensor(o.k_cache);
    if (cache.stride != cache.width())
        return status.fail(error.InvalidProgram, "a cache of CUDA's is dense; this one's blocks of {d} elements lie {d} apart", .{ cache.width(), cache.stride });
    try l.launch(.{
        .name = try l.kernelName("kv_write", cache.dtype),
        .grid = .{ .rows = .{ .rows = l.rows(o.k) } },
        .threads = 256,
    }, launch.c.struct_KvWrite{
        .rows = l.leading(o.k),
        .k = l.matrix(o.k),
        .v = l.matrix(o.v),
        .k_cache = @ptrFromInt(l.address(o.k_cache)),
        .v_cache = @ptrFromInt(l.address(o.v_cache)),
        .slots = @ptrFromInt(l.address(o.slot_mapping)),
        .op = l.op_index,
        .blocks = cache.shape[0],
        .block_size = cache.shape[2],
        .kv_heads = cache.shape[1],
        .head_dim = cache.shape[3],
        .spare = 0,
    });
}
