//! Decodes an encoded program (`src/graph/encode.ts`) and proves, once, that none of its tensors can leave its
//! buffer for any dimensions up to the declared maxima. What depends on the values of a step (token ids, slots,
//! block tables) is checked by the kernels while they run. Knows no backend.

const std = @import("std");
const ops = @import("ops.gen.zig");
const status = @import("status.zig");
const shapes = @import("shapes.zig");

/// What the decoder needs to know of a buffer.
pub const BufferView = struct {
    bytes: u64,
    writable: bool,
};

pub const dims_max = 16;
pub const tensors_max = 1 << 16;
pub const ops_max = 1 << 16;
pub const buffers_max = 4096;

/// A dimension may not exceed this, so that products of two fit in 64 bits with room to spare.
const extent_max: u64 = 1 << 31;

pub const Tensor = struct {
    dtype: ops.DType,
    info: ops.DTypeInfo,
    buffer: u32,
    offset: u64,
    rank: u32,
    /// 0: constant leading dimension; else 1 + index of the symbolic dimension.
    symbol: u32,
    /// Elements from one leading index to the next.
    stride: u64,
    /// shape[0] is the addend when the leading dimension is symbolic.
    shape: [4]u32,

    pub fn leadingAt(self: *const Tensor, dims: []const u32) u32 {
        return self.shape[0] + if (self.symbol == 0) 0 else dims[self.symbol - 1];
    }

    /// Elements of one leading index.
    pub fn width(self: *const Tensor) u64 {
        var product: u64 = 1;
        for (self.shape[1..self.rank]) |extent| product *= extent;
        return product;
    }

    pub fn strideBytes(self: *const Tensor) u64 {
        return self.stride / self.info.block_elements * self.info.block_bytes;
    }

    pub fn sameLeading(self: *const Tensor, other: *const Tensor) bool {
        return self.symbol == other.symbol and self.shape[0] == other.shape[0];
    }
};

pub const Op = struct {
    code: ops.OpCode,
    operands: [ops.operand_count_max]u32,
    attributes: [ops.attribute_count_max]u32,

    pub fn attributeF32(self: *const Op, index: usize) f32 {
        return @bitCast(self.attributes[index]);
    }
    pub fn attributeI32(self: *const Op, index: usize) i32 {
        return @bitCast(self.attributes[index]);
    }
};

pub const Program = struct {
    dims: []const u32,
    tensors: []const Tensor,
    ops: []const Op,

    /// The tensor of an operand; null when an optional operand is absent.
    pub fn operand(self: *const Program, op: *const Op, index: usize) ?*const Tensor {
        const id = op.operands[index];
        return if (id == ops.absent_tensor) null else &self.tensors[id];
    }
};

/// Decodes and validates. Memory comes from `arena`; the words are not referenced afterwards.
pub fn decode(arena: std.mem.Allocator, words: []const u32, buffers: []const BufferView) status.Error!Program {
    if (words.len < ops.header_words)
        return status.fail(error.InvalidProgram, "program has {d} words, fewer than its header of {d}", .{ words.len, ops.header_words });
    if (words[ops.header.magic] != ops.program_magic)
        return status.fail(error.InvalidProgram, "program magic is 0x{x}, not 0x{x}", .{ words[0], ops.program_magic });
    if (words[ops.header.version] != ops.program_version)
        return status.fail(error.InvalidProgram, "program version is {d}; this library reads {d}", .{ words[1], ops.program_version });

    const dim_count = try count(words, ops.header.dim_count, dims_max, "dimensions");
    const tensor_count = try count(words, ops.header.tensor_count, tensors_max, "tensors");
    const op_count = try count(words, ops.header.op_count, ops_max, "ops");
    const buffer_count = try count(words, ops.header.buffer_count, buffers_max, "buffers");
    if (buffer_count != buffers.len)
        return status.fail(error.InvalidProgram, "program names {d} buffers but {d} were passed", .{ buffer_count, buffers.len });
    const expected = ops.header_words + dim_count + tensor_count * ops.tensor_words + op_count * ops.op_words;
    if (words.len != expected)
        return status.fail(error.InvalidProgram, "program has {d} words; its counts need {d}", .{ words.len, expected });

    const dims = try arena.dupe(u32, words[ops.header_words..][0..dim_count]);
    for (dims, 0..) |maximum, index| {
        if (maximum == 0 or maximum > extent_max)
            return status.fail(error.InvalidProgram, "dimension {d} has maximum {d}", .{ index, maximum });
    }
    const tensor_base = ops.header_words + dim_count;
    const tensors = try arena.alloc(Tensor, tensor_count);
    for (tensors, 0..) |*tensor, id| {
        tensor.* = try decodeTensor(words[tensor_base + id * ops.tensor_words ..][0..ops.tensor_words], @intCast(id), dims, buffers);
    }
    const op_base = tensor_base + tensor_count * ops.tensor_words;
    const list = try arena.alloc(Op, op_count);
    const program: Program = .{ .dims = dims, .tensors = tensors, .ops = list };
    for (list, 0..) |*op, index| {
        op.* = try decodeOp(words[op_base + index * ops.op_words ..][0..ops.op_words], index, tensors, buffers);
        shapes.check(&program, op) catch |failure| {
            if (failure == error.InvalidProgram) shapes.prefix(index, op.code);
            return failure;
        };
    }
    try checkInputsUnwritten(&program);
    return program;
}

