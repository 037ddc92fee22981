/*! The wire form of the types that the TVM runtime reads and writes; see io.h. */
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is the memory's own");

/*! Numbers, enumerations and DLPack's plain structs: their bytes. */
template <typename T>
struct Serializer<
    T, std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                        std::is_same_v<T, DLDataType> || std::is_same_v<T, DLDevice>>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const T& value) { stream->Write(&value, sizeof(T)); }

  static bool Read(Stream* stream, T* out) { return stream->Read(out, sizeof(T)) == sizeof(T); }
};

/*! Strings: a 64-bit length and the bytes. */
template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::string& value) {
    stream->Write<uint64_t>(value.size());
    if (!value.empty()) stream->Write(value.data(), value.size());
  }

  static bool Read(Stream* stream, std::string* out) {
    uint64_t left;
    if (!stream->Read(&left)) return false;
    out->clear();
    // In pieces, so that a damaged length cannot ask for all of the memory.
    while (left > 0) {
      size_t piece = left < (1u << 20) ? static_cast<size_t>(left) : (1u << 20);
      size_t at = out->size();
      out->resize(at + piece);
      if (stream->Read(&(*out)[at], piece) != piece) return false;
      left -= piece;
    }
    return true;
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::String& value) {
    stream->Write(std::string(value.data(), value.size()));
  }

  static bool Read(Stream* stream, ffi::String* out) {
    std::string text;
    if (!stream->Read(&text)) return false;
    *out = ffi::String(std::move(text));
    return true;
  }
};

/*! Vectors: a 64-bit count and the elements. */
template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::vector<T>& values) {
    stream->Write<uint64_t>(values.size());
    for (const T& value : values) stream->Write<T>(value);
  }

  static bool Read(Stream* stream, std::vector<T>* out) {
    uint64_t count;
    if (!stream->Read(&count)) return false;
    out->clear();
    for (uint64_t i = 0; i < count; ++i) {
      T value;
      if (!stream->Read(&value)) return false;
      out->push_back(std::move(value));
    }
    return true;
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::Array<T>& values) {
    stream->Write<uint64_t>(values.size());
    for (const T& value : values) stream->Write<T>(value);
  }

  static bool Read(Stream* stream, ffi::Array<T>* out) {
    std::vector<T> values;
    if (!stream->Read(&values)) return false;
    *out = ffi::Array<T>(values);
    return true;
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_H_
