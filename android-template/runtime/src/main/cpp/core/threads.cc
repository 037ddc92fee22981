#include "threads.h"

#include <sched.h>
#include <tvm/ffi/c_api.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "call.h"
#include "failure.h"

// tvm/runtime/c_backend_api.h; the runtime exports it for models.
extern "C" int TVMBackendParallelLaunch(int (*task)(int id, void* group, void* data), void* data,
                                        int count);

namespace alc {
namespace {

/*! TVM's ThreadGroup::kSpecifyThreadShareAllCore (src/runtime/threading_backend.h). */
constexpr int64_t kShareAllCores = -3;

TVMFFIAny Integer(int64_t value) {
  TVMFFIAny any{};
  any.type_index = kTVMFFIInt;
  any.v_int64 = value;
  return any;
}

TVMFFIAny Text(const std::string& value) {
  TVMFFIAny any{};
  any.type_index = kTVMFFIRawStr;
  any.v_c_str = value.c_str();
  return any;
}

/*! Calls the global function `name`; the caller owns the object in the result, if it is one. */
TVMFFIAny CallGlobal(const char* name, const std::vector<TVMFFIAny>& arguments) {
  TVMFFIObjectHandle function = GlobalFunction(name);
  if (function == nullptr) throw Failure("InternalError", std::string("TVM has no ") + name);
  TVMFFIAny result{};
  int code = TVMFFIFunctionCall(function, const_cast<TVMFFIAny*>(arguments.data()),
                                static_cast<int32_t>(arguments.size()), &result);
  TVMFFIObjectDecRef(function);
  Check(code);
  return result;
}

int Stay(int, void*, void* cores) {
  return sched_setaffinity(0, sizeof(cpu_set_t), static_cast<const cpu_set_t*>(cores));
}

}  // namespace

int ConfigureThreads(int count) {
  if (count < 1) throw Failure("ArgumentError", "a pool needs at least one thread");
  static int unbound = setenv("TVM_BIND_THREADS", "0", 0);
  if (unbound != 0) ThrowErrno("cannot set TVM_BIND_THREADS");
  // TVM sizes the pool once for each calling thread: by the number of cores (on x86-64 half of it)
  // unless it is given a list of cores, of which only the length counts without binding. Make it as
  // large as this thread may ever want; threads that get no work sleep.
  int most = std::max(count, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<std::string> names;
  for (int core = 0; core < most; ++core) names.push_back(std::to_string(core));
  std::vector<TVMFFIAny> list;
  for (const std::string& name : names) list.push_back(Text(name));
  TVMFFIAny cores = CallGlobal("ffi.Array", list);
  try {
    CallGlobal("runtime.config_threadpool", {Integer(kShareAllCores), Integer(count), cores});
  } catch (const Failure&) {
    TVMFFIObjectDecRef(cores.v_obj);
    throw;
  }
  TVMFFIObjectDecRef(cores.v_obj);
  return static_cast<int>(CallGlobal("runtime.NumThreads", {}).v_int64);
}

bool KeepOnCores(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) {
    if (core >= 0 && core < CPU_SETSIZE) CPU_SET(static_cast<size_t>(core), &set);
  }
  if (Stay(0, nullptr, &set) != 0) return false;
  // No count stands for a task on each thread of the pool.
  Check(TVMBackendParallelLaunch(Stay, &set, 0));
  return true;
}

}  // namespace alc
