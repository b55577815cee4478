/* The operators of the domain `onnxprune`, as ONNX Runtime asks for them.
 *
 * Each is a standard operator whose weight is a constant with many zeros, and what follows it: SparseConvAddRelu is Conv, Add
 * and Relu. A file has a function of the same name with just these nodes, which runs where this library is not registered.
 * Nothing here trusts a file: sizes come from tensors that ONNX Runtime has checked, and every number is looked at before use.
 */
#include "operators.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A node of a session. */
typedef struct {
    const Operator *of;
    const OrtFunction *api;
    OrtAllocator *allocator;
    const Loops *loops;
    Window window;    /* of a convolution: all but sizes */
    int64_t trans_b;  /* of a Gemm */
    size_t groups;    /* entries of `packed` */
    Packed **packed;  /* null where the weight is no constant: then it is packed at every run */
    int64_t sizes[MOST_RANK];
    size_t rank;      /* of the weight */
} Kernel;

struct Threads {
    const OrtFunction *api;
    OrtKernelContext *context;
    OrtAllocator *allocator;
};

/* A tensor, as far as it is needed; absent where `data` is null. */
typedef struct {
    const float *data;
    size_t rank, count;
    int64_t sizes[MOST_RANK];
} Tensor;

static OrtStatus *fail(const OrtFunction *api, const char *message) {
    return ORT(api, CreateStatus)(ORT_INVALID_ARGUMENT, message);
}

void run_units(const Threads *threads, void (*work)(void *, size_t), size_t units, void *argument) {
    OrtStatus *status =
        units > 1 ? ORT(threads->api, KernelContext_ParallelFor)(threads->context, work, units, 0, argument) : NULL;
    if (units != 1 && !status) return;
    if (status) ORT(threads->api, ReleaseStatus)(status);
    for (size_t unit = 0; unit < units; unit++) work(argument, unit);
}

void *borrow(const Threads *threads, size_t bytes) {
    void *memory = NULL;
    OrtStatus *status = ORT(threads->api, AllocatorAlloc)(threads->allocator, bytes ? bytes : 1, &memory);
    if (status) ORT(threads->api, ReleaseStatus)(status);
    return memory;
}

void give_back(const Threads *threads, void *memory) {
    if (!memory) return;
    OrtStatus *status = ORT(threads->api, AllocatorFree)(threads->allocator, memory);
    if (status) ORT(threads->api, ReleaseStatus)(status);
}

static OrtStatus *look_at(const OrtFunction *api, const OrtValue *value, Tensor *tensor) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    memset(tensor, 0, sizeof *tensor);
    if (!value) return NULL;
    TRY(ORT(api, GetTensorTypeAndShape)(value, &info));
    int type = 0;
    OrtStatus *status = ORT(api, GetTensorElementType)(info, &type);
    if (!status) status = ORT(api, GetDimensionsCount)(info, &tensor->rank);
    if (!status && (type != ONNX_FLOAT || tensor->rank > MOST_RANK)) status = fail(api, "a tensor of float32 is needed");
    if (!status) status = ORT(api, GetDimensions)(info, tensor->sizes, tensor->rank);
    ORT(api, ReleaseTensorTypeAndShapeInfo)(info);
    TRY(status);
    tensor->count = 1;
    for (size_t i = 0; i < tensor->rank; i++) tensor->count *= (size_t)tensor->sizes[i];
    return ORT(api, GetTensorMutableData)(value, (void **)&tensor->data);
}

/* The weight of a node becomes packed weights, one for each group. */
static OrtStatus *pack_weight(const Kernel *kernel, const Tensor *weight, Packed **packed) {
    size_t rows = (size_t)weight->sizes[0], columns = rows ? weight->count / rows : 0, groups = kernel->groups;
    for (size_t g = 0; g < groups; g++) {
        const float *data = weight->data + g * (rows / groups) * columns;
        if (kernel->of->kind == MATMUL || (kernel->of->kind == GEMM && !kernel->trans_b))
            packed[g] = pack(kernel->loops, data, (size_t)weight->sizes[1], rows, 1, (size_t)weight->sizes[1]);
        else
            packed[g] = pack(kernel->loops, data, rows / groups, columns, columns, 1);
        if (!packed[g]) return fail(kernel->api, "no memory for the weights");
        if (kernel->of->kind != CONV) narrow(packed[g]); /* which a convolution reads once for many positions */
    }
    return NULL;
}

static void free_weight(Packed **packed, size_t groups) {
    for (size_t g = 0; packed && g < groups; g++) free_packed(packed[g]);
    free(packed);
}

static OrtStatus *check_weight(const Kernel *kernel, const Tensor *weight) {
    int conv = kernel->of->kind == CONV;
    if (conv ? weight->rank != 3 && weight->rank != 4 : weight->rank != 2)
        return fail(kernel->api, conv ? "the weight must have 3 or 4 axes" : "the weight must have 2 axes");
    for (size_t i = 0; i < weight->rank; i++)
        if (weight->sizes[i] < 1 || weight->sizes[i] > INT32_MAX) return fail(kernel->api, "the weight is empty");
    if (weight->count > UINT32_MAX) return fail(kernel->api, "the weight has too many elements");
    if (conv && weight->sizes[0] % (int64_t)kernel->groups) return fail(kernel->api, "groups do not divide the outputs");
    return NULL;
}

