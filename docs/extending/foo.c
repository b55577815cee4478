/* The operator my.domain::Foo for ONNX Runtime: y = slope * x / (1 + |x|), with one slope for each channel.
 *
 *     cc -shared -fPIC -O2 -o libfoo.so foo.c
 *
 * A real library includes onnxruntime_c_api.h, which says all of this. That file is in no wheel of ONNX Runtime, so the
 * few functions that are needed are declared here by their places in the interface, which never change.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Status Status;
typedef struct Options Options;
typedef struct Domain Domain;
typedef struct Context Context;
typedef struct Value Value;
typedef struct Info Info;
typedef struct Op Op;

typedef struct {
  void *to_25[26];
  Status *(*CreateCustomOpDomain)(const char *, Domain **);
  Status *(*CustomOpDomain_Add)(Domain *, const Op *);
  Status *(*AddCustomOpDomain)(Options *, Domain *);
  void *to_50[22];
  Status *(*GetTensorMutableData)(Value *, void **);
  void *to_60[9];
  Status *(*GetDimensionsCount)(const Info *, size_t *);
  Status *(*GetDimensions)(const Info *, int64_t *, size_t);
  void *to_64[2];
  Status *(*GetTensorTypeAndShape)(const Value *, Info **);
  void *to_89[24];
  Status *(*KernelContext_GetInput)(const Context *, size_t, const Value **);
  Status *(*KernelContext_GetOutput)(Context *, size_t, const int64_t *, size_t, Value **);
  void *to_98[7];
  void (*ReleaseTensorTypeAndShapeInfo)(Info *);
} Api;

typedef struct {
  const Api *(*GetApi)(uint32_t version);
} ApiBase;

struct Op { /* OrtCustomOp, version 8 */
  uint32_t version;
  void *(*CreateKernel)(const Op *, const Api *, const void *);
  const char *(*GetName)(const Op *);
  const char *(*GetExecutionProviderType)(const Op *);
  int (*GetInputType)(const Op *, size_t);
  size_t (*GetInputTypeCount)(const Op *);
  int (*GetOutputType)(const Op *, size_t);
  size_t (*GetOutputTypeCount)(const Op *);
  void (*KernelCompute)(void *, Context *);
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const Op *, size_t);
  int (*GetOutputCharacteristic)(const Op *, size_t);
};

enum { FLOAT = 1, RANKS = 8 };

static void *create(const Op *op, const Api *api, const void *info) { return (void *)api; /* the kernel has no state */ }
static void destroy(void *kernel) {}
static const char *name(const Op *op) { return "Foo"; }
static const char *provider(const Op *op) { return NULL; /* the CPU */ }
static int type(const Op *op, size_t at) { return FLOAT; }
static size_t inputs(const Op *op) { return 2; }
static size_t outputs(const Op *op) { return 1; }
static int required(const Op *op, size_t at) { return 0; }

static void compute(void *kernel, Context *context) {
  const Api *api = kernel;
  const Value *given, *slopes;
  Value *made;
  Info *info;
  float *x, *slope, *y;
  int64_t sizes[RANKS];
  size_t rank;

  api->KernelContext_GetInput(context, 0, &given);
  api->KernelContext_GetInput(context, 1, &slopes);
  api->GetTensorTypeAndShape(given, &info);
  api->GetDimensionsCount(info, &rank);
  api->GetDimensions(info, sizes, rank);
  api->ReleaseTensorTypeAndShapeInfo(info);
  api->KernelContext_GetOutput(context, 0, sizes, rank, &made);
  api->GetTensorMutableData((Value *)given, (void **)&x);
  api->GetTensorMutableData((Value *)slopes, (void **)&slope);
  api->GetTensorMutableData(made, (void **)&y);

  int64_t inner = 1;
  for (size_t axis = 2; axis < rank; axis++) inner *= sizes[axis];
  for (int64_t at = 0; at < sizes[0] * sizes[1] * inner; at++)
    y[at] = slope[at / inner % sizes[1]] * x[at] / (1 + fabsf(x[at]));
}

static const Op foo = {8, create, name, provider, type, inputs, type, outputs, compute, destroy, required, required};

Status *RegisterCustomOps(Options *options, const ApiBase *base) {
  const Api *api = base->GetApi(8);
  Domain *domain = NULL;
  Status *failed = api->CreateCustomOpDomain("my.domain", &domain);
  if (!failed) failed = api->CustomOpDomain_Add(domain, &foo);
  return failed ? failed : api->AddCustomOpDomain(options, domain);
}
