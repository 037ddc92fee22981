/* Runs kernels outside TVM's runtime: calls come in on stdin, tensors go back out on stdout.
 *
 * A call is: index of the function in KERNELS; number of arguments; each argument as kind (1 int,
 * 3 float, 7 tensor) and value, where a tensor is code, bits, dimensions, shape, offset in bytes,
 * size in bytes, bytes. All integers are 64 bits, little-endian. After a call its return code and
 * every tensor's bytes are written. A parallel region runs its tasks one after the other; a negative
 * index -n alone, without a call, makes them n from then on.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#define KERNEL(name) \
  extern int __tvm_ffi_##name(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
#include "kernels.h"
#undef KERNEL

typedef int (*Kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
#define KERNEL(name) __tvm_ffi_##name,
static const Kernel KERNELS[] = {
#include "kernels.h"
};

typedef struct {
  void* sync;
  int32_t num_task;
} GroupEnv;

static int tasks = 3;

static int launch(int (*lambda)(int, GroupEnv*, void*), void* data, int num_task) {
  GroupEnv env = {NULL, num_task ? num_task : tasks};
  for (int i = 0; i < env.num_task; ++i) {
    int code = lambda(i, &env, data);
    if (code) return code;
  }
  return 0;
}

static void* allocate(int type, int id, uint64_t size, int code, int bits) {
  (void)type, (void)id, (void)code, (void)bits;
  return aligned_alloc(64, (size + 63) / 64 * 64);
}

static int release(int type, int id, void* memory) {
  (void)type, (void)id;
  free(memory);
  return 0;
}

extern __attribute__((weak)) void *__TVMBackendParallelLaunch, *__TVMBackendAllocWorkspace,
    *__TVMBackendFreeWorkspace;

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

static int64_t number(void) {
  int64_t value;
  if (fread(&value, 8, 1, stdin) != 1) exit(0);
  return value;
}

int main(void) {
  if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = (void*)launch;
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = (void*)allocate;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = (void*)release;
  for (;;) {
    int64_t index = number();
    if (index < 0) {
      tasks = (int)-index;
      continue;
    }
    int count = (int)number();
    TVMFFIAny args[32] = {0}, result = {0};
    DLTensor tensors[32] = {0};
    size_t sizes[32] = {0};
    for (int i = 0; i < count; ++i) {
      args[i].type_index = (int32_t)number();
      if (args[i].type_index != kTVMFFIDLTensorPtr) {
        args[i].v_int64 = number(); /* a float comes as its bits */
        continue;
      }
      DLTensor* tensor = &tensors[i];
      args[i].v_ptr = tensor;
      tensor->device.device_type = kDLCPU;
      tensor->dtype.code = (uint8_t)number();
      tensor->dtype.bits = (uint8_t)number();
      tensor->dtype.lanes = 1;
      tensor->ndim = (int32_t)number();
      tensor->shape = malloc(8 * (size_t)tensor->ndim);
      for (int d = 0; d < tensor->ndim; ++d) tensor->shape[d] = number();
      tensor->byte_offset = (uint64_t)number();
      sizes[i] = (size_t)number();
      tensor->data = aligned_alloc(64, (tensor->byte_offset + sizes[i] + 127) / 64 * 64);
      char* first = (char*)tensor->data + tensor->byte_offset;
      if (fread(first, 1, sizes[i], stdin) != sizes[i]) return 1;
    }
    int64_t code = KERNELS[index](NULL, args, count, &result);
    fwrite(&code, 8, 1, stdout);
    for (int i = 0; i < count; ++i) {
      if (!tensors[i].data) continue;
      fwrite((char*)tensors[i].data + tensors[i].byte_offset, 1, sizes[i], stdout);
      free(tensors[i].data);
      free(tensors[i].shape);
    }
    fflush(stdout);
  }
}
