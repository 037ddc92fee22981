#include "failure.h"

#include <tvm/ffi/c_api.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace alc {
namespace {

std::string Text(const TVMFFIByteArray& bytes) { return std::string(bytes.data, bytes.size); }

}  // namespace

void ThrowRaised() {
  TVMFFIObjectHandle handle = nullptr;
  TVMFFIErrorMoveFromRaised(&handle);
  if (handle == nullptr) throw Failure("InternalError", "a call failed without saying why");
  std::unique_ptr<void, int (*)(void*)> owner(handle, TVMFFIObjectDecRef);
  const TVMFFIErrorCell* cell = TVMFFIErrorGetCellPtr(handle);
  throw Failure(Text(cell->kind), Text(cell->message), Text(cell->backtrace));
}

void ThrowErrno(const std::string& what) {
  int code = errno;
  throw Failure("SystemError", what + ": " + std::strerror(code));
}

}  // namespace alc