/* An attribute of integers; the default where there is none. Those of one axis are the last `count / 2` of two. */
static OrtStatus *integers(const OrtFunction *api, const OrtKernelInfo *info, const char *name, int64_t *out, size_t axes) {
    int64_t read[4];
    size_t count = 0, pads = axes / 3; /* 4 numbers are those of pads */
    OrtStatus *status = ORT(api, KernelInfoGetAttributeArray_int64)(info, name, NULL, &count);
    if (status) { /* there is none */
        ORT(api, ReleaseStatus)(status);
        return NULL;
    }
    if (count == 0) return NULL;
    if (count != axes && count != axes / 2) return fail(api, "an attribute has too many or too few numbers");
    TRY(ORT(api, KernelInfoGetAttributeArray_int64)(info, name, read, &count));
    if (count == axes)
        memcpy(out, read, count * sizeof *out);
    else if (pads) /* before and after the one axis, which is the second of two */
        out[1] = read[0], out[3] = read[1];
    else
        out[1] = read[0];
    return NULL;
}

static OrtStatus *integer(const OrtFunction *api, const OrtKernelInfo *info, const char *name, int64_t *out) {
    OrtStatus *status = ORT(api, KernelInfoGetAttribute_int64)(info, name, out);
    if (status) ORT(api, ReleaseStatus)(status);
    return NULL;
}

static OrtStatus *read_node(Kernel *kernel, const OrtKernelInfo *info) {
    Window *window = &kernel->window;
    window->groups = window->stride[0] = window->stride[1] = window->dilation[0] = window->dilation[1] = 1;
    kernel->groups = 1;
    TRY(ORT(kernel->api, KernelInfoGetAllocator)(info, 0, &kernel->allocator));
    if (kernel->of->kind == GEMM) TRY(integer(kernel->api, info, "transB", &kernel->trans_b));
    if (kernel->of->kind == CONV) {
        TRY(integers(kernel->api, info, "strides", window->stride, 2));
        TRY(integers(kernel->api, info, "dilations", window->dilation, 2));
        TRY(integers(kernel->api, info, "pads", window->pad, 4));
        TRY(integer(kernel->api, info, "group", &window->groups));
        if (window->groups < 1 || window->groups > INT32_MAX) return fail(kernel->api, "group must be at least 1");
        kernel->groups = (size_t)window->groups;
    }
    int constant = 0;
    const OrtValue *value = NULL;
    Tensor weight;
    OrtStatus *status = ORT(kernel->api, KernelInfoGetConstantInput_tensor)(info, W, &constant, &value);
    if (status) { /* no constant: nothing was folded */
        ORT(kernel->api, ReleaseStatus)(status);
        return NULL;
    }
    if (!constant || !value) return NULL;
    TRY(look_at(kernel->api, value, &weight));
    TRY(check_weight(kernel, &weight));
    memcpy(kernel->sizes, weight.sizes, sizeof weight.sizes);
    kernel->rank = weight.rank;
    kernel->packed = calloc(kernel->groups, sizeof *kernel->packed);
    if (!kernel->packed) return fail(kernel->api, "no memory for the weights");
    return pack_weight(kernel, &weight, kernel->packed);
}

void ORT_CALL destroy_kernel(void *made) {
    Kernel *kernel = made;
    free_weight(kernel->packed, kernel->groups);
    if (kernel->allocator) ORT(kernel->api, ReleaseAllocator)(kernel->allocator);
    free(kernel);
}

OrtStatus *ORT_CALL create_kernel(const OrtCustomOp *op, const OrtFunction *api, const OrtKernelInfo *info, void **out) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) return fail(api, "no memory");
    kernel->of = (const Operator *)op, kernel->api = api, kernel->loops = best_loops();
    OrtStatus *status = read_node(kernel, info);
    if (status) {
        destroy_kernel(kernel);
        return status;
    }
    *out = kernel;
    return NULL;
}

/* A run of a node. */
typedef struct {
    const Kernel *kernel;
    OrtKernelContext *context;
    Packed *const *packed;
    Threads threads;
    Tensor x, bias, residual;
    Finish finish;
} Run;

static OrtStatus *output(const Run *run, const int64_t *sizes, size_t rank, float **y) {
    OrtValue *value = NULL;
    TRY(ORT(run->kernel->api, KernelContext_GetOutput)(run->context, 0, sizes, rank, &value));
    return ORT(run->kernel->api, GetTensorMutableData)(value, (void **)y);
}

