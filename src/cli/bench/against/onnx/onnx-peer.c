/*
 * ONNX Runtime as the other side of a comparison, through its C interface: loads a decoder that `decoder-graph.ts`
 * wrote, then does what each line on standard input asks for and answers with a line of JSON. Ends when its input ends.
 *
 *   onnx-peer LIBRARY MODEL THREADS SEQUENCES CONTEXT LAYERS KV_HEADS HEAD_DIM VOCABULARY
 *
 *   first TOKENS                   compute a prompt, choose the token behind it and answer at once
 *   prefill TOKENS                 the same, answered when the threads are at rest
 *   decode STEPS DEPTH SEQUENCES   generate that many tokens of each sequence behind that many others
 *   logits PROMPT SEQUENCES T,...  compute the first PROMPT of these tokens as a prompt and the others one by one in
 *                                  so many sequences; the logits of the last one of them
 *   memory                         the most memory this process ever had in use
 *
 * Keys and values stay where they are: the graph's past and its present are the same memory. The library is opened at
 * run time, so this program is compiled without its headers; what it needs of them is declared below.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* The functions up to here have their places since this version of the interface; later ones come behind them. */
#define API_VERSION 17

typedef void *status;

/* OrtApi is a table of functions that only ever grows: these are the places of those used here. */
struct api {
    void *before_error_message[2];
    const char *(*error_message)(status);
    status (*create_environment)(int level, const char *name, void **out);
    void *before_session[3];
    status (*create_session)(const void *environment, const char *path, const void *options, void **out);
    void *before_run[1];
    status (*run)(void *session, const void *options, const char *const *input_names, const void *const *inputs, size_t input_count,
                  const char *const *output_names, size_t output_count, void **outputs);
    status (*create_session_options)(void **out);
    void *before_optimization_level[12];
    status (*set_optimization_level)(void *options, int level);
    status (*set_intra_op_threads)(void *options, int count);
    status (*set_inter_op_threads)(void *options, int count);
    void *before_tensor[23];
    status (*create_tensor)(const void *memory_info, void *data, size_t bytes, const int64_t *shape, size_t rank, int type, void **out);
    void *before_memory_info[19];
    status (*create_memory_info)(int allocator_type, int memory_type, void **out);
    void *before_release_value[26];
    void (*release_value)(void *value);
};

_Static_assert(offsetof(struct api, create_session) == 7 * sizeof(void *), "place of CreateSession");
_Static_assert(offsetof(struct api, run) == 9 * sizeof(void *), "place of Run");
_Static_assert(offsetof(struct api, set_optimization_level) == 23 * sizeof(void *), "place of SetSessionGraphOptimizationLevel");
_Static_assert(offsetof(struct api, create_tensor) == 49 * sizeof(void *), "place of CreateTensorWithDataAsOrtValue");
_Static_assert(offsetof(struct api, create_memory_info) == 69 * sizeof(void *), "place of CreateCpuMemoryInfo");
_Static_assert(offsetof(struct api, release_value) == 96 * sizeof(void *), "place of ReleaseValue");

struct api_base {
    const struct api *(*get_api)(uint32_t version);
    const char *(*version)(void);
};

enum { FLOAT = 1, INT32 = 6, INT64 = 7 };
enum { OPTIMIZE_ALL = 99, ONLY_ERRORS = 3, ARENA = 1 };
enum { PROMPT_ROWS = 512, NAME_BYTES = 32 };

static const struct api *api;
static const char *version;
static void *session, *memory_info;
static int sequences_max, context, layers, kv_heads, head_dim, vocabulary;
static unsigned random_state = 12345;

