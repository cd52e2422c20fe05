//! The tests that live beside the CPU kernels, of shapes and counts too many for the programs of `test/kernels`:
//! `zig test -O ReleaseSafe kernels/tests.zig`, with `-mcpu x86_64_v2` and so on for the other levels.

test {
    _ = @import("cpu/math.zig");
    _ = @import("cpu/activations.zig");
    _ = @import("cpu/float_panels.zig");
    _ = @import("cpu/simd.zig");
    _ = @import("cpu/matmul_float_tiles.zig");
    _ = @import("cpu/bf16_planes.zig");
    _ = @import("cpu/philox.zig");
    _ = @import("cpu/float8.zig");
    _ = @import("cpu/attention_test.zig");
    _ = @import("cpu/attention_planes.zig");
    _ = @import("cpu/attention_shuffle.zig");
    _ = @import("cpu/attention_softmax.zig");
    _ = @import("cpu/pack_test.zig");
    _ = @import("cpu/matmul_mmla_test.zig");
    _ = @import("cpu/sample_test.zig");
}
