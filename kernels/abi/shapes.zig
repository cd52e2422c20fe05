//! The shape and dtype rules of every op, as the op table (`src/graph/ops.ts`) states them. An op that passes
//! can be run without further thought about extents.

const std = @import("std");
const ops = @import("ops.gen.zig");
const status = @import("status.zig");
const program_module = @import("program.zig");

const Program = program_module.Program;
const Tensor = program_module.Tensor;
const Op = program_module.Op;

pub fn check(program: *const Program, op: *const Op) status.Error!void {
    const c: Checker = .{ .program = program, .op = op };
    switch (op.code) {
        .embed => try c.embed(),
        .rms_norm => try c.rmsNorm(),
        .matmul => try c.matmul(),
        .rope_table => try c.ropeTable(),
        .rope => try c.rope(),
        .kv_write => try c.kvWrite(),
        .paged_attention => try c.pagedAttention(),
        .gated_mul => try c.gatedMul(),
        .gather_rows => try c.gatherRows(),
        .soft_cap => try c.softCap(),
        .sample => try c.sample(),
        _ => return status.fail(error.InvalidProgram, "unknown op", .{}),
    }
}

/// Puts the op's position in front of the reason that `check` recorded.
pub fn prefix(index: usize, code: ops.OpCode) void {
    var reason: [512]u8 = undefined;
    const length = @min(status.copyText(&reason, reason.len), reason.len);
    const spec = program_module.specOf(@intFromEnum(code)).?;
    status.describe("op {d} ({s}): {s}", .{ index, spec.name, reason[0..length] });
}

