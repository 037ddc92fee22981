/*! The pool of threads that parallel kernels of the calling thread use. */
#ifndef ALC_CORE_THREADS_H_
#define ALC_CORE_THREADS_H_

namespace alc {

/*! Sets how many threads (at least 1), the caller included, kernels called by this thread use.
 *  Threads are not bound to cores: the kernel's scheduler knows about big cores, cpusets and heat.
 *  Returns the number that is used then: a later call of the same thread gets no more than the
 *  first one asked for or the machine has cores. Throws Failure. */
int ConfigureThreads(int count);

}  // namespace alc

#endif  // ALC_CORE_THREADS_H_
