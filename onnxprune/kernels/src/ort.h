/* The part of ONNX Runtime's C interface that the kernels use.
 *
 * ONNX Runtime hands out a table of functions, OrtApi. It promises never to move an entry: new ones are added at the end. So a
 * function is known by its number in that table, and this library is built without the headers of any release. The numbers are
 * the places in `ort_api_1_to_N` of onnxruntime/core/session/onnxruntime_c_api.cc, counted from 0; static assertions in that
 * file fix the last of each version: ReleaseCustomOpDomain is 101 (version 1), CreateSessionFromArrayWith... 169 (version 8),
 * GetSessionConfigEntry 238 (version 14), GetBuildInfoString 254 (version 15), OpenVINO_V2 275 (version 17).
 * tests/kernels/test_abi.py runs the library in several releases.
 */
#ifndef ONNXPRUNE_ORT_H
#define ONNXPRUNE_ORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define ORT_CALL __stdcall
#define ORT_EXPORT __declspec(dllexport)
#else
#define ORT_CALL
#define ORT_EXPORT __attribute__((visibility("default")))
#endif

enum { ORT_API_VERSION = 20 }; /* of ONNX Runtime 1.20, the oldest release that is supported */

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef void(ORT_CALL *OrtFunction)(void);
typedef struct {
    const OrtFunction *(ORT_CALL *GetApi)(uint32_t version);
    const char *(ORT_CALL *GetVersionString)(void);
} OrtApiBase;

/* Name, number in the table, result, arguments. */
#define ORT_FUNCTIONS(F)                                                                                                      \
    F(CreateStatus, 0, OrtStatus *, (int code, const char *message))                                                          \
    F(CreateCustomOpDomain, 26, OrtStatus *, (const char *domain, OrtCustomOpDomain **out))                                   \
    F(CustomOpDomain_Add, 27, OrtStatus *, (OrtCustomOpDomain * domain, const void *op))                                      \
    F(AddCustomOpDomain, 28, OrtStatus *, (OrtSessionOptions * options, OrtCustomOpDomain * domain))                          \
    F(GetTensorMutableData, 51, OrtStatus *, (const OrtValue *value, void **out))                                             \
    F(GetTensorElementType, 60, OrtStatus *, (const OrtTensorTypeAndShapeInfo *info, int *out))                               \
    F(GetDimensionsCount, 61, OrtStatus *, (const OrtTensorTypeAndShapeInfo *info, size_t *out))                              \
    F(GetDimensions, 62, OrtStatus *, (const OrtTensorTypeAndShapeInfo *info, int64_t *sizes, size_t count))                  \
    F(GetTensorTypeAndShape, 65, OrtStatus *, (const OrtValue *value, OrtTensorTypeAndShapeInfo **out))                       \
    F(AllocatorAlloc, 75, OrtStatus *, (OrtAllocator * allocator, size_t bytes, void **out))                                  \
    F(AllocatorFree, 76, OrtStatus *, (OrtAllocator * allocator, void *memory))                                               \
    F(KernelInfoGetAttribute_int64, 86, OrtStatus *, (const OrtKernelInfo *info, const char *name, int64_t *out))             \
    F(KernelContext_GetInputCount, 88, OrtStatus *, (const OrtKernelContext *context, size_t *out))                           \
    F(KernelContext_GetInput, 90, OrtStatus *, (const OrtKernelContext *context, size_t index, const OrtValue **out))         \
    F(KernelContext_GetOutput, 91, OrtStatus *,                                                                               \
      (OrtKernelContext * context, size_t index, const int64_t *sizes, size_t count, OrtValue **out))                         \
    F(ReleaseStatus, 93, void, (OrtStatus * status))                                                                          \
    F(ReleaseTensorTypeAndShapeInfo, 99, void, (OrtTensorTypeAndShapeInfo * info))                                            \
    F(ReleaseCustomOpDomain, 101, void, (OrtCustomOpDomain * domain))                                                         \
    F(ReleaseAllocator, 132, void, (OrtAllocator * allocator))                                                                \
    F(KernelInfoGetAttributeArray_int64, 163, OrtStatus *,                                                                    \
      (const OrtKernelInfo *info, const char *name, int64_t *out, size_t *count))                                             \
    F(KernelInfoGetConstantInput_tensor, 249, OrtStatus *,                                                                    \
      (const OrtKernelInfo *info, size_t index, int *is_constant, const OrtValue **out))                                      \
    F(KernelContext_ParallelFor, 274, OrtStatus *,                                                                            \
      (const OrtKernelContext *context, void (*work)(void *, size_t), size_t total, size_t batches, void *argument))         \
    F(KernelInfoGetAllocator, 278, OrtStatus *, (const OrtKernelInfo *info, int kind, OrtAllocator **out))

/* One type and one inline function per entry: ort_CreateStatus(api, code, message). */
#define ORT_TYPE(NAME, NUMBER, RESULT, ARGUMENTS) typedef RESULT(ORT_CALL *Ort_##NAME) ARGUMENTS;
ORT_FUNCTIONS(ORT_TYPE)
#undef ORT_TYPE
#define ORT_NUMBER(NAME, NUMBER, RESULT, ARGUMENTS) ORT_##NAME = NUMBER,
enum { ORT_FUNCTIONS(ORT_NUMBER) };
#undef ORT_NUMBER
#define ORT(API, NAME) ((Ort_##NAME)(API)[ORT_##NAME])

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_NOT_IMPLEMENTED = 9 };
enum { ONNX_FLOAT = 1 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 };

/* An operator, as version 16 of the interface has it; later fields are only read of later versions. */
typedef struct OrtCustomOp {
    uint32_t version;
    void *(ORT_CALL *CreateKernel)(const struct OrtCustomOp *, const OrtFunction *, const OrtKernelInfo *);
    const char *(ORT_CALL *GetName)(const struct OrtCustomOp *);
    const char *(ORT_CALL *GetExecutionProviderType)(const struct OrtCustomOp *);
    int(ORT_CALL *GetInputType)(const struct OrtCustomOp *, size_t);
    size_t(ORT_CALL *GetInputTypeCount)(const struct OrtCustomOp *);
    int(ORT_CALL *GetOutputType)(const struct OrtCustomOp *, size_t);
    size_t(ORT_CALL *GetOutputTypeCount)(const struct OrtCustomOp *);
    void(ORT_CALL *KernelCompute)(void *, OrtKernelContext *);
    void(ORT_CALL *KernelDestroy)(void *);
    int(ORT_CALL *GetInputCharacteristic)(const struct OrtCustomOp *, size_t);
    int(ORT_CALL *GetOutputCharacteristic)(const struct OrtCustomOp *, size_t);
    int(ORT_CALL *GetInputMemoryType)(const struct OrtCustomOp *, size_t);
    int(ORT_CALL *GetVariadicInputMinArity)(const struct OrtCustomOp *);
    int(ORT_CALL *GetVariadicInputHomogeneity)(const struct OrtCustomOp *);
    int(ORT_CALL *GetVariadicOutputMinArity)(const struct OrtCustomOp *);
    int(ORT_CALL *GetVariadicOutputHomogeneity)(const struct OrtCustomOp *);
    OrtStatus *(ORT_CALL *CreateKernelV2)(const struct OrtCustomOp *, const OrtFunction *, const OrtKernelInfo *, void **);
    OrtStatus *(ORT_CALL *KernelComputeV2)(void *, OrtKernelContext *);
    void *later[16];
} OrtCustomOp;

ORT_EXPORT OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);
ORT_EXPORT const char *onnxprune_kernels_isa(void); /* the name of the instruction set that is used here */

#endif
