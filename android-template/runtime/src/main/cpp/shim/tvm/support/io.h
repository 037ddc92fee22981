/*!
 * Byte streams with typed reads and writes.
 *
 * The TVM runtime's sources use a few headers of TVM's `support` folder that are not part of its
 * Python package. The headers below `shim/` stand in for them and offer what the runtime uses.
 * This one keeps the wire format: little-endian values, 64-bit lengths before strings and vectors.
 */
#ifndef TVM_SUPPORT_IO_H_
#define TVM_SUPPORT_IO_H_

#include <cstddef>
#include <cstdint>

namespace tvm {
namespace support {

/*! How values of type T are written; see serializer.h for the types that it knows. */
template <typename T, typename = void>
struct Serializer;

/*! A source or sink of bytes. */
class Stream {
 public:
  virtual ~Stream() = default;

  /*! Reads up to `size` bytes and returns how many there were. */
  virtual size_t Read(void* ptr, size_t size) = 0;

  /*! Writes `size` bytes and returns how many were taken. */
  virtual size_t Write(const void* ptr, size_t size) = 0;

  /*! Reads one value; false if the stream ended before it. */
  template <typename T>
  bool Read(T* out) {
    return Serializer<T>::Read(this, out);
  }

  template <typename T>
  void Write(const T& value) {
    Serializer<T>::Write(this, value);
  }

  /*! Reads exactly `count` values; false if the stream ended before. */
  template <typename T>
  bool ReadArray(T* out, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (!Read<T>(out + i)) return false;
    }
    return true;
  }

  template <typename T>
  void WriteArray(const T* values, size_t count) {
    for (size_t i = 0; i < count; ++i) Write<T>(values[i]);
  }
};

}  // namespace support
}  // namespace tvm

#include <tvm/support/serializer.h>

#endif  // TVM_SUPPORT_IO_H_