/* Keys and values by turns, of all layers: f32 [sequences, heads, context, head_dim] each. */
static float **cache;
/* By number of sequences: the caches of that many, and their logits. */
static void ***cache_values, **logit_values;
static float *logits;
/* Names of the graph's inputs and outputs: three, or one, then the caches'. */
static const char **input_names, **output_names;
/* Tokens of sequence 0 in its cache, and how many sequences have as many. */
static int filled, filled_sequences;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static void expect_ok(status result, const char *what) {
    if (result) fail("ONNX Runtime cannot %s: %s", what, api->error_message(result));
}

static void *allocate(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (!memory) fail("no memory for %zu times %zu bytes", count, bytes);
    return memory;
}

static void open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail("cannot load ONNX Runtime: %s", dlerror());
    const struct api_base *(*base)(void) = (const struct api_base *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!base) fail("%s has no function OrtGetApiBase", path);
    version = base()->version();
    api = base()->get_api(API_VERSION);
    if (!api) fail("ONNX Runtime %s does not offer version %d of its interface", version, API_VERSION);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static double processor_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void *tensor(void *data, size_t bytes, const int64_t *shape, size_t rank, int type) {
    void *value;
    expect_ok(api->create_tensor(memory_info, data, bytes, shape, rank, type, &value), "make a tensor");
    return value;
}

/* Sequences lie one behind the other, so fewer of them are the beginning of the same memory. */
static void make_values(void) {
    size_t elements = (size_t)sequences_max * kv_heads * context * head_dim;
    int caches = 2 * layers;
    cache = allocate(caches, sizeof *cache);
    for (int index = 0; index < caches; index++) cache[index] = allocate(elements, sizeof(float));
    logits = allocate((size_t)sequences_max * vocabulary, sizeof(float));
    cache_values = allocate(sequences_max + 1, sizeof *cache_values);
    logit_values = allocate(sequences_max + 1, sizeof *logit_values);
    for (int64_t count = 1; count <= sequences_max; count++) {
        int64_t cache_shape[] = {count, kv_heads, context, head_dim}, logit_shape[] = {count, vocabulary};
        cache_values[count] = allocate(caches, sizeof(void *));
        for (int index = 0; index < caches; index++)
            cache_values[count][index] = tensor(cache[index], elements / sequences_max * count * sizeof(float), cache_shape, 4, FLOAT);
        logit_values[count] = tensor(logits, (size_t)count * vocabulary * sizeof(float), logit_shape, 2, FLOAT);
    }
}

static void make_names(void) {
    input_names = allocate(3 + 2 * layers, sizeof *input_names);
    output_names = allocate(1 + 2 * layers, sizeof *output_names);
    input_names[0] = "input_ids";
    input_names[1] = "seqlens_k";
    input_names[2] = "total_sequence_length";
    output_names[0] = "logits";
    for (int index = 0; index < 2 * layers; index++) {
        char *past = allocate(2, NAME_BYTES), *present = past + NAME_BYTES;
        const char *kind = index % 2 ? "value" : "key";
        snprintf(past, NAME_BYTES, "past.%d.%s", index / 2, kind);
        snprintf(present, NAME_BYTES, "present.%d.%s", index / 2, kind);
        input_names[3 + index] = past;
        output_names[1 + index] = present;
    }
}

/* The next `rows` tokens of each sequence behind `depth` others; their last logits lie in `logits`. */
static void compute(const int64_t *tokens, int rows, int depth, int sequences) {
    if (depth + rows > context) fail("%d tokens do not fit into a context of %d", depth + rows, context);
    int32_t total = depth + rows, lengths[sequences];
    for (int sequence = 0; sequence < sequences; sequence++) lengths[sequence] = total - 1;
    int64_t token_shape[] = {sequences, rows}, length_shape[] = {sequences};
    void *values[3] = {
        tensor((void *)tokens, sizeof(int64_t) * sequences * rows, token_shape, 2, INT64),
        tensor(lengths, sizeof(int32_t) * sequences, length_shape, 1, INT32),
        tensor(&total, sizeof total, NULL, 0, INT32),
    };
    int caches = 2 * layers;
    const void *inputs[3 + caches];
    void *outputs[1 + caches];
    for (int index = 0; index < 3; index++) inputs[index] = values[index];
    outputs[0] = logit_values[sequences];
    for (int index = 0; index < caches; index++) inputs[3 + index] = outputs[1 + index] = cache_values[sequences][index];
    expect_ok(api->run(session, NULL, input_names, inputs, 3 + caches, output_names, 1 + caches, outputs), "compute a step");
    for (int index = 0; index < 3; index++) api->release_value(values[index]);
}

