#include "call.h"

#include <cstring>
#include <vector>

#include "failure.h"

namespace alc {
namespace {

/*! The arguments of one call, and the temporary objects made for them. */
class Arguments {
 public:
  Arguments(const char* data, size_t size, int32_t count) : data_(data), size_(size) {
    if (count < 0 || count > kMaxArguments || static_cast<size_t>(count) > size / sizeof(Slot)) {
      throw Failure("ArgumentError", "a frame of " + std::to_string(size) + " bytes cannot hold " +
                                         std::to_string(count) + " arguments");
    }
    values_.reserve(static_cast<size_t>(count));
    try {
      for (int32_t i = 0; i < count; ++i) {
        Slot slot;
        std::memcpy(&slot, data + static_cast<size_t>(i) * sizeof(Slot), sizeof(Slot));
        values_.push_back(Value(slot, i));
      }
    } catch (...) {
      Release();
      throw;
    }
  }
  ~Arguments() { Release(); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  TVMFFIAny* data() { return values_.data(); }
  int32_t size() const { return static_cast<int32_t>(values_.size()); }

 private:
  TVMFFIAny Value(const Slot& slot, int32_t index) {
    TVMFFIAny value{};
    value.type_index = slot.tag;
    switch (slot.tag) {
      case kNone:
        break;
      case kInt:
      case kDataType:
      case kDevice:
      case kFloat:
        value.v_int64 = slot.payload;
        break;
      case kBool:
        value.v_int64 = slot.payload != 0;
        break;
      case kText:
      case kBytes: {
        // A String object and not a raw C string: the text may hold a zero byte.
        TVMFFIByteArray bytes{Region(slot, 1, index), static_cast<size_t>(slot.length)};
        value = TVMFFIAny{};
        Check(slot.tag == kText ? TVMFFIStringFromByteArray(&bytes, &value)
                                : TVMFFIBytesFromByteArray(&bytes, &value));
        Own(value);
        break;
      }
      case kDims:
        value = Shape(Region(slot, sizeof(int64_t), index), slot.length);
        break;
      case kObject:
        value.v_obj = reinterpret_cast<TVMFFIObject*>(slot.payload);
        if (value.v_obj == nullptr) Refuse(index, "is a null handle");
        value.type_index = value.v_obj->type_index;
        break;
      default:
        Refuse(index, ("has the unknown tag " + std::to_string(slot.tag)).c_str());
    }
    return value;
  }

  /*! The `slot.length` elements of `width` bytes that the slot points to. */
  const char* Region(const Slot& slot, size_t width, int32_t index) {
    uint64_t offset = static_cast<uint64_t>(slot.payload);
    if (slot.length < 0 || slot.payload < 0 || offset % width != 0 || offset > size_ ||
        static_cast<uint64_t>(slot.length) * width > size_ - offset) {
      Refuse(index, "lies outside of its frame");
    }
    return data_ + offset;
  }

  TVMFFIAny Shape(const char* dims, int32_t count) {
    static TVMFFIObjectHandle make = GlobalFunction("ffi.Shape");
    std::vector<TVMFFIAny> values(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
      values[i].type_index = kTVMFFIInt;
      std::memcpy(&values[i].v_int64, dims + static_cast<size_t>(i) * 8, 8);
    }
    TVMFFIAny shape{};
    Check(TVMFFIFunctionCall(make, values.data(), count, &shape));
    Own(shape);
    return shape;
  }

  void Own(const TVMFFIAny& value) {
    if (value.type_index >= kTVMFFIStaticObjectBegin) owned_.push_back(value.v_obj);
  }

  [[noreturn]] static void Refuse(int32_t index, const char* why) {
    throw Failure("ArgumentError", "argument " + std::to_string(index) + " " + why);
  }

  void Release() {
    for (TVMFFIObjectHandle object : owned_) TVMFFIObjectDecRef(object);
    owned_.clear();
  }

  const char* data_;
  size_t size_;
  std::vector<TVMFFIAny> values_;
  std::vector<TVMFFIObjectHandle> owned_;
};

Result Decode(TVMFFIAny& value) {
  Result result;
  result.type_index = value.type_index;
  switch (value.type_index) {
    case kTVMFFINone:
    case kTVMFFIInt:
    case kTVMFFIBool:
    case kTVMFFIFloat:
    case kTVMFFIDataType:
    case kTVMFFIDevice:
      result.tag = value.type_index;
      result.payload = value.v_int64;
      break;
    case kTVMFFIOpaquePtr:
      result.tag = kInt;
      result.payload = value.v_int64;
      break;
    case kTVMFFISmallStr:
    case kTVMFFISmallBytes: {
      TVMFFIByteArray bytes = TVMFFISmallBytesGetContentByteArray(&value);
      result.tag = value.type_index == kTVMFFISmallStr ? kText : kBytes;
      result.bytes.assign(bytes.data, bytes.size);
      break;
    }
    case kTVMFFIStr:
    case kTVMFFIBytes: {
      const TVMFFIByteArray* bytes = TVMFFIBytesGetByteArrayPtr(value.v_obj);
      result.tag = value.type_index == kTVMFFIStr ? kText : kBytes;
      try {
        result.bytes.assign(bytes->data, bytes->size);
      } catch (...) {
        TVMFFIObjectDecRef(value.v_obj);
        throw;
      }
      TVMFFIObjectDecRef(value.v_obj);
      break;
    }
    default:
      if (value.type_index < kTVMFFIStaticObjectBegin) {
        throw Failure("ArgumentError", "the result has the type index " +
                                           std::to_string(value.type_index) +
                                           ", which cannot leave native code");
      }
      result.tag = kObject;
      result.payload = reinterpret_cast<int64_t>(value.v_obj);
  }
  return result;
}

}  // namespace

Result Call(TVMFFIObjectHandle function, const void* data, size_t size, int32_t count) {
  if (function == nullptr) throw Failure("ArgumentError", "the function is a null handle");
  Arguments arguments(static_cast<const char*>(data), size, count);
  TVMFFIAny value{};
  Check(TVMFFIFunctionCall(function, arguments.data(), arguments.size(), &value));
  return Decode(value);
}

TVMFFIObjectHandle GlobalFunction(const std::string& name) {
  TVMFFIByteArray bytes{name.data(), name.size()};
  TVMFFIObjectHandle handle = nullptr;
  Check(TVMFFIFunctionGetGlobal(&bytes, &handle));
  return handle;
}

}  // namespace alc