/// Index operands are checked before they are used; no op of the program may change them in between.
fn checkInputsUnwritten(program: *const Program) status.Error!void {
    var written: std.StaticBitSet(buffers_max) = .initEmpty();
    for (program.ops) |*op| {
        for (specOf(@intFromEnum(op.code)).?.operands, 0..) |operand, index| {
            if (operand.access != .read) if (program.operand(op, index)) |tensor| written.set(tensor.buffer);
        }
    }
    for (program.ops, 0..) |*op, position| {
        for (specOf(@intFromEnum(op.code)).?.operands, 0..) |operand, index| {
            const tensor = program.operand(op, index) orelse continue;
            if (operand.access == .read and tensor.dtype == .i32 and written.isSet(tensor.buffer))
                return status.fail(error.InvalidProgram, "op {d} reads {s} from a buffer that the program writes", .{ position, operand.name });
        }
    }
}

fn count(words: []const u32, field: usize, maximum: u32, what: []const u8) status.Error!usize {
    const value = words[field];
    if (value > maximum)
        return status.fail(error.InvalidProgram, "program has {d} {s}; the limit is {d}", .{ value, what, maximum });
    return value;
}

fn decodeTensor(record: []const u32, id: u32, dims: []const u32, buffers: []const BufferView) status.Error!Tensor {
    const f = ops.tensor;
    const dtype: ops.DType = @enumFromInt(record[f.dtype]);
    const info = infoOf(dtype) orelse
        return status.fail(error.InvalidProgram, "tensor {d} has unknown dtype {d}", .{ id, record[f.dtype] });
    const rank = record[f.rank];
    if (rank < 1 or rank > ops.rank_max)
        return status.fail(error.InvalidProgram, "tensor {d} has rank {d}", .{ id, rank });
    const slot = record[f.buffer];
    if (slot >= buffers.len)
        return status.fail(error.InvalidProgram, "tensor {d} lies in buffer {d} of {d}", .{ id, slot, buffers.len });
    const symbol = record[f.leading_symbol];
    if (symbol > dims.len)
        return status.fail(error.InvalidProgram, "tensor {d} has symbolic dimension {d} of {d}", .{ id, symbol, dims.len });

    var tensor: Tensor = .{
        .dtype = dtype,
        .info = info,
        .buffer = slot,
        .offset = @as(u64, record[f.offset_high]) << 32 | record[f.offset_low],
        .rank = rank,
        .symbol = symbol,
        .stride = record[f.leading_stride],
        .shape = record[f.shape..][0..4].*,
    };
    for (tensor.shape[0..rank], 0..) |extent, axis| {
        const zero_is_fine = axis == 0 and symbol != 0;
        if ((extent == 0 and !zero_is_fine) or extent > extent_max)
            return status.fail(error.InvalidProgram, "tensor {d} has extent {d} in dimension {d}", .{ id, extent, axis });
    }
    try checkExtent(&tensor, id, dims, buffers[slot].bytes);
    return tensor;
}

