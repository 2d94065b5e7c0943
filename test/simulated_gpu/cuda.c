/* SPDX-License-Identifier: Apache-2.0
 * The part of the CUDA driver that scrfd_ros uses, for tests on machines without a GPU.
 *
 * It is stricter than the real one where a mistake could go unseen:
 * - Work on a stream is done when the stream is synchronized, no sooner. Until then the
 *   destination of a copy to the host holds bytes of 0xff, which are NaN as floats.
 * - Memory of the device can be reached only while work is done, else the process ends with
 *   SIGSEGV. So it does behind the end of an allocation. New memory holds 0xff.
 * - Asynchronous copies need pinned memory, and all of both sides has to lie within one
 *   allocation. Handles have to be of the right kind, and alive. Streams are created ones.
 * - While a thread records a graph, it must neither allocate nor free nor wait.
 *
 * A kernel runs as a function of its name in kernels.so beside this library, compiled with
 * cuda_words.h; its parameters are those that the PTX declares.
 *
 * SIMULATED_CUDA chooses what goes wrong: "no devices" counts 0; "FUNCTION STATUS" lets a
 * function fail, "FUNCTION STATUS CALLS" after so many calls that work. Functions whose names
 * begin with simulated_ are for tests and for what stands in for TensorRT.
 *
 * Meaning of functions and numbers: CUDA Driver API, cuda.h of 12.6. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

enum { DRIVER_VERSION = 12060, MAJOR = 8, MINOR = 7 };
enum { MAX_PARAMETERS = 8, MAX_THREADS = 1024, ALIGNMENT = 16, TEXT = 256 };
static const size_t TOTAL = (size_t)8 << 30, OTHERS = (size_t)3 << 30; /* used by others */
static const size_t FILLED = (size_t)64 << 20; /* more than networks take: all of a block of theirs */

/* --- Failures ------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static __thread int last_status;
static __thread char last_text[TEXT];

static int refuse(int status, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(last_text, TEXT, format, values);
    va_end(values);
    return last_status = status;
}

/* The status that SIMULATED_CUDA asks for; 0 if it asks for none. */
static int fault(const char *function) {
    static char known[TEXT];
    static int calls;
    char name[TEXT];
    int status = 0, working = 0;
    const char *value = getenv("SIMULATED_CUDA");
    if (strncmp(known, value ? value : "", TEXT - 1)) {
        strncpy(known, value ? value : "", TEXT - 1);
        calls = 0;
    }
    if (!value || sscanf(value, "%255s %d %d", name, &status, &working) < 2) return 0;
    if (strcmp(name, function) || calls++ < working) return 0;
    return last_status = 0, status;
}

int cuGetErrorString(int status, const char **text) {
    if (status && status == last_status) return *text = last_text, 0;
    switch (status) {
        case OUT_OF_MEMORY: *text = "out of memory"; break;
        case NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
        case INVALID_CONTEXT: *text = "invalid device context"; break;
        case INVALID_PTX: *text = "a PTX JIT compilation failed"; break;
        case INVALID_HANDLE: *text = "invalid resource handle"; break;
        case ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
        case CAPTURE_UNSUPPORTED: *text = "operation not permitted when stream is capturing"; break;
        case CAPTURE_INVALIDATED: *text = "operation failed due to a previous error during capture"; break;
        default: *text = "unknown error";
    }
    return 0;
}

/* --- Device and context --------------------------------------------------- */

static int initialized, retained;
static __thread int pushed;

int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int status = visible && !strcmp(visible, "-1") ? NO_DEVICE : fault("cuInit");
    initialized = !status;
    return status;
}

int cuDriverGetVersion(int *version) { return *version = DRIVER_VERSION, 0; }

int cuDeviceGetCount(int *count) {
    const char *value = getenv("SIMULATED_CUDA");
    if (!initialized) return refuse(3, "cuInit was not called");
    *count = !(value && strcmp(value, "no devices") == 0);
    return 0;
}

int cuDeviceGet(int *device, int ordinal) {
    if (!initialized) return refuse(3, "cuInit was not called");
    *device = ordinal;
    return ordinal ? 101 : 0;
}

int cuDeviceGetName(char *name, int size, int device) {
    return strncpy(name, "Simulated", size), device;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? MAJOR : MINOR;
    return attribute == 75 || attribute == 76 ? device : INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    int status = fault("cuDevicePrimaryCtxRetain");
    if (status) return status;
    retained++;
    *context = &retained;
    return device;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    return device || --retained < 0 ? INVALID_CONTEXT : 0;
}

