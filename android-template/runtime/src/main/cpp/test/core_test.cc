/*!
 * Drives the binding's core as the JNI edge does: every kind of argument and result, refused
 * frames, failing functions, mapped files. Run it under sanitizers; it prints a line per check
 * and ends with 1 if one fails.
 *
 * Usage: core_test FOLDER   (an empty folder to write in)
 */
#include <fcntl.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../core/call.h"
#include "../core/failure.h"
#include "../core/mapping.h"
#include "../core/threads.h"

namespace {

using alc::Call;
using alc::Failure;
using alc::Result;

int failures = 0;

void Expect(bool truth, const std::string& what) {
  std::printf("%s %s\n", truth ? "ok  " : "FAIL", what.c_str());
  if (!truth) ++failures;
}

void ExpectFailure(const std::string& kind, const std::string& part,
                   const std::function<void()>& body) {
  try {
    body();
    Expect(false, kind + " was not raised: " + part);
  } catch (const Failure& failure) {
    bool fits = failure.kind() == kind && std::strstr(failure.what(), part.c_str()) != nullptr;
    Expect(fits, failure.kind() + ": " + failure.what());
  }
}

/*! A frame as a caller in another language fills it. It is allocated to the byte, so that a read
 *  past its end is seen. */
class Frame {
 public:
  Frame& Add(int32_t tag, int64_t payload, int32_t length = 0) {
    slots_.push_back({tag, length, payload});
    return *this;
  }
  Frame& Number(double value) {
    int64_t bits;
    std::memcpy(&bits, &value, 8);
    return Add(alc::kFloat, bits);
  }
  Frame& Text(const std::string& text, int32_t tag = alc::kText) {
    regions_.push_back({slots_.size(), text});
    return Add(tag, 0, static_cast<int32_t>(text.size()));
  }
  Frame& Dims(const std::vector<int64_t>& dims) {
    std::string bytes(reinterpret_cast<const char*>(dims.data()), dims.size() * 8);
    regions_.push_back({slots_.size(), bytes});
    return Add(alc::kDims, 0, static_cast<int32_t>(dims.size()));
  }

  Result Send(TVMFFIObjectHandle function) {
    size_t size = slots_.size() * sizeof(alc::Slot);
    for (const auto& [index, bytes] : regions_) {
      slots_[index].payload = static_cast<int64_t>(size);
      size += (bytes.size() + 7) / 8 * 8;
    }
    auto memory = std::make_unique<char[]>(size);
    if (!slots_.empty()) {
      std::memcpy(memory.get(), slots_.data(), slots_.size() * sizeof(alc::Slot));
    }
    for (const auto& [index, bytes] : regions_) {
      std::memcpy(memory.get() + slots_[index].payload, bytes.data(), bytes.size());
    }
    return Call(function, memory.get(), size, static_cast<int32_t>(slots_.size()));
  }

