//! sample: four launches, a block per row and then blocks per part of a row's vocabulary. Greedy rows are done after
//! the second.

const std = @import("std");
const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const Device = @import("device.zig").Device;
const launch = @import("launch.zig");

pub const family = "sample";
pub const codes = [_]ops.OpCode{.sample};

const o = ops.sample.operand;
const c = launch.c;

/// Candidates that are listed for the last kernel. More, which takes a distribution that is almost flat, are looked up
/// in the logits instead.
const candidates_max = 8192;

/// What the launches of an op leave for each other, one after the other in its workspace.
const Layout = struct {
    states: u64,
    part_best: u64,
    part_shares: u64,
    part_tops: u64,
    bin_masses: u64,
    bin_counts: u64,
    candidates: u64,
    list_tokens: u64,
    list_originals: u64,
    bytes: u64,

    const alignment = 256;

    fn of(program: *const program_module.Program, op: *const program_module.Op) Layout {
        const logits = program.operand(op, o.logits).?;
        const rows: u64 = logits.leadingAt(program.dims);
        const parts = partsOf(logits.shape[1]);
        const top_count_max = program.operand(op, o.top_tokens).?.shape[1];
        const adjustments_max = program.operand(op, o.adjustment_tokens).?.shape[0];
        var layout: Layout = undefined;
        var end: u64 = 0;
        layout.states = take(&end, rows * @sizeOf(c.struct_SampleRow));
        layout.part_best = take(&end, rows * parts * @sizeOf(u64));
        layout.part_shares = take(&end, rows * parts * @sizeOf(c.struct_SampleShare));
        layout.part_tops = take(&end, rows * parts * top_count_max * @sizeOf(u64));
        layout.bin_masses = take(&end, rows * c.SAMPLE_BINS * @sizeOf(u64));
        layout.bin_counts = take(&end, rows * c.SAMPLE_BINS * @sizeOf(u32));
        layout.candidates = take(&end, rows * @as(u64, @min(candidates_max, logits.shape[1])) * @sizeOf(u32));
        layout.list_tokens = take(&end, @as(u64, adjustments_max) * @sizeOf(i32));
        layout.list_originals = take(&end, @as(u64, adjustments_max) * @sizeOf(f32));
        layout.bytes = end;
        return layout;
    }

    fn take(end: *u64, bytes: u64) u64 {
        const at = end.*;
        end.* = std.mem.alignForward(u64, at + bytes, alignment);
        return at;
    }
};

fn partsOf(vocabulary: u32) u64 {
    return std.math.divCeil(u64, vocabulary, c.SAMPLE_PART) catch unreachable;
}

pub fn workspaceBytes(_: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    return Layout.of(program, op).bytes;
}

pub fn lower(l: *launch.Lowering) status.Error!void {
    const logits = l.tensor(o.logits);
    const vocabulary = logits.shape[1];
    const layout: Layout = .of(l.program, l.op);
    const at = l.workspace_address;
    const parameters: c.struct_Sample = .{
        .rows = l.leading(o.logits),
        .logits = l.matrix(o.logits),
        .tokens = @ptrFromInt(l.address(o.tokens)),
        .logprobs = @ptrFromInt(l.address(o.logprobs)),
        .top_tokens = @ptrFromInt(l.address(o.top_tokens)),
        .top_logprobs = @ptrFromInt(l.address(o.top_logprobs)),
        .top_tokens_stride = l.tensor(o.top_tokens).stride,
        .top_logprobs_stride = l.tensor(o.top_logprobs).stride,
        .parameters = @ptrFromInt(l.address(o.parameters)),
        .parameters_stride = l.tensor(o.parameters).stride,
        .adjustment_starts = @ptrFromInt(l.address(o.adjustment_starts)),
        .adjustment_tokens = @ptrFromInt(l.address(o.adjustment_tokens)),
        .adjustment_multipliers = @ptrFromInt(l.address(o.adjustment_multipliers)),
        .adjustment_addends = @ptrFromInt(l.address(o.adjustment_addends)),
        .states = @ptrFromInt(at + layout.states),
        .part_best = @ptrFromInt(at + layout.part_best),
        .part_shares = @ptrFromInt(at + layout.part_shares),
        .part_tops = @ptrFromInt(at + layout.part_tops),
        .bin_masses = @ptrFromInt(at + layout.bin_masses),
        .bin_counts = @ptrFromInt(at + layout.bin_counts),
        .candidates = @ptrFromInt(at + layout.candidates),
        .list_tokens = @ptrFromInt(at + layout.list_tokens),
        .list_originals = @ptrFromInt(at + layout.list_originals),
        .op = l.op_index,
        .vocabulary = vocabulary,
        .parts = try l.parts(vocabulary, c.SAMPLE_PART),
        .top_count_max = l.tensor(o.top_tokens).shape[1],
        .adjustments_max = l.tensor(o.adjustment_tokens).shape[0],
        .candidates_max = @min(candidates_max, vocabulary),
        .id_bits = std.math.log2_int_ceil(u32, @max(2, vocabulary)),
        .vectors = @intFromBool(l.hasVectorRows(o.logits)),
    };
    const rows = l.rows(o.logits);
    inline for (.{ "sample_prepare", "sample_scan", "sample_weigh", "sample_choose" }, 0..) |name, index| {
        try l.launch(.{
            .name = name,
            .grid = .{ .rows = .{ .rows = rows, .y = if (index == 0) 1 else parameters.parts } },
            .threads = c.SAMPLE_THREADS,
        }, parameters);
    }
}

comptime {
    const sampling = ops.sampling;
    for (.{
        .{ c.SAMPLE_WORDS, sampling.words },
        .{ c.SAMPLE_TEMPERATURE, sampling.temperature },
        .{ c.SAMPLE_TOP_K, sampling.top_k },
        .{ c.SAMPLE_TOP_P, sampling.top_p },
        .{ c.SAMPLE_MIN_P, sampling.min_p },
        .{ c.SAMPLE_SEED_LOW, sampling.seed_low },
        .{ c.SAMPLE_SEED_HIGH, sampling.seed_high },
        .{ c.SAMPLE_POSITION, sampling.position },
        .{ c.SAMPLE_LOGPROB_COUNT, sampling.logprob_count },
        .{ c.SAMPLE_FORCED_TOKEN, sampling.forced_token },
    }) |pair| std.debug.assert(pair[0] == pair[1]);
}
