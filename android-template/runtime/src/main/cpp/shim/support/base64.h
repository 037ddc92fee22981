/*! Base64 on top of another stream (tensors inside JSON); see tvm/support/io.h. */
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/ffi/extra/base64.h>
#include <tvm/support/io.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

/*! Collects bytes and writes their base64 form at Finish. */
class Base64OutStream : public Stream {
 public:
  explicit Base64OutStream(Stream* out) : out_(out) {}
  using Stream::Read;
  using Stream::Write;

  size_t Read(void*, size_t) final {
    TVM_FFI_THROW(InternalError) << "this stream can only be written";
    return 0;
  }

  size_t Write(const void* ptr, size_t size) final {
    bytes_.append(static_cast<const char*>(ptr), size);
    return size;
  }

  void Finish() {
    ffi::String text = ffi::Base64Encode(TVMFFIByteArray{bytes_.data(), bytes_.size()});
    out_->Write(text.data(), text.size());
    bytes_.clear();
  }

 private:
  Stream* out_;
  std::string bytes_;
};

/*! Decodes all of another stream at InitPosition and reads from the result. */
class Base64InStream : public Stream {
 public:
  explicit Base64InStream(Stream* in) : in_(in) {}
  using Stream::Read;
  using Stream::Write;

  void InitPosition() {
    std::string text;
    char block[4096];
    while (size_t count = in_->Read(block, sizeof(block))) text.append(block, count);
    bytes_ = ffi::Base64Decode(TVMFFIByteArray{text.data(), text.size()});
    position_ = 0;
  }

  size_t Read(void* ptr, size_t size) final {
    size_t taken = std::min(size, bytes_.size() - position_);
    if (taken != 0) std::memcpy(ptr, bytes_.data() + position_, taken);
    position_ += taken;
    return taken;
  }

  size_t Write(const void*, size_t) final {
    TVM_FFI_THROW(InternalError) << "this stream can only be read";
    return 0;
  }

 private:
  Stream* in_;
  ffi::Bytes bytes_;
  size_t position_ = 0;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BASE64_H_
