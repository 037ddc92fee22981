/*!
 * Calls of TVM functions whose arguments lie in a plain block of memory, a frame.
 *
 * A frame is what a caller in another language can fill without native help: `count` slots of 16
 * bytes from the start, each {int32 tag, int32 length, int64 payload} in native byte order, and
 * behind them the bytes of strings and the dimensions of shapes, which slots name by offset.
 * Every tag, offset and length is checked before it is used.
 */
#ifndef ALC_CORE_CALL_H_
#define ALC_CORE_CALL_H_

#include <tvm/ffi/c_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace alc {

/*! What a slot holds. Values below kText are those of tvm-ffi's type indices. */
enum Tag : int32_t {
  kNone = kTVMFFINone,
  kInt = kTVMFFIInt,
  kBool = kTVMFFIBool,
  kFloat = kTVMFFIFloat,         // payload: the bits of a double
  kDataType = kTVMFFIDataType,   // payload: the bytes of a DLDataType
  kDevice = kTVMFFIDevice,       // payload: device type, then device number
  kText = 32,                    // payload: offset of `length` bytes of UTF-8
  kBytes = 33,                   // payload: offset of `length` bytes
  kDims = 34,                    // payload: offset, a multiple of 8, of `length` int64
  kObject = 35,                  // payload: a handle, which stays the caller's; length: unused
};

struct Slot {
  int32_t tag;
  int32_t length;
  int64_t payload;
};
static_assert(sizeof(Slot) == 16, "a slot is 16 bytes, as the caller writes it");

/*! The most arguments of one call. */
constexpr int32_t kMaxArguments = 65536;

/*! A result that the caller does not have to decode: a value, an owned object, or bytes. */
struct Result {
  int32_t tag = kNone;      // never kDims
  int32_t type_index = 0;   // tvm-ffi's type index
  int64_t payload = 0;      // for kObject a handle that the caller now owns
  std::string bytes;        // for kText and kBytes
};

/*! Calls `function` with the first `count` slots of the frame at `data`, which is `size` bytes.
 *  Throws Failure if a slot is malformed or the function fails; nothing stays allocated then. */
Result Call(TVMFFIObjectHandle function, const void* data, size_t size, int32_t count);

/*! The global function `name` as an owned handle, or null if there is none. */
TVMFFIObjectHandle GlobalFunction(const std::string& name);

}  // namespace alc

#endif  // ALC_CORE_CALL_H_
