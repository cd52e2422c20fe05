/* What host and kernels share: fixed-width names and the structs that every kernel's parameters are made of.
 * C, read three times: by the CUDA compiler, by the emulator's C++ compiler and by Zig, which takes its own
 * structs from it (translate-c), so that there is one declaration of each. */
#ifndef MISTRAL_TYPES_H
#define MISTRAL_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef int i32;

enum { DIMS_MAX = 16 };

/* Lives in device memory, one per program; written by `step_begin` at the start of every step. */
struct Step {
  /* The symbolic dimensions of this step. They may be less than those that the grids were made for. */
  u32 dims[DIMS_MAX];
  /* 0, or what the first kernel that met a wrong input says: see `report_fault`. */
  u32 fault;
  u32 spare;
  /* Host-visible word that gets a copy of `fault`. */
  u32 *host_fault;
};

/* A leading dimension: `addend`, plus dimension `symbol - 1` of the step when symbol is not 0. */
struct Leading {
  struct Step *step;
  u32 symbol;
  u32 addend;
};

/* Rows of f32; `stride` counts elements from one row to the next. */
struct Matrix {
  float *data;
  u64 stride;
};

/* Reasons of `report_fault`, in the order of `fault.zig`. */
enum Fault {
  FAULT_NONE = 0,
  FAULT_TOKEN_ID = 1,
  FAULT_SLOT = 2,
  FAULT_ROW = 3,
  FAULT_SEQUENCE_STARTS = 4,
  FAULT_CONTEXT_LENGTH = 5,
  FAULT_BLOCK_TABLE = 6,
  FAULT_SAMPLING = 7,
};

#endif
