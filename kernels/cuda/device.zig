//! One GPU: its context, its stream, the modules of the kernels, and the failure that ended it, if one did.

const std = @import("std");
const images = @import("cuda_images");
const status = @import("../abi/status.zig");
const cublaslt = @import("cublaslt.zig");
const driver_module = @import("driver.zig");

const Driver = driver_module.Driver;
const Result = driver_module.Result;
const allocator = std.heap.c_allocator;

pub const Device = struct {
    driver: *const Driver,
    ordinal: c_int,
    context: driver_module.Context,
    /// All work of the device, in order.
    stream: driver_module.Stream,
    /// Compute capability, 80 for 8.0.
    capability: u32,
    multiprocessors: u32,
    /// Dynamic shared memory that a block can ask for.
    shared_bytes_max: u32,
    integrated: bool,
    name: [128]u8 = @splat(0),
    name_bytes: usize = 0,
    /// Loaded when the first kernel of the family is asked for; in the order of `images.families`.
    modules: [images.families.len]?driver_module.Module = @splat(null),
    functions: std.StringHashMapUnmanaged(Kernel) = .empty,
    library: Library = .unknown,
    library_text: [512]u8 = undefined,
    library_text_bytes: usize = 0,
    /// Why the device can no longer be used. A context does not recover from a failed kernel.
    failure: [512]u8 = undefined,
    failure_bytes: usize = 0,

    const Library = union(enum) { unknown, absent, open: cublaslt.Library };

    pub fn open(index: u32) status.Error!*Device {
        const device = try allocator.create(Device);
        errdefer allocator.destroy(device);
        device.* = try examine(index);
        const driver = device.driver;
        var context: ?driver_module.Context = null;
        try device.check(driver.cuDevicePrimaryCtxRetain(&context, device.ordinal), "making the context");
        errdefer _ = driver.cuDevicePrimaryCtxRelease_v2(device.ordinal);
        device.context = context.?;
        try device.check(driver.cuCtxSetCurrent(device.context), "entering the context");
        var stream: ?driver_module.Stream = null;
        try device.check(driver.cuStreamCreate(&stream, driver_module.stream_non_blocking), "making the stream");
        device.stream = stream.?;
        return device;
    }

    /// What the driver tells of a device without a context, which would take memory and time; it cannot be used.
    pub fn examine(index: u32) status.Error!Device {
        const driver = try driver_module.open();
        const count = try driver_module.deviceCount();
        if (count == 0) return status.fail(error.Device, "CUDA cannot be used: the driver shows no device", .{});
        if (index >= count)
            return status.fail(error.InvalidArgument, "CUDA device {d} does not exist; 0 to {d} do", .{ index, count - 1 });
        var device: Device = .{
            .driver = driver,
            .ordinal = 0,
            .context = undefined,
            .stream = undefined,
            .capability = 0,
            .multiprocessors = 0,
            .shared_bytes_max = 0,
            .integrated = false,
        };
        try device.check(driver.cuDeviceGet(&device.ordinal, @intCast(index)), "finding the device");
        device.capability = try device.attribute(.capability_major) * 10 + try device.attribute(.capability_minor);
        device.multiprocessors = try device.attribute(.multiprocessors);
        device.integrated = try device.attribute(.integrated) != 0;
        device.shared_bytes_max = try device.attribute(.shared_bytes_per_block_on_request);
        try device.check(driver.cuDeviceGetName(&device.name, device.name.len, device.ordinal), "reading the device's name");
        device.name_bytes = std.mem.indexOfScalar(u8, &device.name, 0) orelse device.name.len;
        return device;
    }

    /// Bytes of the device's memory, without a context.
    pub fn totalBytes(device: *Device) status.Error!u64 {
        var bytes: u64 = 0;
        try device.check(device.driver.cuDeviceTotalMem_v2(&bytes, device.ordinal), "measuring its memory");
        return bytes;
    }

    /// cuBLASLt, opened when it is first asked for: that takes a while, and not every program has products for it.
    pub fn products(device: *Device) ?*cublaslt.Library {
        if (device.library == .unknown) {
            var text = std.Io.Writer.fixed(&device.library_text);
            if (cublaslt.Library.open(device.capability, &text)) |opened| {
                device.library = .{ .open = opened };
                text.end = 0;
                text.print("cuBLASLt {d}.{d}.{d}", opened.versionParts()) catch {};
            } else device.library = .absent;
            device.library_text_bytes = text.end;
        }
        return switch (device.library) {
            .unknown => unreachable,
            .absent => null,
            .open => |*opened| opened,
        };
    }

    /// The library's name and version, or why there is none.
    pub fn productsText(device: *Device) []const u8 {
        _ = device.products();
        return device.library_text[0..device.library_text_bytes];
    }

    pub fn close(device: *Device) void {
        device.tidyUp();
        switch (device.library) {
            .open => |*opened| opened.close(),
            else => {},
        }
        var names = device.functions.keyIterator();
        while (names.next()) |name| allocator.free(name.*);
        device.functions.deinit(allocator);
        for (device.modules) |slot| if (slot) |loaded| {
            _ = device.driver.cuModuleUnload(loaded);
        };
        _ = device.driver.cuStreamDestroy_v2(device.stream);
        _ = device.driver.cuDevicePrimaryCtxRelease_v2(device.ordinal);
        allocator.destroy(device);
    }

    /// Before any work: fails when the device has, and makes its context that of the calling thread.
    pub fn enter(device: *Device) status.Error!void {
        if (device.failure_bytes > 0) return status.fail(error.Device, "{s}", .{device.failure[0..device.failure_bytes]});
        try device.check(device.driver.cuCtxSetCurrent(device.context), "entering the context");
    }

    /// Before memory is freed, which goes on after a failure too.
    pub fn tidyUp(device: *Device) void {
        _ = device.driver.cuCtxSetCurrent(device.context);
        _ = device.driver.cuStreamSynchronize(device.stream);
    }

    /// Records a failure for good. `what` was being done.
    pub fn check(device: *Device, result: Result, comptime what: []const u8) status.Error!void {
        return device.checkFor(result, what, "");
    }

    /// The same; `kernel` is what it was done to.
    pub fn checkFor(device: *Device, result: Result, comptime what: []const u8, kernel: []const u8) status.Error!void {
        if (result == .success) return;
        const reason = device.driver.explain(result);
        const text = std.fmt.bufPrint(&device.failure, "CUDA device {d} failed {s}{s}{s}: {s} ({s})", .{
            device.ordinal, what, if (kernel.len > 0) " " else "", kernel, reason.name, reason.text,
        }) catch &device.failure;
        device.failure_bytes = text.len;
        return status.fail(error.Device, "{s}", .{text});
    }

    /// Records for good that the device failed `what`, of which the driver knows nothing.
    pub fn breakDown(device: *Device, comptime what: []const u8) status.Error {
        const text = std.fmt.bufPrint(&device.failure, "CUDA device {d} failed " ++ what, .{device.ordinal}) catch &device.failure;
        device.failure_bytes = text.len;
        return status.fail(error.Device, "{s}", .{text});
    }

    pub fn synchronize(device: *Device) status.Error!void {
        try device.check(device.driver.cuStreamSynchronize(device.stream), "running kernels");
    }

    const Kernel = struct {
        function: driver_module.Function,
        /// Dynamic shared memory that launches of it may use: the most that any of them asked for.
        shared_bytes_max: u32 = 48 << 10,
    };

    pub const Memory = struct { free: u64, total: u64 };

    pub fn memory(device: *Device) status.Error!Memory {
        try device.enter();
        var sizes: Memory = .{ .free = 0, .total = 0 };
        try device.check(device.driver.cuMemGetInfo_v2(&sizes.free, &sizes.total), "measuring its memory");
        return sizes;
    }

    /// The kernel `name` of a family. `shared_bytes` is the most dynamic shared memory it will be launched with.
    pub fn function(device: *Device, family: []const u8, name: [:0]const u8, shared_bytes: u32) status.Error!driver_module.Function {
        const kernel = device.functions.getPtr(name) orelse try device.findFunction(family, name);
        if (shared_bytes > device.shared_bytes_max)
            return status.fail(error.InvalidProgram, "kernel {s} needs {d} bytes of shared memory; {s} has {d} for a block", .{ name, shared_bytes, device.name[0..device.name_bytes], device.shared_bytes_max });
        if (shared_bytes > kernel.shared_bytes_max) {
            try device.checkFor(device.driver.cuFuncSetAttribute(kernel.function, driver_module.function_dynamic_shared_bytes_max, @intCast(shared_bytes)), "reserving shared memory for the kernel", name);
            kernel.shared_bytes_max = shared_bytes;
        }
        return kernel.function;
    }

    fn findFunction(device: *Device, family: []const u8, name: [:0]const u8) status.Error!*Kernel {
        var found: ?driver_module.Function = null;
        try device.checkFor(device.driver.cuModuleGetFunction(&found, try device.loadModule(family), name.ptr), "finding the kernel", name);
        const key = try allocator.dupe(u8, name);
        errdefer allocator.free(key);
        const entry = try device.functions.getOrPut(allocator, key);
        entry.value_ptr.* = .{ .function = found.? };
        return entry.value_ptr;
    }

    fn loadModule(device: *Device, family: []const u8) status.Error!driver_module.Module {
        const index = for (images.families, 0..) |name, index| {
            if (std.mem.eql(u8, name, family)) break index;
        } else unreachable;
        if (device.modules[index]) |loaded| return loaded;
        var best: ?images.Image = null;
        for (images.images) |image| {
            if (image.family != index or image.capability > device.capability) continue;
            if (best == null or image.capability > best.?.capability) best = image;
        }
        const image = best orelse
            return status.fail(error.Device, "{s} has compute capability {d}.{d}; the kernels need {d}.{d}", .{
                device.name[0..device.name_bytes], device.capability / 10, device.capability % 10, images.capability_min / 10, images.capability_min % 10,
            });
        var loaded: ?driver_module.Module = null;
        try device.check(device.driver.cuModuleLoadData(&loaded, image.bytes.ptr), "loading the kernels");
        device.modules[index] = loaded;
        return loaded.?;
    }

    fn attribute(device: *Device, wanted: driver_module.Attribute) status.Error!u32 {
        var value: c_int = 0;
        try device.check(device.driver.cuDeviceGetAttribute(&value, wanted, device.ordinal), "reading its properties");
        return @intCast(value);
    }
};
