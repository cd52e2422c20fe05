// The part of the CUDA driver API that the host library calls, over the emulator. Two devices: 0 runs threads and
// blocks in rising order, 1 in falling order, so that results that depend on an order that no barrier gives
// differ between them. Work is done when it is launched; while a stream is captured it becomes a list.
// A failure is sticky, as on the hardware: every later call of that device's context gives it back.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "memory.h"
#include "stream.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

typedef int Result;
enum : Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
};

namespace {

constexpr int DEVICES = 2;
constexpr u32 MULTIPROCESSORS = 8;
// The shared memory of a block without and with a request for more, of an Ampere.
constexpr u32 SHARED_BYTES = 48 << 10;
constexpr u32 SHARED_BYTES_OPTIN = 163 << 10;

struct Context {
  int ordinal;
  Result sticky;
};

struct Function {
  const emulator::Kernel* kernel;
  u32 shared_bytes_max;
  Function* next;
};

struct Module {
  Function* functions;
};

// A recorded launch, copy or call of a library.
struct Node {
  enum Kind { LAUNCH, COPY, FILL, CALL } kind;
  emulator::Launch launch;
  bool (*call)(const void* parameters);
  // Of a launch or a call.
  void* parameters;
  void* target;
  const void* source;
  u64 bytes;
  u8 value;
  Node* next;
};

struct Graph {
  Node* first;
  Node** last;
};

struct Stream {
  Graph* capturing;
};

Context contexts[DEVICES] = {{0, SUCCESS}, {1, SUCCESS}};
thread_local Context* current;
char error_text[640];

Result failed(Result result) {
  current->sticky = result;
  snprintf(error_text, sizeof error_text, "%s", emulator::failure_text());
  return result;
}

Result usable() { return current == nullptr ? Result(INVALID_CONTEXT) : current->sticky; }

// MISTRALRS_EMULATED_FAULT names a file: while it is there, the kernel that it names fails; every kernel when it is
// empty.
bool is_told_to_fail(const char* kernel) {
  const char* const path = getenv("MISTRALRS_EMULATED_FAULT");
  FILE* const file = path == nullptr ? nullptr : fopen(path, "r");
  if (file == nullptr) return false;
  char name[64] = "";
  const u64 length = fread(name, 1, sizeof name - 1, file);
  fclose(file);
  return length == 0 || strcmp(name, kernel) == 0;
}

Result execute(const Node& node) {
  switch (node.kind) {
    case Node::LAUNCH:
      if (is_told_to_fail(node.launch.kernel->name)) {
        current->sticky = LAUNCH_FAILED;
        snprintf(error_text, sizeof error_text, "%s was told to fail", node.launch.kernel->name);
        return LAUNCH_FAILED;
      }
      emulator::clear_failure();
      if (emulator::run_grid(node.launch)) return SUCCESS;
      return failed(strstr(emulator::failure_text(), "outside every allocation") ? ILLEGAL_ADDRESS : LAUNCH_FAILED);
    case Node::COPY:
      memcpy(node.target, node.source, node.bytes);
      return SUCCESS;
    case Node::FILL:
      emulator::fill(node.target, node.value, node.bytes);
      return SUCCESS;
    case Node::CALL:
      return node.call(node.parameters) ? SUCCESS : failed(LAUNCH_FAILED);
  }
  return INVALID_VALUE;
}

// Runs now, or joins the list of a stream that is captured. The node's parameters are copied then.
Result submit(Stream* stream, Node node) {
  if (stream == nullptr || stream->capturing == nullptr) return execute(node);
  Node* const kept = static_cast<Node*>(malloc(sizeof(Node)));
  *kept = node;
  kept->next = nullptr;
  if (node.kind == Node::LAUNCH) {
    kept->parameters = malloc(node.launch.kernel->parameter_bytes);
    memcpy(kept->parameters, node.launch.parameters, node.launch.kernel->parameter_bytes);
    kept->launch.parameters = kept->parameters;
  } else if (node.kind == Node::CALL) {
    kept->parameters = malloc(node.bytes);
    memcpy(kept->parameters, node.parameters, node.bytes);
  }
  Graph* const graph = stream->capturing;
  *graph->last = kept;
  graph->last = &kept->next;
  return SUCCESS;
}

Graph* copy_of(const Graph* graph) {
  Graph* const copy = static_cast<Graph*>(malloc(sizeof(Graph)));
  *copy = {nullptr, &copy->first};
  Stream stream = {copy};
  for (const Node* node = graph->first; node != nullptr; node = node->next) submit(&stream, *node);
  return copy;
}

void free_graph(Graph* graph) {
  for (Node* node = graph->first; node != nullptr;) {
    Node* const next = node->next;
    if (node->kind == Node::LAUNCH || node->kind == Node::CALL) free(node->parameters);
    free(node);
    node = next;
  }
  free(graph);
}

Result copy(Stream* stream, u64 target, u64 source, u64 bytes) {
  if (const Result sticky = usable()) return sticky;
  Node node = {};
  node.kind = Node::COPY;
  node.target = reinterpret_cast<void*>(target);
  node.source = reinterpret_cast<const void*>(source);
  node.bytes = bytes;
  return submit(stream, node);
}

Result allocate(void** out, u64 bytes, bool on_device) {
  if (const Result sticky = usable()) return sticky;
  if (bytes == 0) return INVALID_VALUE;
  *out = emulator::allocate(bytes, on_device);
  return *out == nullptr ? OUT_OF_MEMORY : SUCCESS;
}

Result release(void* memory) {
  if (const Result sticky = usable()) return sticky;
  switch (emulator::release(memory)) {
    case emulator::Freed::ok:
      return SUCCESS;
    case emulator::Freed::unknown:
      return INVALID_VALUE;
    case emulator::Freed::harmed:
      snprintf(error_text, sizeof error_text, "memory beside an allocation was written");
      current->sticky = ILLEGAL_ADDRESS;
      return ILLEGAL_ADDRESS;
  }
  return INVALID_VALUE;
}

}  // namespace