int cuCtxPushCurrent_v2(void *context) {
    int status = fault("cuCtxPushCurrent_v2");
    if (status) return status;
    if (context != &retained || !retained) return refuse(INVALID_CONTEXT, "not retained");
    return pushed++, 0;
}

int cuCtxPopCurrent_v2(void **context) {
    if (!pushed) return refuse(INVALID_CONTEXT, "no context is current in this thread");
    pushed--;
    if (context) *context = &retained;
    return 0;
}

/* Every other function begins with ENTER and ends with LEAVE. */
static int broken; /* a status that stays, after work on a stream has failed */

static int enter(const char *function) {
    pthread_mutex_lock(&mutex);
    int status = fault(function);
    if (status) return status;
    if (!pushed) return refuse(INVALID_CONTEXT, "%s without a current context", function);
    if (broken) return broken;
    return 0;
}

static int leave(int status) {
    pthread_mutex_unlock(&mutex);
    return status;
}

#define LEAVE(status) return leave(status)
#define ENTER                               \
    do {                                    \
        int status_ = enter(__func__);      \
        if (status_) LEAVE(status_);        \
    } while (0)
#define CHECK(call)                         \
    do {                                    \
        int status_ = (call);               \
        if (status_) LEAVE(status_);        \
    } while (0)

/* --- Memory --------------------------------------------------------------- */

typedef struct Region {
    struct Region *next;
    char *start, *pages;
    size_t size, mapped;
    int on_device;
} Region;

static Region *regions;
static size_t used[2]; /* bytes on the host, on the device */
static int working; /* depth: work is being done, so the device's memory can be reached */

static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static void protect(int protection) {
    for (Region *each = regions; each; each = each->next)
        if (each->on_device) mprotect(each->pages, each->mapped - page(), protection);
}

static void begin_work(void) {
    if (!working++) protect(PROT_READ | PROT_WRITE);
}

static void end_work(void) {
    if (!--working) protect(PROT_NONE);
}

/* The end of the memory is the end of a page, and the next page cannot be reached. */
static int allocate(void **address, size_t size, int on_device) {
    size_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t pages = (rounded + page() - 1) / page() * page();
    if (!size) return refuse(INVALID_VALUE, "an allocation of 0 bytes");
    if (on_device && used[1] + size > TOTAL - OTHERS) return refuse(OUT_OF_MEMORY, "out of memory");
    Region *region = calloc(1, sizeof *region);
    region->mapped = pages + page();
    region->pages = mmap(0, region->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region->pages == MAP_FAILED) return free(region), refuse(OUT_OF_MEMORY, "out of memory");
    memset(region->pages, 0xff, pages < FILLED ? pages : FILLED);
    region->start = region->pages + pages - rounded;
    region->size = size;
    region->on_device = on_device;
    mprotect(region->pages + pages, page(), PROT_NONE);
    if (on_device && !working) mprotect(region->pages, pages, PROT_NONE);
    region->next = regions;
    regions = region;
    used[on_device] += size;
    *address = region->start;
    return 0;
}

static int release(void *address, int on_device) {
    for (Region **link = &regions; *link; link = &(*link)->next) {
        Region *region = *link;
        if (region->start != address || region->on_device != on_device) continue;
        *link = region->next;
        used[on_device] -= region->size;
        munmap(region->pages, region->mapped);
        free(region);
        return 0;
    }
    return refuse(INVALID_VALUE, "freed, but not allocated: %p", address);
}

static int check_range(const void *address, size_t size, int on_device) {
    const char *start = address;
    for (Region *each = regions; each; each = each->next)
        if (each->on_device == on_device && each->start <= start &&
            start + size <= each->start + each->size)
            return 0;
    return refuse(INVALID_VALUE, "%zu bytes at %p are not in one allocation of %s", size, address,
                  on_device ? "the device" : "pinned memory");
}

/* --- Handles: streams, events, modules, functions, graphs ------------------ */

typedef enum { STREAM, EVENT, MODULE, FUNCTION, GRAPH, EXECUTABLE } Kind;
static const char *const kinds[] = {"stream", "event", "module", "function", "graph", "executable graph"};
typedef enum { COPY_IN, COPY_OUT, RECORD, CALL, KERNEL } Action;

typedef struct Object Object;