 private:
  std::vector<alc::Slot> slots_;
  std::vector<std::pair<size_t, std::string>> regions_;
};

void* Object(const Result& result) { return reinterpret_cast<void*>(result.payload); }

Result Item(int64_t array, int64_t index) {
  static TVMFFIObjectHandle get = alc::GlobalFunction("ffi.ArrayGetItem");
  return Frame().Add(alc::kObject, array).Add(alc::kInt, index).Send(get);
}

void ValuesTravel() {
  TVMFFIObjectHandle make = alc::GlobalFunction("ffi.Array");
  std::string text = std::string("h\xc3\xa9llo \xf0\x9f\x98\x80 ") + '\0' + "z";
  Result array = Frame()
                     .Add(alc::kNone, 0)
                     .Add(alc::kInt, -7)
                     .Add(alc::kBool, 5)
                     .Number(3.25)
                     .Text(text)
                     .Text("ab")
                     .Text(std::string("\x01\x00\x02", 3), alc::kBytes)
                     .Dims({1, 2, 3})
                     .Text("")
                     .Dims({})
                     .Send(make);
  Expect(array.tag == alc::kObject && array.type_index == kTVMFFIArray, "an array is an object");
  Expect(Item(array.payload, 0).tag == alc::kNone, "none");
  Expect(Item(array.payload, 1).payload == -7, "an integer");
  Result truth = Item(array.payload, 2);
  Expect(truth.tag == alc::kBool && truth.payload == 1, "a truth value is 0 or 1");
  double number;
  int64_t bits = Item(array.payload, 3).payload;
  std::memcpy(&number, &bits, 8);
  Expect(number == 3.25, "a number");
  Expect(Item(array.payload, 4).bytes == text, "a long text with a zero byte");
  Expect(Item(array.payload, 5).bytes == "ab", "a short text");
  Result bytes = Item(array.payload, 6);
  Expect(bytes.tag == alc::kBytes && bytes.bytes == std::string("\x01\x00\x02", 3), "bytes");
  Result shape = Item(array.payload, 7);
  Expect(shape.type_index == kTVMFFIShape, "a shape");
  TVMFFIObjectDecRef(Object(shape));
  Expect(Item(array.payload, 8).bytes.empty(), "an empty text");
  Result empty = Item(array.payload, 9);
  Expect(TVMFFIShapeGetCellPtr(Object(empty))->size == 0, "an empty shape");
  TVMFFIObjectDecRef(Object(empty));
  TVMFFIObjectDecRef(Object(array));
  TVMFFIObjectDecRef(make);
}

void MalformedFramesAreRefused() {
  TVMFFIObjectHandle make = alc::GlobalFunction("ffi.Array");
  alc::Slot slot{};
  auto send = [&](int32_t tag, int32_t length, int64_t payload, int32_t count) {
    slot = {tag, length, payload};
    return [&slot, make, count] { Call(make, &slot, sizeof(slot), count); };
  };
  ExpectFailure("ArgumentError", "cannot hold", send(alc::kInt, 0, 0, 2));
  ExpectFailure("ArgumentError", "cannot hold", send(alc::kInt, 0, 0, -1));
  ExpectFailure("ArgumentError", "cannot hold", send(alc::kInt, 0, 0, INT32_MAX));
  ExpectFailure("ArgumentError", "unknown tag", send(77, 0, 0, 1));
  ExpectFailure("ArgumentError", "unknown tag", send(-1, 0, 0, 1));
  ExpectFailure("ArgumentError", "null handle", send(alc::kObject, 0, 0, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kText, 1, 16, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kText, -1, 0, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kBytes, 4, -8, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kBytes, INT32_MAX, INT64_MAX, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kDims, 1, 4, 1));
  ExpectFailure("ArgumentError", "outside", send(alc::kDims, INT32_MAX, 0, 1));
  ExpectFailure("ArgumentError", "null handle", [] { Call(nullptr, nullptr, 0, 0); });
  // A refused argument after a good one must not leave the good one's object behind.
  ExpectFailure("ArgumentError", "unknown tag", [&] {
    Frame().Text("a text that needs an object of its own").Dims({4, 5}).Add(99, 0).Send(make);
  });
  TVMFFIObjectDecRef(make);
}

void FailuresNameTheirKind() {
  TVMFFIObjectHandle get = alc::GlobalFunction("ffi.ArrayGetItem");
  ExpectFailure("TypeError", "Mismatched", [&] {
    Frame().Add(alc::kInt, 1).Add(alc::kInt, 0).Send(get);
  });
  TVMFFIObjectHandle load = alc::GlobalFunction("ffi.ModuleLoadFromFile");
  ExpectFailure("InternalError", "no/such/model.so", [&] {
    Frame().Text("/no/such/model.so").Send(load);
  });
  ExpectFailure("InternalError", "without saying why", [] { alc::ThrowRaised(); });
  Expect(alc::GlobalFunction("no.such.function") == nullptr, "an unknown function is null");
  TVMFFIObjectDecRef(load);
  TVMFFIObjectDecRef(get);
}

std::string Write(const std::string& folder, size_t size) {
  std::string path = folder + "/shard.bin";
  int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  std::vector<char> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i % 251);
  if (file < 0 || write(file, bytes.data(), size) != static_cast<ssize_t>(size)) {
    throw Failure("SystemError", "cannot write " + path);
  }
  close(file);
  return path;
}

