/*! What this machine's processor can do, in the words that build stamps use. */
#ifndef ALC_CORE_CPU_H_
#define ALC_CORE_CPU_H_

#include <string>

namespace alc {

/*! The Android ABI that this library was compiled for. */
const char* Abi();

/*! Names of the processor's features, separated by spaces, as /proc/cpuinfo spells them (`asimddp`,
 *  `avx2`). They come from the processor or the kernel and not from that file: an emulated
 *  process reads the host's. Only features that compiled models may ask for are listed. */
std::string CpuFeatures();

}  // namespace alc

#endif  // ALC_CORE_CPU_H_
