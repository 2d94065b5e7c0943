/* The part of the CUDA driver that scrfd_ros asks, for tests on machines without a GPU.
 *
 * SIMULATED_CUDA chooses what it answers: "no device" (cuInit fails with 100, as on a machine
 * whose GPU is missing), "no devices" (it counts 0), or else one device. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int is(const char *text) {
    const char *value = getenv("SIMULATED_CUDA");
    return value && strcmp(value, text) == 0;
}

int cuInit(unsigned flags) { return is("no device") ? 100 : 0; }
int cuDeviceGetCount(int *count) { *count = is("no devices") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Simulated", size); return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : 7;
    return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 100 ? "no CUDA-capable device is detected" : "unknown error";
    return 0;
}

/* Memory is told only in a current context, of which there is one. */
static int retained, pushed;

int cuDevicePrimaryCtxRetain(void **context, int device) {
    retained++;
    *context = &retained;
    return device;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return --retained < 0; }
int cuCtxPushCurrent_v2(void *context) { return pushed += 1, context != &retained || !retained; }
int cuCtxPopCurrent_v2(void **context) { *context = &retained; return --pushed < 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = (size_t)5 << 30;
    *total = (size_t)8 << 30;
    return pushed ? 0 : 201;
}
int simulated_contexts(void) { return retained + pushed; }

/* CUDA graphs: work that is put on a stream while it is captured is kept instead of done.
 * SIMULATED_CUDA "no graphs" lets the capture fail. */
static void *capturing;
static void (*recorded)(void);

int simulated_record(void (*work)(void)) {
    if (capturing) recorded = work;
    return capturing != 0;
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    capturing = stream;
    return mode == 1 ? 0 : 1;
}
int cuStreamEndCapture(void *stream, void **graph) {
    int right = stream == capturing && recorded && !is("no graphs");
    capturing = 0;
    *graph = (void *)(uintptr_t)recorded;
    return right ? 0 : 901;
}
int cuGraphInstantiateWithFlags(void **launchable, void *graph, unsigned long long flags) {
    *launchable = graph;
    return flags ? 1 : 0;
}
int cuGraphDestroy(void *graph) { return graph ? 0 : 1; }
int cuGraphExecDestroy(void *launchable) { return launchable ? 0 : 1; }
int cuGraphLaunch(void *launchable, void *stream) {
    ((void (*)(void))(uintptr_t)launchable)();
    return stream ? 0 : 1;
}