static OrtStatus *run_conv(const Run *run, const int64_t *weight, size_t rank) {
    const OrtFunction *api = run->kernel->api;
    const Tensor *x = &run->x, *residual = &run->residual;
    Window window = run->kernel->window;
    if (x->rank != rank) return fail(api, "input and weight must have as many axes");
    window.batch = x->sizes[0], window.channels = x->sizes[1], window.outputs = weight[0];
    window.height = rank == 4 ? x->sizes[2] : 1, window.width = x->sizes[rank - 1];
    window.kernel[0] = rank == 4 ? weight[2] : 1, window.kernel[1] = weight[rank - 1];
    if (rank == 3) { /* of two numbers the first was read */
        window.stride[0] = window.dilation[0] = 1, window.pad[0] = window.pad[2] = 0;
    }
    if (!measure_window(&window)) return fail(api, "sizes, strides, dilations and pads do not fit each other");
    if (window.channels / window.groups != weight[1]) return fail(api, "input and weight have different numbers of channels");
    int64_t sizes[4] = {window.batch, window.outputs, window.out[0], window.out[1]};
    if (rank == 3) sizes[2] = window.out[1];
    if (residual->data && (residual->rank != rank || memcmp(residual->sizes, sizes, rank * sizeof *sizes)))
        return fail(api, "what is added must have the shape of the output");
    float *y = NULL;
    TRY(output(run, sizes, rank, &y));
    if (window.batch == 0) return NULL;
    if (convolve(run->kernel->loops, run->packed, &run->finish, &window, x->data, residual->data, y, &run->threads))
        return fail(api, "no memory");
    return NULL;
}

static OrtStatus *run_product(const Run *run) {
    const OrtFunction *api = run->kernel->api;
    const Tensor *x = &run->x;
    const Packed *packed = run->packed[0];
    int64_t sizes[MOST_RANK];
    if (x->rank < 1 || x->sizes[x->rank - 1] != (int64_t)packed->columns) return fail(api, "input and weight do not fit");
    memcpy(sizes, x->sizes, sizeof sizes);
    sizes[x->rank - 1] = (int64_t)packed->rows;
    float *y = NULL;
    TRY(output(run, sizes, x->rank, &y));
    size_t tokens = x->count / packed->columns;
    if (tokens && matrix_product(run->kernel->loops, packed, &run->finish, x->data, tokens, y, &run->threads))
        return fail(api, "no memory");
    return NULL;
}

/* The inputs behind the weight: bias, residual, bounds. */
static OrtStatus *read_inputs(Run *run) {
    const Kernel *kernel = run->kernel;
    const OrtFunction *api = kernel->api;
    Tensor tensor[6];
    size_t count = 0, at = B;
    memset(tensor, 0, sizeof tensor);
    TRY(ORT(api, KernelContext_GetInputCount)(run->context, &count));
    for (size_t i = 0; i < count && i < kernel->of->inputs; i++) {
        const OrtValue *value = NULL;
        if (i == W) continue;
        TRY(ORT(api, KernelContext_GetInput)(run->context, i, &value));
        TRY(look_at(api, value, &tensor[i]));
    }
    run->x = tensor[X];
    if (kernel->of->kind != MATMUL || kernel->of->adds) run->bias = tensor[at++];
    if (kernel->of->kind == CONV && kernel->of->adds) run->residual = tensor[at++];
    run->finish.low = kernel->of->bounds == RELU ? 0 : -INFINITY, run->finish.high = INFINITY;
    if (kernel->of->bounds == CLIP) {
        const Tensor *low = &tensor[at], *high = &tensor[at + 1];
        if ((low->data && low->count != 1) || (high->data && high->count != 1)) return fail(api, "a bound must be one number");
        if (low->data) run->finish.low = *low->data;
        if (high->data) run->finish.high = *high->data;
    }
    return NULL;
}

static OrtStatus *run_packed(Run *run, const int64_t *weight, size_t rank) {
    size_t rows = run->packed[0]->rows * run->kernel->groups;
    if (run->bias.data && (run->bias.rank != 1 || run->bias.count != rows))
        return fail(run->kernel->api, "the bias must have one number for each output");
    run->finish.bias = run->bias.data;
    if (run->kernel->of->adds && run->kernel->of->kind == CONV && !run->residual.data)
        return fail(run->kernel->api, "what is added is missing");
    return run->kernel->of->kind == CONV ? run_conv(run, weight, rank) : run_product(run);
}

OrtStatus *ORT_CALL compute_kernel(void *made, OrtKernelContext *context) {
    const Kernel *kernel = made;
    Run run = {.kernel = kernel, .context = context, .packed = kernel->packed};
    run.threads = (Threads){kernel->api, context, kernel->allocator};
    TRY(read_inputs(&run));
    if (kernel->packed) return run_packed(&run, kernel->sizes, kernel->rank);
    const OrtValue *value = NULL;
    Tensor weight;
    TRY(ORT(kernel->api, KernelContext_GetInput)(context, W, &value));
    TRY(look_at(kernel->api, value, &weight));
    TRY(check_weight(kernel, &weight));
    Packed **packed = calloc(kernel->groups, sizeof *packed);
    if (!packed) return fail(kernel->api, "no memory for the weights");
    OrtStatus *status = pack_weight(kernel, &weight, packed);
    run.packed = packed;
    if (!status) status = run_packed(&run, weight.sizes, weight.rank);
    free_weight(packed, kernel->groups);
    return status;
}
