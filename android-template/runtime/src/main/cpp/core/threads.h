/*! The pool of threads that parallel kernels of the calling thread use. */
#ifndef ALC_CORE_THREADS_H_
#define ALC_CORE_THREADS_H_

#include <vector>

namespace alc {

/*! Sets how many threads (at least 1), the caller included, kernels called by this thread use.
 *  Threads are not bound to cores unless `KeepOnCores` does: the kernel's scheduler knows about big
 *  cores, cpusets and heat.
 *  Returns the number that is used then: a later call of the same thread gets no more than the
 *  first one asked for or the machine has cores. Throws Failure. */
int ConfigureThreads(int count);

/*! Keeps the calling thread, and the threads of its pool that work now, on `cores`, by their
 *  numbers in Linux. Numbers of cores that there are not, or that the process may not use, do not
 *  count; where none is left, nothing changes and the result is false. */
bool KeepOnCores(const std::vector<int>& cores);

}  // namespace alc

#endif  // ALC_CORE_THREADS_H_
