//! The tile unit (Intel AMX): the system's permission to use it, the shapes of its eight registers, its instructions.

const std = @import("std");
const builtin = @import("builtin");
const simd = @import("simd.zig");

/// Set when the system has let this process use the tile registers.
var permitted: bool = false;

/// Asks Linux for the tile registers; to be called before the threads of a device start. Elsewhere, and when the
/// system refuses, products take the other way.
pub fn askPermission() void {
    if (!simd.has_amx or builtin.os.tag != .linux) return;
    const request_permission = 0x1023;
    const tile_data = 18;
    permitted = std.os.linux.syscall2(.arch_prctl, request_permission, tile_data) == 0;
}

pub fn available() bool {
    return simd.has_amx and permitted;
}

/// Shapes of the eight tile registers (Intel's programming reference, "TILECFG").
pub const Configuration = extern struct {
    palette: u8 = 1,
    start_row: u8 = 0,
    reserved: [14]u8 = @splat(0),
    row_bytes: [16]u16 = @splat(0),
    rows: [16]u8 = @splat(0),

    comptime {
        std.debug.assert(@sizeOf(Configuration) == 64);
    }

    pub fn set(configuration: *Configuration, tile: usize, rows: usize, row_bytes: usize) void {
        configuration.rows[tile] = @intCast(rows);
        configuration.row_bytes[tile] = @intCast(row_bytes);
    }

    /// The shapes from now on; clears all tiles.
    pub fn load(configuration: *const Configuration) void {
        asm volatile ("ldtilecfg (%[p])"
            :
            : [p] "r" (configuration),
            : .{ .memory = true });
    }
};

/// Gives the registers back: to follow the last use.
pub fn release() void {
    asm volatile ("tilerelease");
}

pub inline fn zero(comptime tile: usize) void {
    asm volatile (std.fmt.comptimePrint("tilezero %%tmm{d}", .{tile}));
}

/// Rows of a tile, `stride` bytes apart.
pub inline fn load(comptime tile: usize, source: *const anyopaque, stride: usize) void {
    asm volatile (std.fmt.comptimePrint("tileloadd (%[source],%[stride],1), %%tmm{d}", .{tile})
        :
        : [source] "r" (source),
          [stride] "r" (stride),
        : .{ .memory = true });
}

/// Rows of a tile one behind the other; `target` has 64 bytes for each.
pub inline fn store(comptime tile: usize, target: *anyopaque) void {
    storeApart(tile, target, 64);
}

/// Rows of a tile, `stride` bytes apart.
pub inline fn storeApart(comptime tile: usize, target: *anyopaque, stride: usize) void {
    asm volatile (std.fmt.comptimePrint("tilestored %%tmm{d}, (%[target],%[stride],1)", .{tile})
        :
        : [target] "r" (target),
          [stride] "r" (stride),
        : .{ .memory = true });
}

/// `sums += x @ weights`: signed bytes into 32-bit integers.
pub inline fn addBytes(comptime sums: usize, comptime x: usize, comptime weights: usize) void {
    asm volatile (std.fmt.comptimePrint("tdpbssd %%tmm{d}, %%tmm{d}, %%tmm{d}", .{ weights, x, sums }));
}

/// The same of unsigned weights.
pub inline fn addUnsigned(comptime sums: usize, comptime x: usize, comptime weights: usize) void {
    asm volatile (std.fmt.comptimePrint("tdpbsud %%tmm{d}, %%tmm{d}, %%tmm{d}", .{ weights, x, sums }));
}

/// `sums += x @ weights` of bfloat16 into f32. Subnormal numbers are zero, as operands and as sums.
pub inline fn addBf16(comptime sums: usize, comptime x: usize, comptime weights: usize) void {
    asm volatile (std.fmt.comptimePrint("tdpbf16ps %%tmm{d}, %%tmm{d}, %%tmm{d}", .{ weights, x, sums }));
}
