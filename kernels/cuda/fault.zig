//! What a step's inputs can get wrong, in words: the reasons that kernels report (`enum Fault` of types.h).

const c = @import("cuda_parameters");

pub fn message(reason: u32) []const u8 {
    return switch (reason) {
        c.FAULT_TOKEN_ID => "a token id is outside the vocabulary",
        c.FAULT_SLOT => "a slot is outside the KV cache",
        c.FAULT_ROW => "a row index is outside the step's tokens",
        c.FAULT_SEQUENCE_STARTS => "sequence_starts does not rise from 0 to the number of tokens",
        c.FAULT_CONTEXT_LENGTH => "a context length is below its sequence's new tokens or above its block table's capacity",
        c.FAULT_BLOCK_TABLE => "a block table entry is not a block of the cache",
        c.FAULT_SAMPLING => "a sampling parameter, adjustment or forced token is out of its range",
        else => "an input is wrong",
    };
}
