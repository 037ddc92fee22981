/*! Streams over memory; see tvm/support/io.h. */
#ifndef TVM_SUPPORT_BYTES_IO_H_
#define TVM_SUPPORT_BYTES_IO_H_

#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

/*! Reads bytes that it does not own. */
class BytesInStream : public Stream {
 public:
  explicit BytesInStream(const std::string& bytes) : data_(bytes.data()), left_(bytes.size()) {}
  explicit BytesInStream(const ffi::Bytes& bytes) : data_(bytes.data()), left_(bytes.size()) {}
  using Stream::Read;
  using Stream::Write;

  size_t Read(void* ptr, size_t size) final {
    size_t taken = std::min(size, left_);
    if (taken != 0) std::memcpy(ptr, data_, taken);
    data_ += taken;
    left_ -= taken;
    return taken;
  }

  size_t Write(const void*, size_t) final {
    TVM_FFI_THROW(InternalError) << "this stream can only be read";
    return 0;
  }

 private:
  const char* data_;
  size_t left_;
};

/*! Appends to a string that it does not own. */
class BytesOutStream : public Stream {
 public:
  explicit BytesOutStream(std::string* out) : out_(out) {}
  using Stream::Read;
  using Stream::Write;

  size_t Read(void*, size_t) final {
    TVM_FFI_THROW(InternalError) << "this stream can only be written";
    return 0;
  }

  size_t Write(const void* ptr, size_t size) final {
    out_->append(static_cast<const char*>(ptr), size);
    return size;
  }

 private:
  std::string* out_;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BYTES_IO_H_
