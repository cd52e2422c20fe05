//! Builds one shared library per backend and instruction-set level:
//! `zig-out/lib/libmistral_cpu.<level>.so` (`.dylib` on macOS). `-Dlevels=` names the levels, comma-separated;
//! `all` (the default) is every level of the target's architecture, `native` the best one this machine can run.
//! The server picks one at load from what the processor has.
//!
//! `zig-out/lib/libmistral_cuda.so` with `-Dcuda=`: `auto` by nvcc when there is one, else by Zig's clang; `nvcc`,
//! `clang`; `tested`, what the emulated device needs; `off` (the default). `-Demulator` adds the emulated driver that its
//! tests run on.

const std = @import("std");
const cuda = @import("kernels/cuda/build.zig");

/// A level is what its kernels may use, added to the architecture's baseline. `src/backend/instruction-set.ts`
/// holds the same list by the names that operating systems report.
const Level = struct {
    name: []const u8,
    arch: std.Target.Cpu.Arch,
    x86: []const std.Target.x86.Feature = &.{},
    arm: []const std.Target.aarch64.Feature = &.{},
};

const v2 = [_]std.Target.x86.Feature{ .cx16, .popcnt, .sahf, .sse4_2 };
const v3 = v2 ++ [_]std.Target.x86.Feature{ .avx2, .bmi, .bmi2, .f16c, .fma, .lzcnt, .movbe };
const v3_vnni = v3 ++ [_]std.Target.x86.Feature{.avxvnni};
const v4 = v3 ++ [_]std.Target.x86.Feature{ .avx512f, .avx512bw, .avx512cd, .avx512dq, .avx512vl };
const v4_vnni = v4 ++ [_]std.Target.x86.Feature{ .avx512vnni, .avx512vbmi };
const v4_amx = v4_vnni ++ [_]std.Target.x86.Feature{ .amx_tile, .amx_int8, .amx_bf16, .gfni };

/// From the least to the most demanding.
const levels = [_]Level{
    .{ .name = "x86_64_v2", .arch = .x86_64, .x86 = &v2 },
    .{ .name = "x86_64_v3", .arch = .x86_64, .x86 = &v3 },
    .{ .name = "x86_64_v3_vnni", .arch = .x86_64, .x86 = &v3_vnni },
    .{ .name = "x86_64_v4", .arch = .x86_64, .x86 = &v4 },
    .{ .name = "x86_64_v4_vnni", .arch = .x86_64, .x86 = &v4_vnni },
    .{ .name = "x86_64_v4_amx", .arch = .x86_64, .x86 = &v4_amx },
    .{ .name = "arm64", .arch = .aarch64 },
    .{ .name = "arm64_dotprod", .arch = .aarch64, .arm = &.{.dotprod} },
    .{ .name = "arm64_i8mm", .arch = .aarch64, .arm = &.{ .dotprod, .i8mm } },
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "default: ReleaseFast") orelse .ReleaseFast;
    const wanted = b.option([]const u8, "levels", "instruction-set levels: names, comma-separated, native or all (default)") orelse "all";

    var built = false;
    for (levels) |level| {
        if (level.arch != target.result.cpu.arch or !isWanted(b, wanted, level)) continue;
        b.installArtifact(cpuLibrary(b, target, optimize, level));
        built = true;
    }
    const choice = b.option(cuda.Choice, "cuda", "CUDA library: off (default), auto, nvcc, clang or tested") orelse .off;
    if (cuda.addLibrary(b, .{ .target = portable(b, target), .optimize = optimize, .choice = choice })) |library| b.installArtifact(library);
    if (b.option(bool, "emulator", "the emulated CUDA driver, for tests (default: no)") orelse false)
        b.installArtifact(cuda.addEmulator(b, target, optimize));
    cuda.addPtx(b, choice, b.step("ptx", "compile the CUDA kernels to PTX by Zig's clang, for their resource budget"));
    b.step("test-emulator", "run the tests of the emulated CUDA device").dependOn(&cuda.addEmulatorTest(b, target, optimize).step);
    if (!built and choice == .off and !std.mem.eql(u8, wanted, "none")) @panic("no instruction-set level of this architecture is named by -Dlevels");
}

/// The baseline of the target's architecture.
fn portable(b: *std.Build, target: std.Build.ResolvedTarget) std.Build.ResolvedTarget {
    return b.resolveTargetQuery(oldest(target, .{ .cpu_arch = target.result.cpu.arch, .cpu_model = .baseline }));
}

fn oldest(target: std.Build.ResolvedTarget, start: std.Target.Query) std.Target.Query {
    var query = start;
    query.os_tag = target.result.os.tag;
    query.abi = target.result.abi;
    // The oldest glibc that Bun itself supports, so that a library built anywhere loads everywhere.
    if (target.result.os.tag == .linux and target.result.abi == .gnu)
        query.glibc_version = .{ .major = 2, .minor = 17, .patch = 0 };
    return query;
}

fn isWanted(b: *std.Build, wanted: []const u8, level: Level) bool {
    if (std.mem.eql(u8, wanted, "all")) return true;
    if (!std.mem.eql(u8, wanted, "native")) return listHas(wanted, level.name);
    var best: []const u8 = "";
    for (levels) |candidate| {
        if (runsOn(b.graph.host.result.cpu, candidate)) best = candidate.name;
    }
    return std.mem.eql(u8, level.name, best);
}

fn runsOn(cpu: std.Target.Cpu, level: Level) bool {
    return cpu.arch == level.arch and cpu.features.isSuperSetOf(features(level));
}

fn features(level: Level) std.Target.Cpu.Feature.Set {
    return switch (level.arch) {
        .x86_64 => std.Target.x86.featureSet(level.x86),
        .aarch64 => std.Target.aarch64.featureSet(level.arm),
        else => unreachable,
    };
}

fn cpuLibrary(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    level: Level,
) *std.Build.Step.Compile {
    const query = oldest(target, .{
        .cpu_arch = level.arch,
        .cpu_model = .baseline,
        .cpu_features_add = features(level),
    });

    const options = b.addOptions();
    options.addOption([]const u8, "level", level.name);
    const module = b.createModule(.{
        .root_source_file = b.path("kernels/cpu.zig"),
        .target = b.resolveTargetQuery(query),
        .optimize = optimize,
        .link_libc = true,
        .strip = optimize != .Debug,
    });
    module.addOptions("build_options", options);
    const library = b.addLibrary(.{
        .name = b.fmt("mistral_cpu.{s}", .{level.name}),
        .linkage = .dynamic,
        .root_module = module,
    });
    return library;
}

fn listHas(list: []const u8, name: []const u8) bool {
    var names = std.mem.splitScalar(u8, list, ',');
    while (names.next()) |candidate| if (std.mem.eql(u8, candidate, name)) return true;
    return false;
}