typedef struct Work {
    struct Work *next;
    Action action;
    void *to, *from; /* of a copy; `to` is the event, the function or the callback of others */
    size_t size;
    unsigned grid[3], block[3];
    uint64_t parameters[MAX_PARAMETERS];
} Work;

struct Object {
    Object *next;
    Kind kind;
    Work *first, *last; /* of a stream what waits; of graphs what was recorded */
    /* of a stream */
    Object *recording; /* a graph */
    pthread_t thread;
    int is_invalid;
    /* of an event */
    int is_recorded, waiting, is_captured, has_no_time;
    double milliseconds;
    /* of a module its text; of a function its module, parameters and code */
    char *text;
    Object *module;
    int count, sizes[MAX_PARAMETERS];
    void *code;
    unsigned *indices[4]; /* threadIdx, blockIdx, blockDim, gridDim */
};

static Object *objects;

static Object *create(Kind kind) {
    Object *object = calloc(1, sizeof *object);
    object->kind = kind;
    object->next = objects;
    return objects = object;
}

static int check(void *handle, Kind kind) {
    for (Object *each = objects; each; each = each->next)
        if (each == handle && each->kind == kind) return 0;
    return refuse(INVALID_HANDLE, "%p is no %s", handle, kinds[kind]);
}

static void forget_work(Object *object) {
    while (object->first) {
        Work *work = object->first;
        object->first = work->next;
        free(work);
    }
    object->last = NULL;
}

static void destroy(Object *object) {
    Object **link = &objects;
    while (*link != object) link = &(*link)->next;
    *link = object->next;
    forget_work(object);
    free(object->text);
    free(object);
}

static void append(Object *object, const Work *work) {
    Work *copy = malloc(sizeof *copy);
    *copy = *work;
    copy->next = NULL;
    if (object->last) object->last->next = copy;
    else object->first = copy;
    object->last = copy;
}

/* --- Work on streams ------------------------------------------------------- */

/* A thread that records a graph must not do what could wait for the device. */
static int check_not_recording(void) {
    for (Object *each = objects; each; each = each->next)
        if (each->kind == STREAM && each->recording && pthread_equal(each->thread, pthread_self())) {
            each->is_invalid = 1;
            return refuse(CAPTURE_UNSUPPORTED, "not allowed while this thread records a graph");
        }
    return 0;
}

static int check_work(const Work *work) {
    int status = 0;
    if (work->action == COPY_IN || work->action == COPY_OUT) {
        status = check_range(work->to, work->size, work->action == COPY_IN);
        if (!status) status = check_range(work->from, work->size, work->action == COPY_OUT);
    } else if (work->action == RECORD) {
        status = check(work->to, EVENT);
    } else if (work->action == KERNEL) {
        status = check(work->to, FUNCTION);
    }
    return status;
}

static void queue(Object *stream, const Work *work) {
    if (work->action == COPY_OUT) memset(work->to, 0xff, work->size);
    if (work->action == RECORD) {
        Object *event = work->to;
        event->is_recorded = 1;
        event->is_captured = 0;
        event->waiting++;
    }
    append(stream, work);
}

static int put(void *stream, const Work *work) {
    Object *object = stream;
    int status = check(stream, STREAM);
    if (!status) status = check_work(work);
    if (status) return status;
    if (!object->recording) return queue(object, work), 0;
    if (work->action == RECORD) ((Object *)work->to)->is_captured = 1;
    return append(object->recording, work), 0;
}

static void next(unsigned index[3], const unsigned size[3]) {
    for (int axis = 0; axis < 3; axis++) {
        if (++index[axis] < size[axis]) return;
        index[axis] = 0;
    }
}

