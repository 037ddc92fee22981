#include "mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "failure.h"

namespace alc {
namespace {

/*! What a tensor over a mapping owns; tvm-ffi calls the deleter with the last reference. */
struct Lease {
  DLManagedTensorVersioned managed;
  std::shared_ptr<Mapping> mapping;
  std::vector<int64_t> shape;
};

void Release(DLManagedTensorVersioned* managed) {
  delete static_cast<Lease*>(managed->manager_ctx);
}

/*! Closes a file descriptor at the end of a block. */
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

}  // namespace

Mapping::Mapping(const std::string& path, size_t size) : data_(nullptr), size_(size) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number() < 0) ThrowErrno("cannot open " + path);
  struct stat status;
  if (fstat(file.number(), &status) != 0) ThrowErrno("cannot inspect " + path);
  if (!S_ISREG(status.st_mode) || size == 0 || static_cast<uint64_t>(status.st_size) != size) {
    throw Failure("SystemError", path + " has " + std::to_string(status.st_size) +
                                     " bytes instead of " + std::to_string(size));
  }
  void* start = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.number(), 0);
  if (start == MAP_FAILED) ThrowErrno("cannot map " + path);
  data_ = static_cast<const char*>(start);
}

Mapping::~Mapping() { munmap(const_cast<char*>(data_), size_); }

void Mapping::Cache(size_t offset, size_t length) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (offset >= size_) return;
  const size_t start = offset / page * page;
  const size_t end = offset + std::min(length, size_ - offset);
  const volatile char* bytes = data_;
  for (size_t at = start; at < end; at += page) static_cast<void>(bytes[at]);
  madvise(const_cast<char*>(data_) + start, end - start, MADV_DONTNEED);
}

TVMFFIObjectHandle TensorIn(std::shared_ptr<Mapping> mapping, int64_t offset, DLDataType dtype,
                            const int64_t* shape, int32_t ndim) {
  auto refuse = [](const std::string& why) { throw Failure("ArgumentError", why); };
  if (ndim < 0 || ndim > 32) refuse("a tensor of " + std::to_string(ndim) + " dimensions");
  if (dtype.bits == 0 || dtype.lanes != 1) refuse("a tensor's type must be of one lane");
  uint64_t left = mapping->size();
  if (offset < 0 || static_cast<uint64_t>(offset) > left) refuse("a tensor starts behind its file");
  if (static_cast<uint64_t>(offset) % kTensorAlignment != 0) {
    refuse("a tensor starts at byte " + std::to_string(offset) + ", which is no multiple of 64");
  }
  left = (left - static_cast<uint64_t>(offset)) * 8 / dtype.bits;  // elements that still fit
  uint64_t count = 1;
  for (int32_t i = 0; i < ndim; ++i) {
    if (shape[i] < 0) refuse("a tensor has a negative dimension");
    if (shape[i] != 0 && count > left / static_cast<uint64_t>(shape[i])) {
      refuse("a tensor ends behind its file");
    }
    count *= static_cast<uint64_t>(shape[i]);
  }
  if (count > left) refuse("a tensor ends behind its file");
  auto lease = std::make_unique<Lease>();
  lease->shape.assign(shape, shape + ndim);
  lease->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  lease->managed.manager_ctx = lease.get();
  lease->managed.deleter = Release;
  lease->managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  DLTensor& tensor = lease->managed.dl_tensor;
  tensor.data = const_cast<char*>(mapping->data()) + offset;
  tensor.device = {kDLCPU, 0};
  tensor.ndim = ndim;
  tensor.dtype = dtype;
  tensor.shape = lease->shape.data();
  tensor.strides = nullptr;
  tensor.byte_offset = 0;
  lease->mapping = std::move(mapping);
  TVMFFIObjectHandle handle = nullptr;
  Check(TVMFFITensorFromDLPackVersioned(&lease->managed, kTensorAlignment, 1, &handle));
  lease.release();  // the tensor's now
  return handle;
}

size_t ByteSize(const DLTensor& tensor) {
  size_t count = 1;
  for (int32_t i = 0; i < tensor.ndim; ++i) count *= static_cast<size_t>(tensor.shape[i]);
  return (count * tensor.dtype.bits * tensor.dtype.lanes + 7) / 8;
}

}  // namespace alc