int emulator::submit_call(void* stream, bool (*run)(const void* memory), const void* memory, u64 bytes) {
  if (const Result sticky = usable()) return sticky;
  Node node = {};
  node.kind = Node::CALL;
  node.call = run;
  node.parameters = const_cast<void*>(memory);
  node.bytes = bytes;
  return submit(static_cast<Stream*>(stream), node);
}

bool emulator::is_usable() { return usable() == SUCCESS; }

// An empty CUDA_VISIBLE_DEVICES hides all devices, as it does from the real driver; other values change nothing.
EXPORT Result cuInit(u32 flags) {
  if (flags != 0) return INVALID_VALUE;
  const char* const visible = getenv("CUDA_VISIBLE_DEVICES");
  return visible != nullptr && visible[0] == 0 ? NO_DEVICE : SUCCESS;
}

EXPORT Result cuDriverGetVersion(int* version) {
  *version = 12080;
  return SUCCESS;
}

EXPORT Result cuDeviceGetCount(int* count) {
  *count = DEVICES;
  return SUCCESS;
}

EXPORT Result cuDeviceGet(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

EXPORT Result cuDeviceGetName(char* name, int length, int device) {
  snprintf(name, static_cast<u64>(length), "emulated device, %s order", device == 0 ? "rising" : "falling");
  return SUCCESS;
}

EXPORT Result cuDeviceTotalMem_v2(u64* bytes, int) {
  *bytes = emulator::memory_bytes();
  return SUCCESS;
}

EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 1:  // threads per block
      *value = emulator::BLOCK_THREADS_MAX;
      return SUCCESS;
    case 8:  // shared memory per block
      *value = SHARED_BYTES;
      return SUCCESS;
    case 10:  // warp size
      *value = 32;
      return SUCCESS;
    case 16:  // multiprocessors
      *value = MULTIPROCESSORS;
      return SUCCESS;
    case 18:  // integrated
      *value = 0;
      return SUCCESS;
    case 38:  // bytes of the second cache
      *value = 4 << 20;
      return SUCCESS;
    case 75:  // compute capability, major and minor
      *value = 8;
      return SUCCESS;
    case 76:
      *value = 0;
      return SUCCESS;
    case 97:  // shared memory per block on request
      *value = SHARED_BYTES_OPTIN;
      return SUCCESS;
    default:
      return INVALID_VALUE;
  }
}