static void call_kernel(const Work *work) {
    typedef void (*Code)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    const Object *kernel = work->to;
    const uint64_t *p = work->parameters;
    unsigned *thread = kernel->indices[0], *block = kernel->indices[1];
    size_t blocks = (size_t)work->grid[0] * work->grid[1] * work->grid[2];
    size_t threads = (size_t)work->block[0] * work->block[1] * work->block[2];
    memcpy(kernel->indices[2], work->block, sizeof work->block);
    memcpy(kernel->indices[3], work->grid, sizeof work->grid);
    memset(thread, 0, 3 * sizeof *thread);
    memset(block, 0, 3 * sizeof *block);
    for (size_t i = 0; i < blocks; i++, next(block, work->grid))
        for (size_t j = 0; j < threads; j++, next(thread, work->block))
            ((Code)kernel->code)(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
}

static int carry_out(const Work *work) {
    struct timespec now;
    Object *event = work->to;
    /* What was there when the work was queued may be gone. */
    if (check_work(work)) {
        if (work->action == RECORD) return 0;
        return refuse(ILLEGAL_ADDRESS, "an illegal memory access was encountered");
    }
    switch (work->action) {
        case COPY_IN:
        case COPY_OUT: memcpy(work->to, work->from, work->size); break;
        case KERNEL: call_kernel(work); break;
        case CALL: return ((int (*)(void))work->to)() ? ILLEGAL_ADDRESS : 0;
        case RECORD:
            clock_gettime(CLOCK_MONOTONIC, &now);
            event->milliseconds = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
            event->waiting--;
            break;
    }
    return 0;
}

static int finish(Object *stream) {
    begin_work();
    while (stream->first && !broken) {
        Work *work = stream->first;
        stream->first = work->next;
        if (!stream->first) stream->last = NULL;
        broken = carry_out(work);
        free(work);
    }
    end_work();
    if (broken) forget_work(stream);
    return broken;
}

static void finish_all(void) { /* as freeing memory does */
    for (Object *each = objects; each && !working; each = each->next)
        if (each->kind == STREAM) finish(each);
}

/* --- The driver's functions ------------------------------------------------ */

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER;
    *total = TOTAL;
    *free = TOTAL - OTHERS - used[1];
    LEAVE(0);
}

int cuMemAlloc_v2(void **address, size_t size) {
    ENTER;
    CHECK(check_not_recording());
    LEAVE(allocate(address, size, 1));
}

int cuMemFree_v2(void *address) {
    ENTER;
    CHECK(check_not_recording());
    finish_all();
    LEAVE(release(address, 1));
}

int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    ENTER;
    CHECK(check_not_recording());
    if (flags) LEAVE(refuse(INVALID_VALUE, "flags of pinned memory"));
    LEAVE(allocate(address, size, 0));
}

int cuMemFreeHost(void *address) {
    ENTER;
    CHECK(check_not_recording());
    finish_all();
    LEAVE(release(address, 0));
}

int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
    ENTER;
    LEAVE(put(stream, &(Work){.action = COPY_IN, .to = to, .from = (void *)from, .size = size}));
}

int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t size, void *stream) {
    ENTER;
    LEAVE(put(stream, &(Work){.action = COPY_OUT, .to = to, .from = from, .size = size}));
}

int cuStreamCreate(void **stream, unsigned flags) {
    ENTER;
    if (flags > 1) LEAVE(refuse(INVALID_VALUE, "flags of a stream"));
    *stream = create(STREAM);
    LEAVE(0);
}

int cuStreamSynchronize(void *stream) {
    ENTER;
    CHECK(check(stream, STREAM));
    CHECK(check_not_recording());
    LEAVE(finish(stream));
}

int cuStreamDestroy_v2(void *stream) {
    ENTER;
    CHECK(check(stream, STREAM));
    finish(stream);
    destroy(stream);
    LEAVE(0);
}

int cuEventCreate(void **event, unsigned flags) {
    ENTER;
    if (flags & ~3u) LEAVE(refuse(INVALID_VALUE, "flags of an event"));
    *event = create(EVENT);
    ((Object *)*event)->has_no_time = flags >> 1 & 1;
    LEAVE(0);
}

int cuEventRecord(void *event, void *stream) {
    ENTER;
    LEAVE(put(stream, &(Work){.action = RECORD, .to = event}));
}

int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    ENTER;
    const Object *both[] = {start, end};
    for (int i = 0; i < 2; i++) {
        CHECK(check((void *)both[i], EVENT));
        if (both[i]->is_captured) LEAVE(refuse(CAPTURED_EVENT, "an event in a graph has no time"));
        if (!both[i]->is_recorded) LEAVE(refuse(INVALID_HANDLE, "the event was not recorded"));
        if (both[i]->has_no_time) LEAVE(refuse(INVALID_HANDLE, "the event takes no time"));
        if (both[i]->waiting) LEAVE(refuse(NOT_READY, "device not ready"));
    }
    *milliseconds = (float)(both[1]->milliseconds - both[0]->milliseconds);
    LEAVE(0);
}