void TensorsLieInTheirFile(const std::string& folder) {
  constexpr size_t kSize = 4096 + 128;
  std::string path = Write(folder, kSize);
  DLDataType f32{kDLFloat, 32, 1}, u8{kDLUInt, 8, 1}, u4{kDLUInt, 4, 1}, none{kDLUInt, 0, 1};
  auto mapping = std::make_shared<alc::Mapping>(path, kSize);
  mapping->Cache(0, kSize);
  mapping->Cache(4095, SIZE_MAX);
  mapping->Cache(kSize, 1);
  int64_t shape[2] = {4, 32};
  TVMFFIObjectHandle tensor = alc::TensorIn(mapping, 64, f32, shape, 2);
  DLTensor* view = TVMFFITensorGetDLTensorPtr(tensor);
  Expect(view->data == mapping->data() + 64, "a tensor lies in place");
  Expect(view->ndim == 2 && view->shape[0] == 4 && view->shape[1] == 32, "it has its shape");
  Expect(alc::ByteSize(*view) == 512, "it knows its bytes");
  const char* first = mapping->data();
  mapping.reset();
  unlink(path.c_str());
  Expect(static_cast<const char*>(view->data)[1] == 65 && first[64] == 64,
         "the file stays mapped while a tensor lives");
  TVMFFIObjectDecRef(tensor);

  path = Write(folder, kSize);
  auto again = std::make_shared<alc::Mapping>(path, kSize);
  int64_t all[1] = {static_cast<int64_t>(kSize)}, more[1] = {static_cast<int64_t>(kSize) + 1};
  TVMFFIObjectDecRef(alc::TensorIn(again, 0, u8, all, 1));
  int64_t nibbles[1] = {static_cast<int64_t>(kSize) * 2};
  TVMFFIObjectDecRef(alc::TensorIn(again, 0, u4, nibbles, 1));
  auto refused = [&](int64_t offset, DLDataType type, const int64_t* dims, int32_t ndim) {
    return [&again, offset, type, dims, ndim] {
      TVMFFIObjectDecRef(alc::TensorIn(again, offset, type, dims, ndim));
    };
  };
  int64_t negative[1] = {-1}, huge[2] = {INT64_MAX, 3}, one[1] = {1};
  ExpectFailure("ArgumentError", "ends behind", refused(0, u8, more, 1));
  ExpectFailure("ArgumentError", "ends behind", refused(64, u8, all, 1));
  ExpectFailure("ArgumentError", "ends behind", refused(0, f32, huge, 2));
  ExpectFailure("ArgumentError", "negative", refused(0, u8, negative, 1));
  ExpectFailure("ArgumentError", "multiple of 64", refused(32, f32, one, 1));
  ExpectFailure("ArgumentError", "starts behind", refused(-64, f32, one, 1));
  ExpectFailure("ArgumentError", "starts behind", refused(8192, f32, one, 1));
  ExpectFailure("ArgumentError", "one lane", refused(0, none, one, 1));
  ExpectFailure("ArgumentError", "dimensions", refused(0, u8, one, 33));
  ExpectFailure("SystemError", "instead of 4225", [&] { alc::Mapping(path, kSize + 1); });
  ExpectFailure("SystemError", "cannot open", [&] { alc::Mapping(folder + "/none", 1); });
  ExpectFailure("SystemError", "instead of", [&] { alc::Mapping(folder, 4096); });
  ExpectFailure("SystemError", "instead of 0", [&] { alc::Mapping(path, 0); });
  unlink(path.c_str());
}

/*! Many threads at once in their own frames, with tensors of one mapping that other threads
 *  release: what engines of one process do, each on its decode thread. */
