/*
 * llama.cpp as the other side of a comparison, through its C interface: loads a model once, then does what each line
 * on standard input asks for and answers with a line of JSON. Ends when its input ends.
 *
 *   llama-peer LIBRARY BACKENDS MODEL THREADS SEQUENCES CONTEXT KV_TYPE
 *
 *   flash 0|1                      do what follows without or with flash attention
 *   first TOKENS                   compute a prompt, choose the token behind it and answer at once
 *   prefill TOKENS                 the same, answered when the threads are at rest
 *   decode STEPS DEPTH SEQUENCES   generate that many tokens of each sequence behind that many others
 *   memory                         the most memory this process ever had in use
 *
 * The library is opened at run time, so this program is compiled without its headers; what it needs of them is
 * declared below as release v0.5.0 has it, and `check_layout` refuses a library that says otherwise.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define RELEASE "0.5.0"

struct model_params {
    void *devices, *buffer_overrides;
    int32_t gpu_layers, split_mode, load_mode, lazy_mode, main_gpu;
    const float *tensor_split;
    void *progress, *progress_data;
    const void *metadata_overrides;
    bool vocabulary_only, check_tensors, use_extra_buffers, no_host, no_allocation, load_mtp;
};

struct context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch;
    int32_t context_type, rope_scaling_type, pooling_type, attention_type, flash_attention;
    float rope_base, rope_scale, yarn_extension, yarn_attention, yarn_fast, yarn_slow;
    uint32_t yarn_original_context;
    float defragmentation;
    void *evaluated, *evaluated_data;
    int32_t key_type, value_type;
    void *abort, *abort_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void *samplers;
    size_t sampler_count;
    void *other;
};

struct batch {
    int32_t n_tokens;
    int32_t *token;
    float *embedding;
    int32_t *position, *n_seq_id, **seq_id;
    int8_t *wants_logits;
};

/* The first field is a list of processors. */
struct pool_params {
    bool processors[512];
    int32_t n_threads, priority;
    uint32_t poll;
    bool strict, paused;
};

#define FUNCTIONS(X) \
    X(const char *, llama_version, (void)) \
    X(void, llama_log_set, (void (*)(int, const char *, void *), void *)) \
    X(void, ggml_backend_load_all_from_path, (const char *)) \
    X(void, llama_backend_init, (void)) \
    X(struct model_params, llama_model_default_params, (void)) \
    X(struct context_params, llama_context_default_params, (void)) \
    X(void *, llama_model_load_from_file, (const char *, struct model_params)) \
    X(void *, llama_init_from_model, (void *, struct context_params)) \
    X(const void *, llama_model_get_vocab, (const void *)) \
    X(int32_t, llama_vocab_n_tokens, (const void *)) \
    X(void *, llama_get_memory, (const void *)) \
    X(void, llama_memory_clear, (void *, bool)) \
    X(bool, llama_memory_seq_rm, (void *, int32_t, int32_t, int32_t)) \
    X(void, llama_memory_seq_cp, (void *, int32_t, int32_t, int32_t, int32_t)) \
    X(struct batch, llama_batch_init, (int32_t, int32_t, int32_t)) \
    X(int32_t, llama_decode, (void *, struct batch)) \
    X(void, llama_synchronize, (void *)) \
    X(float *, llama_get_logits_ith, (void *, int32_t)) \
    X(const char *, llama_print_system_info, (void)) \
    X(void, llama_attach_threadpool, (void *, void *, void *)) \
    X(struct pool_params, ggml_threadpool_params_default, (int)) \
    X(void *, ggml_backend_reg_by_name, (const char *)) \
    X(void *, ggml_backend_reg_get_proc_address, (void *, const char *))

