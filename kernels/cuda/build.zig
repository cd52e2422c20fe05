//! Builds the CUDA library: every family's kernels by nvcc or by Zig's own clang, embedded into the host library,
//! and, for tests, the same kernels compiled for the host under an emulated driver.

const std = @import("std");

/// Families of kernels: `<name>.cu` each.
const families = [_][]const u8{ "step", "embed", "norm", "rope", "cache", "pointwise", "sample", "matmul", "matmul_library", "attention" };

/// Headers that kernels include: a change compiles them again.
const headers = [_][]const u8{
    "types.h",             "device.cuh",           "hardware.cuh",       "math.cuh",           "dequantise.cuh",
    "step.h",              "embed.h",              "norm.h",             "rope.h",             "cache.h",
    "pointwise.h",         "attention.h",          "attention_math.cuh", "attention_step.cuh", "attention_spans.cuh",
    "attention_tiles.cuh", "matmul.h",             "matmul_weights.cuh", "matmul_rows.cuh",    "sample.h",
    "sample.cuh",          "sample_row.cuh",       "sample_select.cuh",  "matmul_library.h",   "matmul_stage.cuh",
    "float8.cuh",          "attention_float8.cuh",
};

const emulator_headers = [_][]const u8{ "block.h", "fibers.h", "grid.h", "hardware.h", "memory.h", "stream.h" };

/// `tested` is for machines without a GPU: clang's kernels for the emulated device, the others only checked.
pub const Choice = enum { off, auto, nvcc, clang, tested };

/// Capabilities that clang makes PTX for. The driver compiles the best that is not above the device's: 75 has no
/// asynchronous copies and no bfloat16 products, 80 has both.
const clang_capabilities = [_]u32{ 75, 80, 90 };
/// What the emulated device says it has.
const emulated_capability: u32 = 80;
/// Machine code of nvcc; it adds PTX of the first and of the last for devices between and after.
const nvcc_capabilities = [_]u32{ 80, 86, 89, 90 };
const nvcc_ptx_capability: u32 = 75;

/// What nvcc knows from 75 to 121, for the check of CUDA_COMPUTE_CAP.
const capability_min: u32 = 75;
const capability_max: u32 = 121;

/// PTX 7.8 is what drivers from CUDA 11.8 (520) read; newer capabilities need more and say so.
const ptx_feature = "--cuda-feature=+ptx78";

const Image = struct { family: usize, capability: u32, file: std.Build.LazyPath };

pub const Options = struct {
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    choice: Choice,
};

/// The host library with its kernels; null when the choice or the target leaves CUDA out.
pub fn addLibrary(b: *std.Build, options: Options) ?*std.Build.Step.Compile {
    if (options.choice == .off or options.target.result.os.tag != .linux) return null;
    const nvcc = if (options.choice == .clang or options.choice == .tested) null else findNvcc(b);
    if (options.choice == .nvcc and nvcc == null) fail("-Dcuda=nvcc, but there is no nvcc on PATH and none in CUDA_HOME", .{});
    const images = if (nvcc) |path| nvccImages(b, path) else clangImages(b, options.choice);

    const module = b.createModule(.{
        .root_source_file = b.path("kernels/cuda.zig"),
        .target = options.target,
        .optimize = options.optimize,
        .link_libc = true,
        .strip = options.optimize != .Debug,
    });
    module.addImport("cuda_images", imagesModule(b, images));
    const parameters = b.addTranslateC(.{
        .root_source_file = b.path("kernels/cuda/parameters.h"),
        .target = options.target,
        .optimize = options.optimize,
    });
    module.addImport("cuda_parameters", parameters.createModule());
    const library = b.addLibrary(.{ .name = "mistral_cuda", .linkage = .dynamic, .root_module = module });
    if (options.choice == .tested) addChecks(b, &library.step);
    return library;
}