int cuEventDestroy_v2(void *event) {
    ENTER;
    CHECK(check(event, EVENT));
    destroy(event);
    LEAVE(0);
}

int cuModuleLoadData(void **module, const char *text) {
    ENTER;
    CHECK(check_not_recording());
    int target = 0;
    const char *found = strstr(text, ".target sm_");
    if (strstr(text, ".version ") == NULL || !found || !strstr(text, ".address_size 64"))
        LEAVE(refuse(INVALID_PTX, "no PTX for 64 bit"));
    if (sscanf(found, ".target sm_%d", &target) != 1 || target > MAJOR * 10 + MINOR)
        LEAVE(refuse(INVALID_PTX, "PTX for sm_%d, the device is %d.%d", target, MAJOR, MINOR));
    Object *object = create(MODULE);
    object->text = strdup(text);
    *module = object;
    LEAVE(0);
}

int cuModuleUnload(void *module) {
    ENTER;
    CHECK(check(module, MODULE));
    for (Object *each = objects, *after; each; each = after) {
        after = each->next;
        if (each->module == module) destroy(each);
    }
    destroy(module);
    LEAVE(0);
}

/* Reads the sizes of a kernel's parameters, which begin at `text`. */
static int read_parameters(Object *function, const char *text, const char *name) {
    const char *end = strchr(text, ')');
    for (; (text = strstr(text, ".param ")) && text < end; text += strlen(".param ")) {
        char type;
        int bits;
        if (sscanf(text, ".param .%c%d", &type, &bits) != 2 || !strchr("usb", type) ||
            (bits != 32 && bits != 64) || function->count == MAX_PARAMETERS)
            return refuse(INVALID_PTX, "%s: at most %d parameters, integers and addresses", name, MAX_PARAMETERS);
        function->sizes[function->count++] = bits / 8;
    }
    return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    static const char *const indices[] = {"threadIdx", "blockIdx", "blockDim", "gridDim"};
    char path[4096], entry[TEXT];
    Dl_info here;
    ENTER;
    CHECK(check(module, MODULE));
    snprintf(entry, TEXT, ".entry %s(", name);
    const char *text = strstr(((Object *)module)->text, entry);
    if (!text) LEAVE(refuse(NOT_FOUND, "no kernel %s in the PTX", name));
    dladdr((void *)cuModuleGetFunction, &here);
    snprintf(path, sizeof path, "%.*s/kernels.so", (int)(strrchr(here.dli_fname, '/') - here.dli_fname), here.dli_fname);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *code = library ? dlsym(library, name) : NULL;
    if (!code) LEAVE(refuse(NOT_FOUND, "%s", dlerror()));
    Object *object = create(FUNCTION);
    object->code = code;
    object->module = module;
    for (int i = 0; i < 4; i++) object->indices[i] = dlsym(library, indices[i]);
    int status = read_parameters(object, text, name);
    if (status) destroy(object);
    else *function = object;
    LEAVE(status);
}

/* Parameters come one by one, or in a buffer, see CU_LAUNCH_PARAM_BUFFER_POINTER and _SIZE. */
static int take_parameters(const Object *function, Work *work, void **each, void **extra) {
    const char *buffer = NULL;
    size_t size = 0, offset = 0;
    for (; !each && extra && *extra; extra += 2) {
        if (*extra == (void *)1) buffer = extra[1];
        else if (*extra == (void *)2) size = *(size_t *)extra[1];
    }
    for (int i = 0; i < function->count; i++) {
        size_t bytes = function->sizes[i];
        offset = (offset + bytes - 1) / bytes * bytes;
        if (!each && offset + bytes > size) return refuse(INVALID_VALUE, "too few parameters");
        const void *from = each ? each[i] : buffer + offset;
        if (!from) return refuse(INVALID_VALUE, "parameter %d is missing", i);
        memcpy(&work->parameters[i], from, bytes);
        offset += bytes;
    }
    return !each && offset != size ? refuse(INVALID_VALUE, "too many parameters") : 0;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **each,
                   void **extra) {
    ENTER;
    Work work = {.action = KERNEL, .to = function, .grid = {grid_x, grid_y, grid_z},
                 .block = {block_x, block_y, block_z}};
    CHECK(check(function, FUNCTION));
    size_t threads = (size_t)block_x * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || grid_y > 65535 || grid_z > 65535 || !threads ||
        threads > MAX_THREADS || block_z > 64)
        LEAVE(refuse(INVALID_VALUE, "a grid of %ux%ux%u blocks of %ux%ux%u threads", grid_x, grid_y,
                     grid_z, block_x, block_y, block_z));
    if (shared) LEAVE(refuse(INVALID_VALUE, "shared memory"));
    CHECK(take_parameters(function, &work, each, extra));
    LEAVE(put(stream, &work));
}