const Checker = struct {
    program: *const Program,
    op: *const Op,

    fn get(c: Checker, index: usize) *const Tensor {
        return c.program.operand(c.op, index).?;
    }
    fn maybe(c: Checker, index: usize) ?*const Tensor {
        return c.program.operand(c.op, index);
    }

    fn embed(c: Checker) status.Error!void {
        const o = ops.embed.operand;
        const out = try f32Matrix(c.get(o.out), "out");
        const ids = try i32Vector(c.get(o.ids), "ids");
        const table = try weight(c.get(o.table), "table");
        try expect(out.sameLeading(ids), "out and ids have different leading dimensions");
        try expect(out.shape[1] == table.shape[1], "out and table have different widths");
        try finite(c.op.attributeF32(ops.embed.attribute.scale), "scale");
    }

    fn rmsNorm(c: Checker) status.Error!void {
        const o = ops.rms_norm.operand;
        const out = try f32Activation(c.get(o.out), "out");
        const x = try f32Activation(c.get(o.x), "x");
        try expect(sameShape(out, x), "out and x have different shapes");
        const w = try f32Vector(c.get(o.weight), "weight");
        try expect(w.shape[0] == x.shape[x.rank - 1], "weight does not have the width of x");
        if (c.maybe(o.residual)) |residual|
            try expect(sameShape(out, try f32Activation(residual, "residual")), "out and residual have different shapes");
        try finite(c.op.attributeF32(ops.rms_norm.attribute.epsilon), "epsilon");
        try finite(c.op.attributeF32(ops.rms_norm.attribute.weight_offset), "weight_offset");
    }

    fn matmul(c: Checker) status.Error!void {
        const o = ops.matmul.operand;
        const out = try f32Matrix(c.get(o.out), "out");
        const x = try f32Matrix(c.get(o.x), "x");
        try expect(out.sameLeading(x), "out and x have different leading dimensions");
        try expect(c.op.operands[o.out] != c.op.operands[o.x], "out may not be x");
        var total: u64 = 0;
        var ended = false;
        inline for (.{ o.weight0, o.weight1, o.weight2 }, .{ o.bias0, o.bias1, o.bias2 }) |weight_index, bias_index| {
            if (c.maybe(weight_index)) |tensor| {
                try expect(!ended, "weights are not consecutive");
                const w = try weight(tensor, "weight");
                try expect(w.shape[1] == x.shape[1], "a weight does not have the width of x");
                total += w.shape[0];
                if (c.maybe(bias_index)) |bias|
                    try expect((try f32Vector(bias, "bias")).shape[0] == w.shape[0], "a bias does not fit its weight");
            } else {
                ended = true;
                try expect(c.maybe(bias_index) == null, "a bias has no weight");
            }
        }
        try expect(total == out.shape[1], "out is not as wide as the weights together");
        try expect(c.op.attributes[ops.matmul.attribute.activations] <= 1, "unknown precision of activations");
        if (c.maybe(o.residual)) |residual|
            try expect(sameShape(out, try f32Matrix(residual, "residual")), "out and residual have different shapes");
    }

    fn ropeTable(c: Checker) status.Error!void {
        const o = ops.rope_table.operand;
        const out = try f32Activation(c.get(o.out), "out");
        const positions = try i32Vector(c.get(o.positions), "positions");
        const frequencies = try f32Vector(c.get(o.inverse_frequencies), "inverse_frequencies");
        try expect(out.rank == 3 and out.shape[1] == 2, "out is not [tokens, 2, pairs]");
        try expect(out.shape[2] == frequencies.shape[0], "out does not have one pair per frequency");
        try expect(out.sameLeading(positions), "out and positions have different leading dimensions");
        try finite(c.op.attributeF32(ops.rope_table.attribute.scale), "scale");
    }

    fn rope(c: Checker) status.Error!void {
        const o = ops.rope.operand;
        const x = try f32Activation(c.get(o.x), "x");
        const table = try f32Activation(c.get(o.table), "table");
        try expect(x.rank == 3, "x is not [tokens, heads, head_dim]");
        try expect(table.rank == 3 and table.shape[1] == 2, "table is not [tokens, 2, pairs]");
        try expect(x.sameLeading(table), "x and table have different leading dimensions");
        try expect(@as(u64, table.shape[2]) * 2 <= x.shape[2], "more rotated pairs than head_dim holds");
        try expect(c.op.attributes[ops.rope.attribute.interleaved] <= 1, "interleaved is neither 0 nor 1");
    }

    fn kvWrite(c: Checker) status.Error!void {
        const o = ops.kv_write.operand;
        const k = try f32Activation(c.get(o.k), "k");
        const v = try f32Activation(c.get(o.v), "v");
        const slots = try i32Vector(c.get(o.slot_mapping), "slot_mapping");
        try expect(k.rank == 3 and sameShape(k, v), "k and v are not both [tokens, kv_heads, head_dim]");
        try expect(k.sameLeading(slots), "k and slot_mapping have different leading dimensions");
        inline for (.{ o.k_cache, o.v_cache }) |index| try c.cache(c.get(index), k.shape[1], k.shape[2]);
        try sameCaches(c.get(o.k_cache), c.get(o.v_cache));
    }

    fn sameCaches(k: *const Tensor, v: *const Tensor) status.Error!void {
        try expect(std.mem.eql(u32, &k.shape, &v.shape), "the caches have different shapes");
        try expect(k.dtype == v.dtype, "the caches have different dtypes");
        try expect(k.stride == v.stride, "the caches have different strides");
    }

    fn cache(_: Checker, tensor: *const Tensor, kv_heads: u32, head_dim: u32) status.Error!void {
        try expect(tensor.rank == 4 and tensor.symbol == 0, "a cache is not [blocks, kv_heads, block_size, head_dim]");
        try expect(tensor.shape[1] == kv_heads and tensor.shape[3] == head_dim, "a cache does not fit the heads");
        try expect(switch (tensor.dtype) {
            .f32, .f16, .bf16, .f8e4m3 => true,
            else => false,
        }, "a cache is not f32, f16, bf16 or f8e4m3");
        try expect(@as(u64, tensor.shape[0]) * tensor.shape[2] < 1 << 31, "a cache has more slots than an i32 names");
    }

    fn pagedAttention(c: Checker) status.Error!void {
        const o = ops.paged_attention.operand;
        const a = ops.paged_attention.attribute;
        const q = try f32Activation(c.get(o.q), "q");
        const out = try f32Matrix(c.get(o.out), "out");
        try expect(q.rank == 3, "q is not [tokens, heads, head_dim]");
        try expect(out.sameLeading(q) and out.shape[1] == q.width(), "out is not [tokens, heads * head_dim]");
        const k = c.get(o.k_cache);
        try expect(k.rank == 4 and k.shape[1] > 0 and q.shape[1] % k.shape[1] == 0, "heads are not a multiple of kv_heads");
        inline for (.{ o.k_cache, o.v_cache }) |index| try c.cache(c.get(index), k.shape[1], q.shape[2]);
        try sameCaches(k, c.get(o.v_cache));
        const tables = c.get(o.block_tables);
        try expect(tables.dtype == .i32 and tables.rank == 2, "block_tables is not i32 [seqs, blocks]");
        try expect(@as(u64, tables.shape[1]) * k.shape[2] < 1 << 31, "a block table holds more keys than an i32 counts");
        const lengths = try i32Vector(c.get(o.context_lengths), "context_lengths");
        const starts = try i32Vector(c.get(o.sequence_starts), "sequence_starts");
        try expect(tables.sameLeading(lengths), "block_tables and context_lengths have different leading dimensions");
        try expect(starts.symbol == lengths.symbol and starts.shape[0] == lengths.shape[0] + 1, "sequence_starts is not one longer than context_lengths");
        if (c.maybe(o.sinks)) |sinks|
            try expect((try f32Vector(sinks, "sinks")).shape[0] == q.shape[1], "sinks is not one per head");
        try expect(c.op.attributeI32(a.sliding_window) >= 0, "sliding_window is negative");
        try finite(c.op.attributeF32(a.scale), "scale");
        try finite(c.op.attributeF32(a.soft_cap), "soft_cap");
    }

    fn gatedMul(c: Checker) status.Error!void {
        const o = ops.gated_mul.operand;
        const out = try f32Matrix(c.get(o.out), "out");
        const gate_up = try f32Matrix(c.get(o.gate_up), "gate_up");
        try expect(out.sameLeading(gate_up), "out and gate_up have different leading dimensions");
        try expect(@as(u64, out.shape[1]) * 2 == gate_up.shape[1], "gate_up is not twice as wide as out");
        try expect(c.op.operands[o.out] != c.op.operands[o.gate_up], "out may not be gate_up");
        try expect(c.op.attributes[ops.gated_mul.attribute.activation] <= 2, "unknown activation");
    }

    fn gatherRows(c: Checker) status.Error!void {
        const o = ops.gather_rows.operand;
        const out = try f32Matrix(c.get(o.out), "out");
        const x = try f32Matrix(c.get(o.x), "x");
        const indices = try i32Vector(c.get(o.indices), "indices");
        try expect(out.sameLeading(indices), "out and indices have different leading dimensions");
        try expect(out.shape[1] == x.shape[1], "out and x have different widths");
        try expect(c.op.operands[o.out] != c.op.operands[o.x], "out may not be x");
    }

    fn softCap(c: Checker) status.Error!void {
        _ = try f32Matrix(c.get(ops.soft_cap.operand.x), "x");
        const cap = c.op.attributeF32(ops.soft_cap.attribute.cap);
        try expect(std.math.isFinite(cap) and cap > 0, "cap is not positive");
    }

    fn sample(c: Checker) status.Error!void {
        const o = ops.sample.operand;
        const logits = try f32Matrix(c.get(o.logits), "logits");
        const tokens = try i32Vector(c.get(o.tokens), "tokens");
        const logprobs = try f32Vector(c.get(o.logprobs), "logprobs");
        const top_logprobs = try f32Matrix(c.get(o.top_logprobs), "top_logprobs");
        const top_tokens = c.get(o.top_tokens);
        const parameters = c.get(o.parameters);
        try expect(top_tokens.dtype == .i32 and top_tokens.rank == 2 and sameShape(top_tokens, top_logprobs), "top_tokens is not i32 in the shape of top_logprobs");
        try expect(parameters.dtype == .i32 and parameters.rank == 2 and parameters.shape[1] == ops.sampling.words, "parameters is not i32 [rows, words]");
        inline for (.{ tokens, logprobs, top_logprobs, parameters }) |tensor|
            try expect(tensor.sameLeading(logits), "an operand does not have one entry per row of logits");
        const starts = try i32Vector(c.get(o.adjustment_starts), "adjustment_starts");
        try expect(starts.symbol == logits.symbol and starts.shape[0] == logits.shape[0] + 1, "adjustment_starts is not one longer than the rows");
        const list = try i32Vector(c.get(o.adjustment_tokens), "adjustment_tokens");
        inline for (.{ o.adjustment_multipliers, o.adjustment_addends }) |index|
            try expect(list.sameLeading(try f32Vector(c.get(index), "adjustments")), "the adjustment lists have different lengths");
        try expect(list.symbol == 0, "the adjustment lists do not have a constant length");
    }
};

