#include "threads.h"

#include <src/runtime/threading_backend.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <thread>
#include <vector>

#include "failure.h"

namespace alc {

int ConfigureThreads(int count) {
  namespace threading = tvm::runtime::threading;
  if (count < 1) throw Failure("ArgumentError", "a pool needs at least one thread");
  static int unbound = setenv("TVM_BIND_THREADS", "0", 0);
  if (unbound != 0) ThrowErrno("cannot set TVM_BIND_THREADS");
  // TVM sizes the pool once for each calling thread: by the number of cores (on x86-64 half of it)
  // unless it is given a list of cores, of which only the length counts without binding. Make it as
  // large as this thread may ever want; threads that get no work sleep.
  int most = std::max(count, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<unsigned int> cores(static_cast<size_t>(most));
  std::iota(cores.begin(), cores.end(), 0u);
  threading::Configure(threading::ThreadGroup::kSpecifyThreadShareAllCore, count, cores);
  return threading::NumThreads();
}

}  // namespace alc
