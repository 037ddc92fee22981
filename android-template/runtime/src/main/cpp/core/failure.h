/*! What the binding throws: one kind of exception, which the JNI edge turns into a Java one. */
#ifndef ALC_CORE_FAILURE_H_
#define ALC_CORE_FAILURE_H_

#include <stdexcept>
#include <string>
#include <utility>

namespace alc {

/*! A failed operation. `kind` is TVM's own word (`ValueError`, `InternalError`, ...), `SystemError`
 *  for a refused system call or `ArgumentError` for a call that the binding itself refuses. */
class Failure : public std::runtime_error {
 public:
  Failure(std::string kind, const std::string& message, std::string backtrace = "")
      : std::runtime_error(message), kind_(std::move(kind)), backtrace_(std::move(backtrace)) {}

  const std::string& kind() const { return kind_; }
  const std::string& backtrace() const { return backtrace_; }

 private:
  std::string kind_;
  std::string backtrace_;
};

/*! Throws what tvm-ffi holds as this thread's raised error, and takes it from there. */
[[noreturn]] void ThrowRaised();

/*! Throws a `SystemError` that names the call and the reason in errno. */
[[noreturn]] void ThrowErrno(const std::string& what);

/*! Throws the raised error unless `code`, the result of a tvm-ffi call, is 0. */
inline void Check(int code) {
  if (code != 0) ThrowRaised();
}

}  // namespace alc

#endif  // ALC_CORE_FAILURE_H_
