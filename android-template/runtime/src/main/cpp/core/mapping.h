/*! Files of weights mapped into memory, and tensors that lie in them. */
#ifndef ALC_CORE_MAPPING_H_
#define ALC_CORE_MAPPING_H_

#include <tvm/ffi/c_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace alc {

/*! A whole file, mapped read-only. It stays mapped as long as anyone shares it: every tensor made
 *  by TensorIn does. The file must not be shortened meanwhile; deployed files are never written
 *  again once they have their name. */
class Mapping {
 public:
  /*! Maps `path`, which must be a regular file of exactly `size` bytes (more than 0).
   *  Throws Failure otherwise. */
  Mapping(const std::string& path, size_t size);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const char* data() const { return data_; }
  size_t size() const { return size_; }

  /*! Reads `length` bytes from `offset`, where the file has any, into the system's cache, and waits
   *  for the disk. The pages don't stay mapped here, so the process takes no more memory. */
  void Cache(size_t offset, size_t length) const;

 private:
  const char* data_;
  size_t size_;
};

/*! The alignment that compiled kernels expect of every tensor, in bytes. */
constexpr size_t kTensorAlignment = 64;

/*! A read-only, contiguous CPU tensor over the mapping's bytes from `offset` on, as an owned
 *  handle. No byte is copied. Throws Failure if it does not lie inside the file or does not start
 *  at a multiple of kTensorAlignment. */
TVMFFIObjectHandle TensorIn(std::shared_ptr<Mapping> mapping, int64_t offset, DLDataType dtype,
                            const int64_t* shape, int32_t ndim);

/*! The bytes that the elements of a tensor take. */
size_t ByteSize(const DLTensor& tensor);

}  // namespace alc

#endif  // ALC_CORE_MAPPING_H_
