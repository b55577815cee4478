/* What an operator of the library is, and what ONNX Runtime calls of it. */
#ifndef ONNXPRUNE_OPERATORS_H
#define ONNXPRUNE_OPERATORS_H

#include "kernels.h"
#include "ort.h"

enum { CONV, MATMUL, GEMM };
enum { PLAIN, RELU, CLIP };
enum { X, W, B, MOST_RANK = 16 };

typedef struct {
    OrtCustomOp op; /* first: ONNX Runtime passes it back */
    const char *name;
    int kind, adds, bounds;
    size_t inputs;
} Operator;

#define TRY(CALL)                                                                                                             \
    do {                                                                                                                      \
        OrtStatus *status = (CALL);                                                                                           \
        if (status) return status;                                                                                            \
    } while (0)

OrtStatus *ORT_CALL create_kernel(const OrtCustomOp *op, const OrtFunction *api, const OrtKernelInfo *info, void **out);
OrtStatus *ORT_CALL compute_kernel(void *kernel, OrtKernelContext *context);
void ORT_CALL destroy_kernel(void *kernel);

#endif
