#include "threads.h"

#include <src/runtime/threading_backend.h>

#include <cstdlib>
#include <vector>

#include "failure.h"

namespace alc {

int ConfigureThreads(int count) {
  namespace threading = tvm::runtime::threading;
  if (count < 1) throw Failure("ArgumentError", "a pool needs at least one thread");
  static int unbound = setenv("TVM_BIND_THREADS", "0", 0);
  if (unbound != 0) ThrowErrno("cannot set TVM_BIND_THREADS");
  // TVM takes its pool's size from the number of cores (on x86-64 half of it) unless it is given a
  // list of cores; without binding only the length of that list counts.
  std::vector<unsigned int> cores;
  for (int i = 0; i < count; ++i) cores.push_back(static_cast<unsigned int>(i));
  auto mode = threading::ThreadGroup::kSpecifyThreadShareAllCore;
  threading::Configure(mode, count, cores);
  if (count > 1 && threading::NumThreads() != count) {
    // The thread had a smaller pool before; a pool cannot grow, so make a new one.
    threading::ResetThreadPool();
    threading::Configure(mode, count, cores);
  }
  return count == 1 ? 1 : threading::NumThreads();
}

}  // namespace alc