static int random_token(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return (int)((random_state >> 8) % (unsigned)vocabulary);
}

/* The likeliest token of a sequence: its largest logit, in sixteen lanes. */
static int likeliest(int sequence) {
    const float *row = logits + (size_t)sequence * vocabulary;
    float largest[16];
    for (int lane = 0; lane < 16; lane++) largest[lane] = row[lane < vocabulary ? lane : 0];
    int index = 16;
    for (; index + 16 <= vocabulary; index += 16)
        for (int lane = 0; lane < 16; lane++) largest[lane] = row[index + lane] > largest[lane] ? row[index + lane] : largest[lane];
    for (; index < vocabulary; index++) largest[0] = row[index] > largest[0] ? row[index] : largest[0];
    for (int lane = 1; lane < 16; lane++) largest[0] = largest[lane] > largest[0] ? largest[lane] : largest[0];
    for (int token = 0; token < vocabulary; token++) if (row[token] == largest[0]) return token;
    return 0;
}

/* Tokens of sequence 0 up to `end`, as many at a time as pay. */
static void extend(int begin, int end) {
    int64_t tokens[PROMPT_ROWS];
    while (begin < end) {
        int rows = end - begin < PROMPT_ROWS ? end - begin : PROMPT_ROWS;
        for (int row = 0; row < rows; row++) tokens[row] = random_token();
        compute(tokens, rows, begin, 1);
        begin += rows;
    }
}

static void prefill(int tokens) {
    filled = filled_sequences = 0;
    extend(0, tokens);
    likeliest(0);
}

/* The first `depth` tokens of sequence 0 in `sequences` of them. */
static void copy_sequence(int depth, int from, int sequences) {
    size_t head = (size_t)context * head_dim, bytes = (size_t)depth * head_dim * sizeof(float);
    for (int index = 0; index < 2 * layers; index++)
        for (int sequence = from; sequence < sequences; sequence++)
            for (int h = 0; h < kv_heads; h++) memcpy(cache[index] + ((size_t)sequence * kv_heads + h) * head, cache[index] + h * head, bytes);
}

/* Sequences of `depth` tokens each: computed once, then copied. */
static void fill(int depth, int sequences) {
    if (depth < filled) filled = filled_sequences = 0;
    if (depth > filled) {
        extend(filled, depth);
        filled = depth;
        filled_sequences = 1;
    }
    if (filled_sequences < 1) filled_sequences = 1;
    copy_sequence(depth, filled_sequences, sequences);
    if (sequences > filled_sequences) filled_sequences = sequences;
}

static void generate(int steps, int depth, int sequences) {
    int64_t tokens[sequences_max];
    for (int sequence = 0; sequence < sequences; sequence++) tokens[sequence] = random_token();
    for (int step = 0; step < steps; step++) {
        compute(tokens, 1, depth + step, sequences);
        for (int sequence = 0; sequence < sequences; sequence++) tokens[sequence] = likeliest(sequence);
    }
}

