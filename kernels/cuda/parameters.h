/* All parameter structs, for Zig: one line per family. */
#include "cache.h"
#include "embed.h"
#include "matmul.h"
#include "norm.h"
#include "pointwise.h"
#include "rope.h"
#include "sample.h"
#include "step.h"
