//! The op families of CUDA: which one lowers which op. A family is a Zig file with
//! `family` (its kernels' file), `codes`, `lower`, and, when its ops need memory between their launches,
//! `workspaceBytes`. One line here, one in `build.zig` beside this and one in `parameters.h` add one.

const ops = @import("../abi/ops.gen.zig");
const status = @import("../abi/status.zig");
const program_module = @import("../abi/program.zig");
const Device = @import("device.zig").Device;
const Lowering = @import("launch.zig").Lowering;

const families = .{
    @import("embed.zig"),
    @import("matmul.zig"),
    @import("norm.zig"),
    @import("rope.zig"),
    @import("cache.zig"),
    @import("attention.zig"),
    @import("pointwise.zig"),
    @import("sample.zig"),
};

fn handles(comptime family: type, code: ops.OpCode) bool {
    for (family.codes) |handled| if (handled == code) return true;
    return false;
}

pub fn isBuilt(code: ops.OpCode) bool {
    inline for (families) |family| if (handles(family, code)) return true;
    return false;
}

/// Adds the launches of the op at hand.
pub fn lower(l: *Lowering) status.Error!void {
    inline for (families) |family| {
        if (handles(family, l.op.code)) {
            l.family = family.family;
            return family.lower(l);
        }
    }
    unreachable;
}

/// Bytes that an op needs between its launches, at the largest dimensions.
pub fn workspaceBytes(device: *const Device, program: *const program_module.Program, op: *const program_module.Op) u64 {
    inline for (families) |family| {
        if (@hasDecl(family, "workspaceBytes") and handles(family, op.code)) return family.workspaceBytes(device, program, op);
    }
    return 0;
}