void ThreadsDoNotMeet(const std::string& folder) {
  constexpr size_t kSize = 4096;
  constexpr int kThreads = 4, kRounds = 50;
  std::string path = Write(folder, kSize);
  auto mapping = std::make_shared<alc::Mapping>(path, kSize);
  std::vector<TVMFFIObjectHandle> left(kThreads);
  std::vector<int> faults(kThreads, 0);
  auto work = [&](size_t self) {
    DLDataType u8{kDLUInt, 8, 1};
    int64_t shape[1] = {16};
    for (int round = 0; round < kRounds; ++round) {
      TVMFFIObjectHandle make = alc::GlobalFunction("ffi.Array");
      std::string text = "thread " + std::to_string(self) + " in round " + std::to_string(round);
      Result array = Frame().Text(text).Add(alc::kInt, round).Send(make);
      faults[self] += Item(array.payload, 0).bytes != text;
      TVMFFIObjectDecRef(Object(array));
      TVMFFIObjectDecRef(make);
      // An error is the thread's own, whatever the others raise meanwhile.
      std::string missing = "/no/such/model-" + std::to_string(self) + ".so";
      TVMFFIObjectHandle load = alc::GlobalFunction("ffi.ModuleLoadFromFile");
      try {
        Frame().Text(missing).Send(load);
        ++faults[self];
      } catch (const Failure& failure) {
        faults[self] += std::strstr(failure.what(), missing.c_str()) == nullptr;
      }
      TVMFFIObjectDecRef(load);
      TVMFFIObjectHandle tensor = alc::TensorIn(mapping, 64, u8, shape, 1);
      faults[self] += static_cast<uint8_t*>(TVMFFITensorGetDLTensorPtr(tensor)->data)[0] != 64;
      if (round + 1 < kRounds) {
        TVMFFIObjectDecRef(tensor);
      } else {
        left[self] = tensor;
      }
    }
  };
  std::vector<std::thread> threads;
  for (size_t self = 0; self < kThreads; ++self) threads.emplace_back(work, self);
  mapping->Cache(0, kSize);
  for (std::thread& thread : threads) thread.join();
  mapping.reset();
  for (TVMFFIObjectHandle tensor : left) threads.emplace_back([=] { TVMFFIObjectDecRef(tensor); });
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
  unlink(path.c_str());
  Expect(faults == std::vector<int>(kThreads, 0), "threads do not disturb each other");
}

void PoolsAreAsLargeAsAsked() {
  Expect(alc::ConfigureThreads(1) == 1, "a pool of one thread");
  Expect(alc::ConfigureThreads(2) == 2, "a pool of two threads");
  ExpectFailure("ArgumentError", "at least one thread", [] { alc::ConfigureThreads(0); });
  ExpectFailure("ArgumentError", "at least one thread", [] { alc::ConfigureThreads(-3); });
}

/*! In a thread of its own, whose pool is its own too. */
void PoolsStayOnTheirCores() {
  std::thread([] {
    alc::ConfigureThreads(2);
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof(before), &before);
    Expect(!alc::KeepOnCores({-1, CPU_SETSIZE, CPU_SETSIZE - 1}), "cores that there are not");
    sched_getaffinity(0, sizeof(after), &after);
    Expect(CPU_EQUAL(&before, &after), "a thread that cannot stay goes anywhere");
    int first = 0;
    while (!CPU_ISSET(static_cast<size_t>(first), &before)) ++first;
    Expect(alc::KeepOnCores({-1, first}), "a core that there is");
    sched_getaffinity(0, sizeof(after), &after);
    Expect(CPU_COUNT(&after) == 1 && CPU_ISSET(static_cast<size_t>(first), &after), "one core");
  }).join();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  for (int round = 0; round < 3; ++round) {
    ValuesTravel();
    MalformedFramesAreRefused();
    FailuresNameTheirKind();
    TensorsLieInTheirFile(argv[1]);
    ThreadsDoNotMeet(argv[1]);
    PoolsAreAsLargeAsAsked();
    PoolsStayOnTheirCores();
  }
  return failures == 0 ? 0 : 1;
}
