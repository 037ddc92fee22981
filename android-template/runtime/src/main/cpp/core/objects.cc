#include "objects.h"

#include <tvm/ffi/c_api.h>

#include <atomic>

#include "failure.h"

namespace alc {
namespace {

using DeleteSpace = void (*)(void*);

TVMFFICustomAllocator* inner = nullptr;
std::atomic<DeleteSpace> inner_delete{nullptr};
std::atomic<int64_t> live{0};

void Delete(void* body) {
  live.fetch_sub(1, std::memory_order_relaxed);
  inner_delete.load(std::memory_order_relaxed)(body);
}

void* Allocate(size_t size, size_t alignment, int32_t type_index, void*) {
  void* body = inner->allocate(size, alignment, type_index, inner->context);
  if (body == nullptr) return nullptr;
  // The allocator gives all of its objects the same deleter, so one place to keep it is enough.
  TVMFFIObjectAllocHeader* header = static_cast<TVMFFIObjectAllocHeader*>(body) - 1;
  inner_delete.store(header->delete_space, std::memory_order_relaxed);
  header->delete_space = Delete;
  live.fetch_add(1, std::memory_order_relaxed);
  return body;
}

}  // namespace

void CountObjects() {
  static TVMFFICustomAllocator counting{Allocate, nullptr};
  if (inner != nullptr) return;
  inner = TVMFFIGetCustomAllocator();
  Check(TVMFFISetCustomAllocator(&counting));
}

int64_t LiveObjects() { return live.load(std::memory_order_relaxed); }

}  // namespace alc