fn expect(condition: bool, comptime reason: []const u8) status.Error!void {
    if (!condition) return status.fail(error.InvalidProgram, reason, .{});
}

fn finite(value: f32, comptime what: []const u8) status.Error!void {
    try expect(std.math.isFinite(value), what ++ " is not finite");
}

fn sameShape(a: *const Tensor, b: *const Tensor) bool {
    return a.rank == b.rank and a.sameLeading(b) and std.mem.eql(u32, a.shape[1..a.rank], b.shape[1..b.rank]);
}

fn f32Activation(tensor: *const Tensor, comptime what: []const u8) status.Error!*const Tensor {
    try expect(tensor.dtype == .f32 and tensor.rank >= 2, what ++ " is not an f32 activation");
    return tensor;
}

fn f32Matrix(tensor: *const Tensor, comptime what: []const u8) status.Error!*const Tensor {
    try expect(tensor.dtype == .f32 and tensor.rank == 2, what ++ " is not an f32 matrix");
    return tensor;
}

fn f32Vector(tensor: *const Tensor, comptime what: []const u8) status.Error!*const Tensor {
    try expect(tensor.dtype == .f32 and tensor.rank == 1 and tensor.stride == 1, what ++ " is not a dense f32 vector");
    return tensor;
}

fn i32Vector(tensor: *const Tensor, comptime what: []const u8) status.Error!*const Tensor {
    try expect(tensor.dtype == .i32 and tensor.rank == 1 and tensor.stride == 1, what ++ " is not a dense i32 vector");
    return tensor;
}

fn weight(tensor: *const Tensor, comptime what: []const u8) status.Error!*const Tensor {
    try expect(tensor.rank == 2 and tensor.symbol == 0 and tensor.dtype != .i32, what ++ " is not a weight matrix");
    try expect(tensor.dtype != .f8e4m3, what ++ " is f8e4m3, a type of KV caches alone");
    return tensor;
}
