#include "cpu.h"

#include <cstddef>
#include <cstdint>

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

namespace alc {
namespace {

struct Feature {
  const char* name;
  bool present;
};

template <size_t kCount>
std::string Names(const Feature (&features)[kCount]) {
  std::string names;
  for (const Feature& feature : features) {
    if (feature.present) names += (names.empty() ? "" : " ") + std::string(feature.name);
  }
  return names;
}

}  // namespace

#if defined(__aarch64__)

const char* Abi() { return "arm64-v8a"; }

std::string CpuFeatures() {
  // The bits of Linux's uapi/asm/hwcap.h, spelled out because old C libraries lack the newer ones.
  uint64_t first = getauxval(AT_HWCAP);
  uint64_t second = getauxval(AT_HWCAP2);
  auto bit = [](uint64_t word, int number) { return ((word >> number) & 1) != 0; };
  const Feature features[] = {
      {"asimd", bit(first, 1)},    {"fphp", bit(first, 9)},     {"asimdhp", bit(first, 10)},
      {"asimddp", bit(first, 20)}, {"sve", bit(first, 22)},     {"asimdfhm", bit(first, 23)},
      {"sve2", bit(second, 1)},    {"svei8mm", bit(second, 9)}, {"i8mm", bit(second, 13)},
      {"bf16", bit(second, 14)},
  };
  return Names(features);
}

#elif defined(__x86_64__)

const char* Abi() { return "x86_64"; }

namespace {

/*! Which register states the operating system saves; without that AVX must not be used. */
uint64_t SavedStates() {
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

}  // namespace

std::string CpuFeatures() {
  unsigned a = 0, b = 0, c = 0, d = 0, b7 = 0, c7 = 0, d7 = 0, a1 = 0, c8 = 0, unused = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return "";
  bool has7 = __get_cpuid_count(7, 0, &unused, &b7, &c7, &d7) != 0;
  bool has71 = has7 && unused >= 1 && __get_cpuid_count(7, 1, &a1, &b, &d, &d7) != 0;
  if (!__get_cpuid(0x80000001, &a, &b, &c8, &d)) c8 = 0;
  auto bit = [](unsigned word, int number) { return ((word >> number) & 1) != 0; };
  uint64_t states = bit(c, 27) ? SavedStates() : 0;
  bool ymm = (states & 0x6) == 0x6;
  bool zmm = (states & 0xe6) == 0xe6;
  const Feature features[] = {
      {"ssse3", bit(c, 9)},
      {"sse4_1", bit(c, 19)},
      {"sse4_2", bit(c, 20)},
      {"movbe", bit(c, 22)},
      {"popcnt", bit(c, 23)},
      {"abm", bit(c8, 5)},
      {"bmi1", bit(b7, 3)},
      {"bmi2", bit(b7, 8)},
      {"avx", ymm && bit(c, 28)},
      {"fma", ymm && bit(c, 12)},
      {"f16c", ymm && bit(c, 29)},
      {"avx2", ymm && bit(b7, 5)},
      {"avx512f", zmm && bit(b7, 16)},
      {"avx512bw", zmm && bit(b7, 30)},
      {"avx512vl", zmm && bit(b7, 31)},
      {"avx512_vnni", zmm && bit(c7, 11)},
      {"avx_vnni", ymm && has71 && bit(a1, 4)},
  };
  return Names(features);
}

#else
#error "the runtime knows arm64-v8a and x86_64"
#endif

}  // namespace alc
