//! Status codes of the C ABI and the text of the last failure. Every exported function returns a status; the
//! text is read with `mistral_last_error` by the thread that made the failing call.

const std = @import("std");

pub const Status = enum(i32) {
    ok = 0,
    /// A handle, pointer or option of the call itself is wrong.
    invalid_argument = -1,
    out_of_memory = -2,
    /// An encoded program was refused; the text names the record and the reason.
    invalid_program = -3,
    /// The inputs of a step point outside their tensors; nothing past the check was computed.
    invalid_input = -4,
    /// The operating system refused a file, mapping or thread.
    system = -5,
    /// A device cannot be used, or failed and stays failed: every later call on it ends like this.
    device = -6,
};

/// The failures that cross a function border inside the kernels; each maps to one status.
pub const Error = error{ InvalidArgument, OutOfMemory, InvalidProgram, InvalidInput, System, Device };

const text_bytes_max = 1024;
threadlocal var text: [text_bytes_max]u8 = undefined;
threadlocal var text_bytes: usize = 0;

/// Records why the current call fails. Text past the limit is cut.
pub fn describe(comptime format: []const u8, arguments: anytype) void {
    const written = std.fmt.bufPrint(&text, format, arguments) catch {
        text_bytes = text_bytes_max;
        return;
    };
    text_bytes = written.len;
}

/// Records the reason and returns the error, so that a check is one line.
pub fn fail(failure: Error, comptime format: []const u8, arguments: anytype) Error {
    describe(format, arguments);
    return failure;
}

pub fn statusOf(failure: Error) Status {
    return switch (failure) {
        error.InvalidArgument => .invalid_argument,
        error.OutOfMemory => .out_of_memory,
        error.InvalidProgram => .invalid_program,
        error.InvalidInput => .invalid_input,
        error.System => .system,
        error.Device => .device,
    };
}

/// Copies the text of the last failure of this thread; returns its full length in bytes.
pub fn copyText(out: [*]u8, capacity: usize) usize {
    const count = @min(capacity, text_bytes);
    @memcpy(out[0..count], text[0..count]);
    return text_bytes;
}
