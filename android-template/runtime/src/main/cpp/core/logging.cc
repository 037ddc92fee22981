/*! Where TVM's log lines go: Android's log in an app, whose stderr nobody sees, else stderr. */
#include <tvm/runtime/logging.h>

#include <cstdio>

#ifdef __ANDROID__
#include <android/log.h>
#endif

namespace tvm {
namespace runtime {
namespace detail {

void LogFatalImpl(const std::string& file, int line, const std::string& message) {
  throw ffi::Error("InternalError", message, TVMFFIBacktrace(file.c_str(), line, "", 0));
}

void LogMessageImpl(const std::string& file, int line, int level, const std::string& message) {
  std::string name = file.substr(file.rfind('/') + 1);
#ifdef __ANDROID__
  static constexpr int kPriorities[] = {ANDROID_LOG_DEBUG, ANDROID_LOG_INFO, ANDROID_LOG_WARN,
                                        ANDROID_LOG_ERROR, ANDROID_LOG_FATAL};
  int priority = level >= 0 && level <= 4 ? kPriorities[level] : ANDROID_LOG_INFO;
  __android_log_print(priority, "tvm", "%s:%d: %s", name.c_str(), line, message.c_str());
#else
  static constexpr char kLetters[] = "DIWEF";
  char letter = level >= 0 && level <= 4 ? kLetters[level] : 'I';
  std::fprintf(stderr, "%c tvm: %s:%d: %s\n", letter, name.c_str(), line, message.c_str());
#endif
}

}  // namespace detail
}  // namespace runtime
}  // namespace tvm
