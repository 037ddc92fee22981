/*! The pool of threads that parallel kernels of the calling thread use. */
#ifndef ALC_CORE_THREADS_H_
#define ALC_CORE_THREADS_H_

namespace alc {

/*! Sets how many threads (at least 1), the caller included, kernels called by this thread use.
 *  Threads are not bound to cores: the kernel's scheduler knows about big cores, cpusets and heat.
 *  Returns the number that TVM then reports. Throws tvm::ffi::Error. */
int ConfigureThreads(int count);

}  // namespace alc

#endif  // ALC_CORE_THREADS_H_