static void answer_logits(int prompt, int sequences, char *list) {
    int64_t tokens[PROMPT_ROWS], row[sequences_max];
    int count = 0;
    for (char *word = strtok(list, ","); word && count < PROMPT_ROWS; word = strtok(NULL, ",")) tokens[count++] = atoi(word);
    if (prompt > count) fail("a prompt of %d tokens, and %d are given", prompt, count);
    filled = filled_sequences = 0;
    compute(tokens, prompt, 0, 1);
    if (prompt < count) copy_sequence(prompt, 1, sequences);
    for (int position = prompt; position < count; position++) {
        for (int sequence = 0; sequence < sequences; sequence++) row[sequence] = tokens[position];
        compute(row, 1, position, sequences);
    }
    const float *last = logits + (size_t)(prompt < count ? sequences - 1 : 0) * vocabulary;
    for (int token = 0; token < vocabulary; token++) printf("%s%.9g", token ? "," : "{\"logits\":[", last[token]);
    puts("]}");
}

/* Answers when the threads have come to rest: they spin for a while, and the other side's turn is next. */
static void answer_time(double seconds, double processor_s_before) {
    struct timespec pause = {0, 20000000};
    for (int tries = 0; tries < 250; tries++) {
        double before = processor_seconds();
        nanosleep(&pause, NULL);
        if (processor_seconds() - before < 0.001) break;
    }
    printf("{\"seconds\":%.9f,\"processor_seconds\":%.6f}\n", seconds, processor_seconds() - processor_s_before);
}

static void answer(char *line) {
    int a, b, c, list = 0;
    double processor_s = processor_seconds(), begin = now();
    if (sscanf(line, "first %d", &a) == 1 && a > 0) {
        prefill(a);
        printf("{\"seconds\":%.9f}\n", now() - begin);
    } else if (sscanf(line, "prefill %d", &a) == 1 && a > 0) {
        prefill(a);
        answer_time(now() - begin, processor_s);
    } else if (sscanf(line, "decode %d %d %d", &a, &b, &c) == 3 && a > 0 && b >= 0 && c > 0 && c <= sequences_max) {
        fill(b, c);
        /* The other side has been at the caches since. */
        generate(1, b, c);
        begin = now();
        generate(a, b, c);
        answer_time(now() - begin, processor_s);
    } else if (sscanf(line, "logits %d %d %n", &a, &b, &list) == 2 && a > 0 && b > 0 && b <= sequences_max && list > 0) {
        answer_logits(a, b, line + list);
    } else if (!strcmp(line, "memory")) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
        printf("{\"peak_bytes\":%ld}\n", usage.ru_maxrss);
#else
        printf("{\"peak_bytes\":%ld}\n", usage.ru_maxrss * 1024);
#endif
    } else {
        fail("not understood: %s", line);
    }
    fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 10) fail("onnx-peer LIBRARY MODEL THREADS SEQUENCES CONTEXT LAYERS KV_HEADS HEAD_DIM VOCABULARY");
    open_library(arguments[1]);
    sequences_max = atoi(arguments[4]);
    context = atoi(arguments[5]);
    layers = atoi(arguments[6]);
    kv_heads = atoi(arguments[7]);
    head_dim = atoi(arguments[8]);
    vocabulary = atoi(arguments[9]);

    double begin = now();
    void *environment, *options;
    expect_ok(api->create_environment(ONLY_ERRORS, "bench", &environment), "begin");
    expect_ok(api->create_session_options(&options), "make options");
    expect_ok(api->set_optimization_level(options, OPTIMIZE_ALL), "set its optimisation");
    /* As many threads as asked for, which spin between ops: its default, and its fastest. */
    expect_ok(api->set_intra_op_threads(options, atoi(arguments[3])), "set its threads");
    expect_ok(api->set_inter_op_threads(options, 1), "set its threads");
    expect_ok(api->create_memory_info(ARENA, 0, &memory_info), "describe memory");
    expect_ok(api->create_session(environment, arguments[2], options, &session), "load the model");
    double load_s = now() - begin;
    make_values();
    make_names();

    printf("{\"release\":\"%s\",\"load_seconds\":%.6f,\"system\":\"\"}\n", version, load_s);
    fflush(stdout);
    char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    /* Threads that wait in a pool keep a proper end waiting. */
    _Exit(0);
}