#define DECLARE(type, name, arguments) static type (*name) arguments;
FUNCTIONS(DECLARE)

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static void open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) fail("cannot load llama.cpp: %s", dlerror());
#define LOOK_UP(type, name, arguments) \
    if (!(name = (type (*) arguments)dlsym(library, #name))) fail("%s has no function " #name, path);
    FUNCTIONS(LOOK_UP)
}

/* Known defaults at their places in the structs say that these are laid out as declared above. */
static void check_layout(void) {
    const char *release = llama_version();
    if (!strstr(release, RELEASE)) fail("this is llama.cpp %s, not " RELEASE, release);
    struct model_params model = llama_model_default_params();
    struct context_params context = llama_context_default_params();
    struct pool_params pool = ggml_threadpool_params_default(3);
    bool as_declared = model.use_extra_buffers && !model.vocabulary_only && context.n_ctx == 512 && context.n_batch == 2048 &&
        context.n_ubatch == 512 && context.n_seq_max == 1 && context.flash_attention == -1 && context.key_type == 1 &&
        context.value_type == 1 && context.offload_kqv && !context.embeddings && !context.sampler_count && pool.n_threads == 3;
    if (!as_declared) fail("the structs of this llama.cpp %s are not those of " RELEASE, release);
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

static void only_errors(int level, const char *text, void *data) {
    (void)data;
    if (level == 4) fputs(text, stderr);
}

/* With flash attention and without: a context each, over the same weights. */
struct side {
    void *context, *memory;
    /* Tokens of sequence 0, and how many sequences have as many. */
    int depth, sequences;
};

static void *model;
static struct side sides[2], *side;
static struct context_params wanted;
static struct batch batch;
static int vocabulary;
static unsigned random_state = 12345;

static void use_side(int flash) {
    side = &sides[flash];
    if (side->context) return;
    struct context_params params = wanted;
    params.flash_attention = flash;
    side->context = llama_init_from_model(model, params);
    if (!side->context) fail("llama.cpp makes no context of %u tokens %s flash attention", params.n_ctx, flash ? "with" : "without");
    side->memory = llama_get_memory(side->context);
    /* Without one, llama.cpp starts and ends its threads at every step. */
    void *backend = ggml_backend_reg_by_name("CPU");
    void *(*new_pool)(struct pool_params *) = backend ? (void *(*)(struct pool_params *))ggml_backend_reg_get_proc_address(backend, "ggml_threadpool_new") : NULL;
    if (!new_pool) fail("llama.cpp's CPU backend makes no thread pool");
    struct pool_params pool = ggml_threadpool_params_default(params.n_threads);
    void *threads = new_pool(&pool);
    if (!threads) fail("llama.cpp cannot start %d threads", params.n_threads);
    llama_attach_threadpool(side->context, threads, threads);
}

static int random_token(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return (int)((random_state >> 8) % (unsigned)vocabulary);
}

static void add(int token, int position, int sequence, bool wants_logits) {
    int row = batch.n_tokens++;
    batch.token[row] = token;
    batch.position[row] = position;
    batch.n_seq_id[row] = 1;
    batch.seq_id[row][0] = sequence;
    batch.wants_logits[row] = wants_logits;
}

static void compute(void) {
    if (batch.n_tokens == 0) return;
    int status = llama_decode(side->context, batch);
    if (status) fail("llama_decode ended with %d", status);
    llama_synchronize(side->context);
    batch.n_tokens = 0;
}

/* The likeliest token of a row of the last step: its largest logit, in sixteen lanes. */
static int likeliest(int row) {
    const float *logits = llama_get_logits_ith(side->context, row);
    if (!logits) fail("llama.cpp has no logits of row %d", row);
    float largest[16];
    for (int lane = 0; lane < 16; lane++) largest[lane] = logits[lane < vocabulary ? lane : 0];
    int index = 16;
    for (; index + 16 <= vocabulary; index += 16)
        for (int lane = 0; lane < 16; lane++) largest[lane] = logits[index + lane] > largest[lane] ? logits[index + lane] : largest[lane];
    for (; index < vocabulary; index++) largest[0] = logits[index] > largest[0] ? logits[index] : largest[0];
    for (int lane = 1; lane < 16; lane++) largest[0] = largest[lane] > largest[0] ? largest[lane] : largest[0];
    for (int token = 0; token < vocabulary; token++) if (logits[token] == largest[0]) return token;
    return 0;
}

/* Tokens of sequence 0 up to `end`; the last one's logits are wanted. */
static void extend(int begin, int end) {
    for (int position = begin; position < end; position++) {
        if (batch.n_tokens == (int)wanted.n_batch) compute();
        add(random_token(), position, 0, position == end - 1);
    }
    compute();
}

static void prefill(int tokens) {
    llama_memory_clear(side->memory, false);
    side->sequences = 0;
    side->depth = 0;
    extend(0, tokens);
    likeliest(-1);
}

/* Takes what was generated away again. */
static void rewind_to(int depth, int sequences) {
    for (int sequence = 0; sequence < sequences; sequence++) llama_memory_seq_rm(side->memory, sequence, depth, -1);
}

/* Sequences of `depth` tokens each: computed once, then copied. */
static void fill(int depth, int sequences) {
    if (depth == 0 || depth < side->depth || side->sequences == 0) {
        llama_memory_clear(side->memory, false);
        side->depth = 0;
        side->sequences = 1;
    }
    rewind_to(side->depth, side->sequences);
    if (depth > side->depth) {
        extend(side->depth, depth);
        side->depth = depth;
        side->sequences = 1;
    }
    for (; side->sequences < sequences; side->sequences++) {
        llama_memory_seq_rm(side->memory, side->sequences, -1, -1);
        if (depth > 0) llama_memory_seq_cp(side->memory, 0, side->sequences, -1, -1);
    }
}

static void generate(int steps, int depth, int sequences) {
    int tokens[wanted.n_seq_max];
    for (int sequence = 0; sequence < sequences; sequence++) tokens[sequence] = random_token();
    for (int step = 0; step < steps; step++) {
        for (int sequence = 0; sequence < sequences; sequence++) add(tokens[sequence], depth + step, sequence, true);
        compute();
        for (int sequence = 0; sequence < sequences; sequence++) tokens[sequence] = likeliest(sequence);
    }
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

static void answer(const char *line) {
    int a, b, c;
    double processor_s = processor_seconds(), begin = now();
    if (sscanf(line, "flash %d", &a) == 1 && (a == 0 || a == 1)) {
        use_side(a);
        printf("{\"seconds\":%.9f}\n", now() - begin);
    } else if (sscanf(line, "first %d", &a) == 1 && a > 0) {
        prefill(a);
        printf("{\"seconds\":%.9f}\n", now() - begin);
    } else if (sscanf(line, "prefill %d", &a) == 1 && a > 0) {
        prefill(a);
        answer_time(now() - begin, processor_s);
    } else if (sscanf(line, "decode %d %d %d", &a, &b, &c) == 3 && a > 0 && b >= 0 && c > 0 && c <= (int)wanted.n_seq_max) {
        fill(b, c);
        /* The other side has been at the caches since. */
        generate(1, b, c);
        rewind_to(b, c);
        begin = now();
        generate(a, b, c);
        double seconds = now() - begin;
        rewind_to(b, c);
        answer_time(seconds, processor_s);
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
    if (count != 8) fail("llama-peer LIBRARY BACKENDS MODEL THREADS SEQUENCES CONTEXT KV_TYPE");
    open_library(arguments[1]);
    check_layout();
    llama_log_set(only_errors, NULL);
    ggml_backend_load_all_from_path(arguments[2]);
    llama_backend_init();

    double begin = now();
    struct model_params params = llama_model_default_params();
    params.gpu_layers = 0;
    model = llama_model_load_from_file(arguments[3], params);
    if (!model) fail("llama.cpp cannot load %s", arguments[3]);
    double load_s = now() - begin;
    vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));

    wanted = llama_context_default_params();
    wanted.n_threads = wanted.n_threads_batch = atoi(arguments[4]);
    wanted.n_seq_max = (uint32_t)atoi(arguments[5]);
    wanted.n_ctx = wanted.n_seq_max * ((uint32_t)(atoi(arguments[6]) + 255) / 256 * 256);
    wanted.key_type = wanted.value_type = atoi(arguments[7]);
    wanted.offload_kqv = wanted.op_offload = wanted.swa_full = false;
    batch = llama_batch_init((int32_t)wanted.n_batch, 0, 1);

    printf("{\"release\":\"%s\",\"load_seconds\":%.6f,\"system\":\"%s\"}\n", llama_version(), load_s, llama_print_system_info());
    fflush(stdout);
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    /* Threads that wait in a pool keep a proper end waiting. */
    _Exit(0);
}