/* --- Graphs ----------------------------------------------------------------- */

int cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER;
    CHECK(check(stream, STREAM));
    Object *object = stream;
    if (mode != 1) LEAVE(refuse(INVALID_VALUE, "other threads would be disturbed"));
    if (object->recording) LEAVE(refuse(CAPTURE_INVALIDATED, "the stream is recorded already"));
    object->recording = create(GRAPH);
    object->thread = pthread_self();
    object->is_invalid = 0;
    LEAVE(0);
}

int cuStreamEndCapture(void *stream, void **graph) {
    Object *object = stream;
    int status = enter(__func__);
    *graph = NULL;
    if (check(stream, STREAM) || !object->recording)
        LEAVE(refuse(CAPTURE_UNMATCHED, "the stream is not recorded"));
    if (!pthread_equal(object->thread, pthread_self()))
        LEAVE(refuse(CAPTURE_WRONG_THREAD, "another thread began to record"));
    if (!status && object->is_invalid)
        status = refuse(CAPTURE_INVALIDATED, "operation failed due to a previous error during capture");
    if (status) destroy(object->recording);
    else *graph = object->recording;
    object->recording = NULL; /* it ends, whether it succeeds or not */
    LEAVE(status);
}

int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    ENTER;
    CHECK(check(graph, GRAPH));
    if (flags) LEAVE(refuse(INVALID_VALUE, "flags of a graph"));
    Object *object = create(EXECUTABLE);
    for (Work *each = ((Object *)graph)->first; each; each = each->next) append(object, each);
    *executable = object;
    LEAVE(0);
}

int cuGraphDestroy(void *graph) {
    ENTER;
    CHECK(check(graph, GRAPH));
    destroy(graph);
    LEAVE(0);
}

int cuGraphExecDestroy(void *executable) {
    ENTER;
    CHECK(check(executable, EXECUTABLE));
    destroy(executable);
    LEAVE(0);
}

int cuGraphLaunch(void *executable, void *stream) {
    ENTER;
    CHECK(check(executable, EXECUTABLE));
    CHECK(check(stream, STREAM));
    CHECK(check_not_recording());
    for (Work *each = ((Object *)executable)->first; each; each = each->next) {
        if (each->action == RECORD) continue;
        if (check_work(each)) LEAVE(refuse(ILLEGAL_ADDRESS, "the graph uses what was freed"));
        queue(stream, each);
    }
    LEAVE(0);
}

/* --- For cuda-python -------------------------------------------------------- */

/* Functions by the names and versions of the interface by which cuda-python asks for them. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    static const char *const endings[] = {"_v2", ""};
    char full[TEXT];
    Dl_info here;
    dladdr((void *)cuGetProcAddress_v2, &here);
    void *library = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    *function = NULL;
    for (int i = 0; i < 2 && !*function && version <= DRIVER_VERSION; i++) {
        snprintf(full, TEXT, "%s%s", name, endings[i]);
        *function = dlsym(library, full);
    }
    if (found) *found = *function ? 0 : 1;
    return *function || flags > 2 ? 0 : NOT_FOUND;
}

/* --- For tests, and for what stands in for TensorRT -------------------------- */

/* Queues `work`, which returns 0, or else breaks the context. */
int simulated_enqueue(void *stream, int (*work)(void)) {
    ENTER;
    LEAVE(put(stream, &(Work){.action = CALL, .to = (void *)work}));
}

int simulated_is_recording(void *stream) {
    ENTER;
    CHECK(check(stream, STREAM));
    LEAVE(((Object *)stream)->recording != NULL);
}

int simulated_is_on_device(void *address, size_t size) { return !check_range(address, size, 1); }
int simulated_has_context(void) { return pushed > 0; }
int simulated_contexts(void) { return retained + pushed; }
size_t simulated_memory(int on_device) { return used[on_device]; }

int simulated_handles(void) {
    int count = 0;
    for (Object *each = objects; each; each = each->next) count++;
    return count;
}

/* As a new process would find the driver; what is allocated stays. */
void simulated_restart(void) { broken = 0; }
