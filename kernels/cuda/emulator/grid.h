// Spreads the blocks of a launch over host threads.
#pragma once

#include "block.h"

namespace emulator {

// Runs every block; false when one failed, with the reason in `failure_text`.
bool run_grid(const Launch& launch);

}  // namespace emulator