/// The last byte of the tensor at the largest dimensions lies inside its buffer, and every row is aligned.
fn checkExtent(tensor: *const Tensor, id: u32, dims: []const u32, buffer_bytes: u64) status.Error!void {
    var row_elements: u64 = 1;
    for (tensor.shape[1..tensor.rank]) |extent| {
        row_elements = std.math.mul(u64, row_elements, extent) catch return tooBig(id);
        if (row_elements > extent_max) return tooBig(id);
    }
    const block = tensor.info.block_elements;
    if (block > 1 and (tensor.rank != 2 or row_elements % block != 0 or tensor.stride % block != 0))
        return status.fail(error.InvalidProgram, "tensor {d} of {s} is not made of whole blocks of {d}", .{ id, @tagName(tensor.dtype), block });
    if (tensor.stride < row_elements)
        return status.fail(error.InvalidProgram, "tensor {d} has a stride of {d} for rows of {d}", .{ id, tensor.stride, row_elements });
    const alignment: u64 = if (block > 1) 2 else tensor.info.block_bytes;
    if (tensor.offset % alignment != 0)
        return status.fail(error.InvalidProgram, "tensor {d} starts at byte {d}, not a multiple of {d}", .{ id, tensor.offset, alignment });

    const leading: u64 = tensor.leadingAt(dims);
    if (leading > extent_max) return tooBig(id);
    const elements = std.math.mul(u64, leading - 1, tensor.stride) catch return tooBig(id);
    const bytes = std.math.mul(u64, (elements + row_elements) / block, tensor.info.block_bytes) catch return tooBig(id);
    const end = std.math.add(u64, tensor.offset, bytes) catch return tooBig(id);
    if (end > buffer_bytes)
        return status.fail(error.InvalidProgram, "tensor {d} ends at byte {d} of a buffer of {d}", .{ id, end, buffer_bytes });
}

fn tooBig(id: u32) status.Error {
    return status.fail(error.InvalidProgram, "tensor {d} is too large", .{id});
}

fn decodeOp(record: []const u32, index: usize, tensors: []const Tensor, buffers: []const BufferView) status.Error!Op {
    const spec = specOf(record[ops.op.code]) orelse
        return status.fail(error.InvalidProgram, "op {d} has unknown code {d}", .{ index, record[ops.op.code] });
    if (record[ops.op.operand_count] != spec.operands.len or record[ops.op.attribute_count] != spec.attribute_count)
        return status.fail(error.InvalidProgram, "op {d} ({s}) has {d} operands and {d} attributes instead of {d} and {d}", .{
            index, spec.name, record[ops.op.operand_count], record[ops.op.attribute_count], spec.operands.len, spec.attribute_count,
        });
    for (spec.operands, 0..) |operand, position| {
        const id = record[ops.op.operands + position];
        if (id == ops.absent_tensor) {
            if (operand.optional) continue;
            return status.fail(error.InvalidProgram, "op {d} ({s}) lacks its operand {s}", .{ index, spec.name, operand.name });
        }
        if (id >= tensors.len)
            return status.fail(error.InvalidProgram, "op {d} ({s}) names tensor {d} of {d}", .{ index, spec.name, id, tensors.len });
        if (operand.access != .read and !buffers[tensors[id].buffer].writable)
            return status.fail(error.InvalidProgram, "op {d} ({s}) writes {s} into a read-only buffer", .{ index, spec.name, operand.name });
    }
    return .{
        .code = spec.code,
        .operands = record[ops.op.operands..][0..ops.operand_count_max].*,
        .attributes = record[ops.op.attributes..][0..ops.attribute_count_max].*,
    };
}

fn infoOf(dtype: ops.DType) ?ops.DTypeInfo {
    for (ops.dtype_infos) |info| if (info.dtype == dtype) return info;
    return null;
}

pub fn specOf(code: u32) ?*const ops.OpSpec {
    for (&ops.op_specs) |*spec| if (@intFromEnum(spec.code) == code) return spec;
    return null;
}