const emulator_flags = [_][]const u8{
    "-std=c++17",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    // The compiler that comes with Zig 0.16.0 loses a byte where it packs the words of two MXFP4 rows.
    "-fno-slp-vectorize",
};

/// The driver that runs kernels on the host; for tests.
pub fn addEmulator(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Step.Compile {
    const module = emulatorModule(b, target, optimize);
    for (families) |family| {
        module.addCSourceFile(.{ .file = b.path(b.fmt("kernels/cuda/{s}.cu", .{family})), .flags = &emulator_flags, .language = .cpp });
    }
    for ([_][]const u8{ "driver", "cublaslt" }) |part| {
        module.addCSourceFile(.{ .file = b.path(b.fmt("kernels/cuda/emulator/{s}.cpp", .{part})), .flags = &emulator_flags });
    }
    return b.addLibrary(.{ .name = "mistral_cuda_emulated", .linkage = .dynamic, .root_module = module });
}

/// The emulator's own tests: `zig build test-emulator`.
pub fn addEmulatorTest(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Step.Run {
    const module = emulatorModule(b, target, optimize);
    for ([_][]const u8{ "self_test", "lanes_test" }) |part| {
        module.addCSourceFile(.{ .file = b.path(b.fmt("kernels/cuda/emulator/{s}.cpp", .{part})), .flags = &emulator_flags });
    }
    return b.addRunArtifact(b.addExecutable(.{ .name = "emulator_test", .root_module = module }));
}

/// Kernels are always optimised here, they take long enough; what a debugger needs costs a third more to compile.
fn emulatorModule(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    const module = b.createModule(.{
        .target = target,
        .optimize = .ReleaseFast,
        .strip = optimize != .Debug,
        .link_libc = true,
        .sanitize_c = .off,
        .pic = true,
    });
    module.addCSourceFile(.{ .file = headersDigest(b), .flags = &emulator_flags });
    for ([_][]const u8{ "fibers", "block", "grid", "memory" }) |part| {
        module.addCSourceFile(.{ .file = b.path(b.fmt("kernels/cuda/emulator/{s}.cpp", .{part})), .flags = &emulator_flags });
    }
    return module;
}

/// A source that is another one when a header is. Zig (0.16) forgets which headers a library came from when some of its
/// objects were in the cache, and would keep a library of old kernels.
fn headersDigest(b: *std.Build) std.Build.LazyPath {
    var hash = std.hash.Wyhash.init(0);
    for (headers) |header| hashFile(b, &hash, b.fmt("kernels/cuda/{s}", .{header}));
    for (emulator_headers) |header| hashFile(b, &hash, b.fmt("kernels/cuda/emulator/{s}", .{header}));
    return b.addWriteFiles().add("headers.cpp", b.fmt("// {x}\n", .{hash.final()}));
}

fn hashFile(b: *std.Build, hash: *std.hash.Wyhash, path: []const u8) void {
    const text = b.build_root.handle.readFileAlloc(b.graph.io, path, b.allocator, .unlimited) catch |failure|
        fail("cannot read {s}: {t}", .{ path, failure });
    hash.update(text);
}

/// `images`: what the kernels were compiled to, by family and compute capability.
fn imagesModule(b: *std.Build, images: []const Image) *std.Build.Module {
    var text: std.ArrayList(u8) = .empty;
    const print = struct {
        fn add(builder: *std.Build, list: *std.ArrayList(u8), comptime format: []const u8, arguments: anytype) void {
            list.appendSlice(builder.allocator, builder.fmt(format, arguments)) catch @panic("out of memory");
        }
    }.add;
    var lowest: u32 = capability_max;
    for (images) |image| lowest = @min(lowest, image.capability);
    print(b, &text, "pub const Image = struct {{ family: usize, capability: u32, bytes: [:0]const u8 }};\n", .{});
    print(b, &text, "pub const capability_min = {d};\npub const families = [_][]const u8{{\n", .{lowest});
    for (families) |family| print(b, &text, "    \"{s}\",\n", .{family});
    print(b, &text, "}};\npub const images = [_]Image{{\n", .{});
    for (images, 0..) |image, index| {
        print(b, &text, "    .{{ .family = {d}, .capability = {d}, .bytes = @embedFile(\"image{d}\") }},\n", .{ image.family, image.capability, index });
    }
    print(b, &text, "}};\n", .{});
    const module = b.createModule(.{ .root_source_file = b.addWriteFiles().add("cuda_images.zig", text.items) });
    for (images, 0..) |image, index| module.addAnonymousImport(b.fmt("image{d}", .{index}), .{ .root_source_file = image.file });
    return module;
}

fn addInputs(b: *std.Build, run: *std.Build.Step.Run) void {
    for (headers) |header| run.addFileInput(b.path(b.fmt("kernels/cuda/{s}", .{header})));
}

fn clangImages(b: *std.Build, choice: Choice) []const Image {
    const capabilities: []const u32 = if (choice == .tested) &.{emulated_capability} else &clang_capabilities;
    var images: std.ArrayList(Image) = .empty;
    for (families, 0..) |family, index| {
        for (capabilities) |capability| {
            const file = clangPtx(b, family, capability, "-O3").file;
            images.append(b.allocator, .{ .family = index, .capability = capability, .file = file }) catch @panic("out of memory");
        }
    }
    return images.items;
}

/// Compiles for the devices that a tested library has no kernels for. Most of a compilation's time is optimisation;
/// without it every template and every instruction is still made.
fn addChecks(b: *std.Build, step: *std.Build.Step) void {
    for (families) |family| {
        for (clang_capabilities) |capability| {
            if (capability == emulated_capability) continue;
            step.dependOn(&clangPtx(b, family, capability, "-O0").run.step);
        }
    }
}

const Ptx = struct { run: *std.Build.Step.Run, file: std.Build.LazyPath };

fn clangPtx(b: *std.Build, family: []const u8, capability: u32, optimisation: []const u8) Ptx {
    const run = b.addSystemCommand(&.{ b.graph.zig_exe, "clang" });
    run.setName(b.fmt("clang {s} sm_{d}", .{ family, capability }));
    run.addArgs(&.{ "-x", "cuda", "--cuda-device-only", "-nocudainc", "-nocudalib", "-nostdinc", "-nostdinc++" });
    // No toolkit that happens to be installed takes part.
    run.addArgs(&.{ "--cuda-path=/nonexistent", ptx_feature, b.fmt("--cuda-gpu-arch=sm_{d}", .{capability}) });
    run.addArgs(&.{ "-std=c++17", optimisation, "-Wall", "-Wextra", "-Werror", "-S", "-o" });
    const file = run.addOutputFileArg(b.fmt("{s}.sm_{d}.ptx", .{ family, capability }));
    run.addFileArg(b.path(b.fmt("kernels/cuda/{s}.cu", .{family})));
    addInputs(b, run);
    return .{ .run = run, .file = file };
}

/// Installs the PTX that clang makes, as `<prefix>/ptx/<family>.sm_<capability>.ptx`, for the budget's check.
pub fn addPtx(b: *std.Build, choice: Choice, step: *std.Build.Step) void {
    for (clangImages(b, choice)) |image| {
        const name = b.fmt("{s}.sm_{d}.ptx", .{ families[image.family], image.capability });
        step.dependOn(&b.addInstallFileWithDir(image.file, .{ .custom = "ptx" }, name).step);
    }
}

/// One fat binary per family: the driver takes what fits from it.
fn nvccImages(b: *std.Build, nvcc: []const u8) []const Image {
    const chosen = chosenCapabilities(b);
    const capabilities = chosen orelse &nvcc_capabilities;
    const ptx = if (chosen) |list| list[0] else nvcc_ptx_capability;
    var images: std.ArrayList(Image) = .empty;
    for (families, 0..) |family, index| {
        const run = b.addSystemCommand(&.{ nvcc, "-fatbin", "-std=c++17", "-O3" });
        run.setName(b.fmt("nvcc {s}", .{family}));
        for (capabilities) |capability| {
            run.addArgs(&.{ "-gencode", b.fmt("arch=compute_{d},code=sm_{d}", .{ capability, capability }) });
        }
        run.addArgs(&.{ "-gencode", b.fmt("arch=compute_{d},code=compute_{d}", .{ ptx, ptx }) });
        const last = capabilities[capabilities.len - 1];
        if (last != ptx) run.addArgs(&.{ "-gencode", b.fmt("arch=compute_{d},code=compute_{d}", .{ last, last }) });
        if (environment(b, "NVCC_CCBIN")) |compiler| run.addArgs(&.{ "-ccbin", existing(b, "NVCC_CCBIN", compiler) });
        if (environment(b, "CUDA_NVCC_FLAGS")) |text| {
            var flags = std.mem.tokenizeAny(u8, text, " \t");
            while (flags.next()) |flag| run.addArg(flag);
        }
        run.addArg("-o");
        const file = run.addOutputFileArg(b.fmt("{s}.fatbin", .{family}));
        run.addFileArg(b.path(b.fmt("kernels/cuda/{s}.cu", .{family})));
        addInputs(b, run);
        images.append(b.allocator, .{ .family = index, .capability = ptx, .file = file }) catch @panic("out of memory");
    }
    return images.items;
}

/// CUDA_COMPUTE_CAP: capabilities, comma-separated, as 89 or 8.9, in rising order.
fn chosenCapabilities(b: *std.Build) ?[]const u32 {
    const text = environment(b, "CUDA_COMPUTE_CAP") orelse return null;
    var list: std.ArrayList(u32) = .empty;
    var parts = std.mem.splitScalar(u8, text, ',');
    while (parts.next()) |part| {
        const wanted = std.mem.trim(u8, part, " ");
        const digits = std.mem.replaceOwned(u8, b.allocator, wanted, ".", "") catch @panic("out of memory");
        const capability = std.fmt.parseInt(u32, digits, 10) catch 0;
        if (capability < capability_min or capability > capability_max)
            fail("CUDA_COMPUTE_CAP names \"{s}\"; a compute capability from 7.5 to 12.1 is expected, as 89 or 8.9, several separated by commas", .{wanted});
        list.append(b.allocator, capability) catch @panic("out of memory");
    }
    std.mem.sort(u32, list.items, {}, std.sort.asc(u32));
    return list.items;
}

fn findNvcc(b: *std.Build) ?[]const u8 {
    if (environment(b, "CUDA_HOME")) |home| {
        const path = b.pathJoin(&.{ home, "bin", "nvcc" });
        if (exists(b, path)) return path;
    }
    return b.findProgram(&.{"nvcc"}, &.{"/usr/local/cuda/bin"}) catch null;
}

fn environment(b: *std.Build, name: []const u8) ?[]const u8 {
    const value = b.graph.environ_map.get(name) orelse return null;
    return if (value.len == 0) null else value;
}

fn existing(b: *std.Build, variable: []const u8, path: []const u8) []const u8 {
    // A bare name is looked for on PATH by nvcc itself.
    if (std.mem.indexOfScalar(u8, path, '/') != null and !exists(b, path))
        fail("{s} names \"{s}\", which does not exist", .{ variable, path });
    return path;
}

fn exists(b: *std.Build, path: []const u8) bool {
    std.Io.Dir.cwd().access(b.graph.io, path, .{}) catch return false;
    return true;
}

fn fail(comptime format: []const u8, arguments: anytype) noreturn {
    std.debug.print("error: " ++ format ++ "\n", arguments);
    std.process.exit(1);
}
