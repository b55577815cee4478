/* The entry of the library: its operators, and their registration with the options of a session. */
#include "operators.h"

#include <stdatomic.h>

/* Name of the operator, its kind, what it adds, its bounds, the number of inputs. */
#define OPERATORS(F)                                                                                                          \
    F(SparseConv, CONV, 0, PLAIN, 3)                                                                                          \
    F(SparseConvRelu, CONV, 0, RELU, 3)                                                                                       \
    F(SparseConvClip, CONV, 0, CLIP, 5)                                                                                       \
    F(SparseConvAdd, CONV, 1, PLAIN, 4)                                                                                       \
    F(SparseConvAddRelu, CONV, 1, RELU, 4)                                                                                    \
    F(SparseConvAddClip, CONV, 1, CLIP, 6)                                                                                    \
    F(SparseMatMul, MATMUL, 0, PLAIN, 2)                                                                                      \
    F(SparseMatMulRelu, MATMUL, 0, RELU, 2)                                                                                   \
    F(SparseMatMulAdd, MATMUL, 1, PLAIN, 3)                                                                                   \
    F(SparseMatMulAddRelu, MATMUL, 1, RELU, 3)                                                                                \
    F(SparseGemm, GEMM, 0, PLAIN, 3)                                                                                          \
    F(SparseGemmRelu, GEMM, 0, RELU, 3)

static const char *ORT_CALL name_of(const OrtCustomOp *op) { return ((const Operator *)op)->name; }
static const char *ORT_CALL provider_of(const OrtCustomOp *op) { return (void)op, NULL; } /* the CPU */
static size_t ORT_CALL inputs_of(const OrtCustomOp *op) { return ((const Operator *)op)->inputs; }
static size_t ORT_CALL outputs_of(const OrtCustomOp *op) { return (void)op, 1; }
static int ORT_CALL type_of(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ONNX_FLOAT; }
static int ORT_CALL input_need(const OrtCustomOp *op, size_t index) { return (void)op, index > W ? ORT_OPTIONAL : ORT_REQUIRED; }
static int ORT_CALL output_need(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_REQUIRED; }
static int ORT_CALL memory_of(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
static int ORT_CALL one(const OrtCustomOp *op) { return (void)op, 1; }

#define OPERATOR(NAME, KIND, ADDS, BOUNDS, INPUTS)                                                                            \
    {.op = {.version = 16,                                                                                                    \
            .GetName = name_of,                                                                                               \
            .GetExecutionProviderType = provider_of,                                                                          \
            .GetInputType = type_of,                                                                                          \
            .GetInputTypeCount = inputs_of,                                                                                   \
            .GetOutputType = type_of,                                                                                         \
            .GetOutputTypeCount = outputs_of,                                                                                 \
            .KernelDestroy = destroy_kernel,                                                                                  \
            .GetInputCharacteristic = input_need,                                                                             \
            .GetOutputCharacteristic = output_need,                                                                           \
            .GetInputMemoryType = memory_of,                                                                                  \
            .GetVariadicInputMinArity = one,                                                                                  \
            .GetVariadicInputHomogeneity = one,                                                                               \
            .GetVariadicOutputMinArity = one,                                                                                 \
            .GetVariadicOutputHomogeneity = one,                                                                              \
            .CreateKernelV2 = create_kernel,                                                                                  \
            .KernelComputeV2 = compute_kernel},                                                                               \
     .name = #NAME,                                                                                                           \
     .kind = KIND,                                                                                                            \
     .adds = ADDS,                                                                                                            \
     .bounds = BOUNDS,                                                                                                        \
     .inputs = INPUTS},

static const Operator OPERATOR_TABLE[] = {OPERATORS(OPERATOR)};

/* What ONNX Runtime looks for in a library of custom operators. */
OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static _Atomic(OrtCustomOpDomain *) made; /* once in a process: it must live as long as every session */
    const OrtFunction *api = base->GetApi(ORT_API_VERSION);
    if (!api) return ORT(base->GetApi(1), CreateStatus)(ORT_FAIL, "the kernels of onnxprune need ONNX Runtime 1.20 or newer");
    OrtCustomOpDomain *domain = atomic_load(&made), *none = NULL;
    if (!domain) {
        TRY(ORT(api, CreateCustomOpDomain)("onnxprune", &domain));
        for (size_t i = 0; i < sizeof OPERATOR_TABLE / sizeof *OPERATOR_TABLE; i++)
            TRY(ORT(api, CustomOpDomain_Add)(domain, &OPERATOR_TABLE[i].op));
        if (!atomic_compare_exchange_strong(&made, &none, domain)) { /* another thread was faster */
            ORT(api, ReleaseCustomOpDomain)(domain);
            domain = none;
        }
    }
    return ORT(api, AddCustomOpDomain)(options, domain);
}

ORT_EXPORT const char *onnxprune_kernels_isa(void) { return best_loops()->name; }