EXPORT Result cuDevicePrimaryCtxRetain(Context** context, int device) {
  if (device < 0 || device >= DEVICES) return INVALID_DEVICE;
  *context = &contexts[device];
  return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

EXPORT Result cuCtxSetCurrent(Context* context) {
  current = context;
  return SUCCESS;
}

EXPORT Result cuCtxSynchronize() { return usable(); }

EXPORT Result cuGetErrorName(Result result, const char** name) {
  switch (result) {
    case SUCCESS:
      *name = "CUDA_SUCCESS";
      return SUCCESS;
    case OUT_OF_MEMORY:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      return SUCCESS;
    case NO_DEVICE:
      *name = "CUDA_ERROR_NO_DEVICE";
      return SUCCESS;
    case INVALID_DEVICE:
      *name = "CUDA_ERROR_INVALID_DEVICE";
      return SUCCESS;
    case NOT_FOUND:
      *name = "CUDA_ERROR_NOT_FOUND";
      return SUCCESS;
    case ILLEGAL_ADDRESS:
      *name = "CUDA_ERROR_ILLEGAL_ADDRESS";
      return SUCCESS;
    case LAUNCH_OUT_OF_RESOURCES:
      *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES";
      return SUCCESS;
    case LAUNCH_FAILED:
      *name = "CUDA_ERROR_LAUNCH_FAILED";
      return SUCCESS;
    default:
      *name = "CUDA_ERROR";
      return SUCCESS;
  }
}

EXPORT Result cuGetErrorString(Result result, const char** out) {
  *out = result == ILLEGAL_ADDRESS || result == LAUNCH_FAILED ? error_text : "as the emulated driver says";
  return SUCCESS;
}

EXPORT Result cuMemGetInfo_v2(u64* free_bytes, u64* total) {
  *free_bytes = emulator::free_bytes();
  *total = emulator::memory_bytes();
  return usable();
}

EXPORT Result cuMemAlloc_v2(u64* out, u64 bytes) { return allocate(reinterpret_cast<void**>(out), bytes, true); }
EXPORT Result cuMemFree_v2(u64 memory) { return release(reinterpret_cast<void*>(memory)); }
EXPORT Result cuMemHostAlloc(void** out, u64 bytes, u32) { return allocate(out, bytes, false); }
EXPORT Result cuMemFreeHost(void* memory) { return release(memory); }

EXPORT Result cuMemHostGetDevicePointer_v2(u64* out, void* memory, u32) {
  *out = reinterpret_cast<u64>(memory);
  return usable();
}

EXPORT Result cuMemcpyHtoDAsync_v2(u64 target, const void* source, u64 bytes, Stream* stream) {
  if (!emulator::is_allocated(reinterpret_cast<void*>(target), bytes)) return INVALID_VALUE;
  return copy(stream, target, reinterpret_cast<u64>(source), bytes);
}

EXPORT Result cuMemcpyDtoHAsync_v2(void* target, u64 source, u64 bytes, Stream* stream) {
  if (!emulator::is_allocated(reinterpret_cast<void*>(source), bytes)) return INVALID_VALUE;
  return copy(stream, reinterpret_cast<u64>(target), source, bytes);
}

EXPORT Result cuMemcpyDtoDAsync_v2(u64 target, u64 source, u64 bytes, Stream* stream) {
  if (!emulator::is_allocated(reinterpret_cast<void*>(target), bytes)) return INVALID_VALUE;
  if (!emulator::is_allocated(reinterpret_cast<void*>(source), bytes)) return INVALID_VALUE;
  return copy(stream, target, source, bytes);
}

EXPORT Result cuMemsetD8Async(u64 target, u8 value, u64 bytes, Stream* stream) {
  if (const Result sticky = usable()) return sticky;
  if (!emulator::is_allocated(reinterpret_cast<void*>(target), bytes)) return INVALID_VALUE;
  Node node = {};
  node.kind = Node::FILL;
  node.target = reinterpret_cast<void*>(target);
  node.value = value;
  node.bytes = bytes;
  return submit(stream, node);
}

EXPORT Result cuStreamCreate(Stream** stream, u32) {
  *stream = static_cast<Stream*>(calloc(1, sizeof(Stream)));
  return usable();
}

EXPORT Result cuStreamDestroy_v2(Stream* stream) {
  free(stream);
  return SUCCESS;
}

EXPORT Result cuStreamSynchronize(Stream* stream) { return stream->capturing ? Result(CAPTURE_UNSUPPORTED) : usable(); }
EXPORT Result cuStreamWaitEvent(Stream*, void*, u32) { return usable(); }

EXPORT Result cuEventCreate(void** event, u32) {
  *event = malloc(1);
  return usable();
}
EXPORT Result cuEventDestroy_v2(void* event) {
  free(event);
  return SUCCESS;
}
EXPORT Result cuEventRecord(void*, Stream*) { return usable(); }
EXPORT Result cuEventSynchronize(void*) { return usable(); }
EXPORT Result cuEventElapsedTime_v2(float* milliseconds, void*, void*) {
  *milliseconds = 0;
  return usable();
}

// The image is not run, but it must be one: PTX, a cubin or a fat binary.
EXPORT Result cuModuleLoadData(Module** module, const void* image) {
  if (const Result sticky = usable()) return sticky;
  u32 magic;
  memcpy(&magic, image, 4);
  const bool binary = magic == 0x464c457fu || magic == 0xba55ed50u;
  if (!binary && strstr(static_cast<const char*>(image), ".version") == nullptr) return INVALID_IMAGE;
  *module = static_cast<Module*>(calloc(1, sizeof(Module)));
  return SUCCESS;
}

EXPORT Result cuModuleUnload(Module* module) {
  for (Function* function = module->functions; function != nullptr;) {
    Function* const next = function->next;
    free(function);
    function = next;
  }
  free(module);
  return SUCCESS;
}

EXPORT Result cuModuleGetFunction(Function** out, Module* module, const char* name) {
  const emulator::Kernel* const kernel = emulator::find_kernel(name);
  if (kernel == nullptr) return NOT_FOUND;
  Function* const function = static_cast<Function*>(malloc(sizeof(Function)));
  *function = {kernel, SHARED_BYTES, module->functions};
  module->functions = function;
  *out = function;
  return usable();
}

EXPORT Result cuFuncSetAttribute(Function* function, int attribute, int value) {
  if (attribute != 8 || value < 0 || static_cast<u32>(value) > SHARED_BYTES_OPTIN) return INVALID_VALUE;
  function->shared_bytes_max = static_cast<u32>(value);
  return usable();
}

EXPORT Result cuLaunchKernel(Function* function, u32 grid_x, u32 grid_y, u32 grid_z, u32 block_x, u32 block_y,
                             u32 block_z, u32 shared_bytes, Stream* stream, void** parameters, void** extra) {
  if (const Result sticky = usable()) return sticky;
  if (grid_x == 0 || grid_y == 0 || grid_z == 0 || block_x == 0 || grid_y > 65535 || grid_z > 65535) return INVALID_VALUE;
  if (block_y != 1 || block_z != 1 || extra != nullptr) return INVALID_VALUE;
  if (block_x > function->kernel->threads_max || shared_bytes > function->shared_bytes_max)
    return LAUNCH_OUT_OF_RESOURCES;
  Node node = {};
  node.kind = Node::LAUNCH;
  node.launch = {function->kernel, parameters[0], {grid_x, grid_y, grid_z}, block_x, shared_bytes, current->ordinal == 1};
  return submit(stream, node);
}

EXPORT Result cuStreamBeginCapture_v2(Stream* stream, int) {
  if (const Result sticky = usable()) return sticky;
  Graph* const graph = static_cast<Graph*>(malloc(sizeof(Graph)));
  *graph = {nullptr, &graph->first};
  stream->capturing = graph;
  return SUCCESS;
}

EXPORT Result cuStreamEndCapture(Stream* stream, Graph** graph) {
  *graph = stream->capturing;
  stream->capturing = nullptr;
  return *graph == nullptr ? INVALID_VALUE : SUCCESS;
}

EXPORT Result cuGraphInstantiateWithFlags(Graph** executable, const Graph* graph, u64) {
  *executable = copy_of(graph);
  return usable();
}

EXPORT Result cuGraphDestroy(Graph* graph) {
  free_graph(graph);
  return SUCCESS;
}

EXPORT Result cuGraphExecDestroy(Graph* graph) {
  free_graph(graph);
  return SUCCESS;
}

EXPORT Result cuGraphLaunch(const Graph* graph, Stream*) {
  if (const Result sticky = usable()) return sticky;
  for (const Node* node = graph->first; node != nullptr; node = node->next)
    if (const Result result = execute(*node)) return result;
  return SUCCESS;
}
