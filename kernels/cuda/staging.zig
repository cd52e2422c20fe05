//! Which inputs of a program are copied to the device at the start of each step, and where every tensor lies.
//!
//! An input that the host writes for each step lies in memory that both see; kernels of many layers would read it
//! over the bus again and again. So the live rows of every such tensor are copied once. Tensors of constant length
//! stay where they are: only a few of their elements are read.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const Buffer = @import("memory.zig").Buffer;
const launch = @import("launch.zig");

const c = launch.c;
const Program = program_module.Program;
const Tensor = program_module.Tensor;

const alignment = 256;

pub const Plan = struct {
    program: *const Program,
    /// Device address of each tensor; of a staged one, its place among the copies until `place`.
    addresses: []u64,
    staged: []const u32,
    ranges: []c.struct_StagedRange,
    /// Of all copies.
    bytes: u64,

    pub fn listBytes(self: *const Plan) u64 {
        return std.mem.sliceAsBytes(self.ranges).len;
    }

    /// Gives the copies their addresses, from `copies` on.
    pub fn place(self: *Plan, copies: u64, step: u64) status.Error!void {
        if (self.ranges.len > launch.parts_max)
            return status.fail(error.InvalidProgram, "the program has {d} inputs; CUDA takes {d}", .{ self.ranges.len, launch.parts_max });
        for (self.staged, self.ranges) |id, *range| {
            const target = copies + @intFromPtr(range.target);
            range.rows.step = @ptrFromInt(step);
            range.target = @ptrFromInt(target);
            self.addresses[id] = target;
        }
    }
};

pub fn plan(arena: std.mem.Allocator, program: *const Program, buffers: []const *Buffer) status.Error!Plan {
    const addresses = try arena.alloc(u64, program.tensors.len);
    for (addresses, program.tensors) |*address, *tensor| address.* = buffers[tensor.buffer].address + tensor.offset;
    const stageable = try readTensors(arena, program, buffers);
    var staged: std.ArrayList(u32) = .empty;
    var ranges: std.ArrayList(c.struct_StagedRange) = .empty;
    var bytes: u64 = 0;
    for (program.tensors, stageable, 0..) |*tensor, wanted, id| {
        if (!wanted) continue;
        const stride = tensor.strideBytes();
        try staged.append(arena, @intCast(id));
        try ranges.append(arena, .{
            .rows = .{ .step = null, .symbol = tensor.symbol, .addend = tensor.shape[0] },
            .source = @ptrFromInt(addresses[id]),
            .target = @ptrFromInt(bytes),
            .stride = stride,
            .row_bytes = tensor.width() * tensor.info.block_bytes,
        });
        bytes = std.mem.alignForward(u64, bytes + tensor.leadingAt(program.dims) * stride, alignment);
    }
    return .{ .program = program, .addresses = addresses, .staged = staged.items, .ranges = ranges.items, .bytes = bytes };
}

/// Tensors that the program only reads, of symbolic length, in host memory that it never writes.
fn readTensors(arena: std.mem.Allocator, program: *const Program, buffers: []const *Buffer) status.Error![]bool {
    const written = try arena.alloc(bool, buffers.len);
    @memset(written, false);
    const read = try arena.alloc(bool, program.tensors.len);
    @memset(read, false);
    for (program.ops) |*op| {
        for (program_module.specOf(@intFromEnum(op.code)).?.operands, 0..) |operand, index| {
            const tensor = program.operand(op, index) orelse continue;
            if (operand.access == .read) read[op.operands[index]] = true else written[tensor.buffer] = true;
        }
    }
    for (read, program.tensors) |*wanted, *tensor| {
        const buffer = buffers[tensor.buffer];
        wanted.* = wanted.* and buffer.host != null and !written[tensor.buffer] and tensor.symbol != 0 and isWords(tensor);
    }
    return read;
}

fn isWords(tensor: *const Tensor) bool {
    return tensor.dtype == .i32 or tensor.dtype == .f32;
}
