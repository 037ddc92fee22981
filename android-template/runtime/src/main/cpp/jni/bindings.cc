/*!
 * The JNI edge: turns Java's arguments into those of core/, and its failures into
 * dev.alc.runtime.NativeException. Nothing else is decided here.
 *
 * Texts cross as byte arrays of UTF-8, because JNI's own strings are in a modified form.
 */
#include <jni.h>
#include <tvm/ffi/c_api.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../core/call.h"
#include "../core/cpu.h"
#include "../core/failure.h"
#include "../core/mapping.h"
#include "../core/threads.h"

namespace {

using alc::Failure;
using SharedMapping = std::shared_ptr<alc::Mapping>;

constexpr char kBindings[] = "dev/alc/runtime/NativeBindings";
constexpr char kException[] = "dev/alc/runtime/NativeException";

jclass exception_class = nullptr;
jmethodID exception_new = nullptr;

/*! Handles that Java holds: what it was given less what it gave back. */
std::atomic<int64_t> held{0};

jlong Hand(void* owned) {
  if (owned != nullptr) held.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<jlong>(owned);
}

/*! A Java exception is pending already; only the way back to Java is left. */
struct Pending {};

jbyteArray ToJava(JNIEnv* env, const std::string& bytes) {
  jbyteArray array = env->NewByteArray(static_cast<jsize>(bytes.size()));
  if (array == nullptr) throw Pending();
  env->SetByteArrayRegion(array, 0, static_cast<jsize>(bytes.size()),
                          reinterpret_cast<const jbyte*>(bytes.data()));
  return array;
}

std::string FromJava(JNIEnv* env, jbyteArray array) {
  if (array == nullptr) throw Failure("ArgumentError", "a text is null");
  std::string bytes(static_cast<size_t>(env->GetArrayLength(array)), '\0');
  env->GetByteArrayRegion(array, 0, static_cast<jsize>(bytes.size()),
                          reinterpret_cast<jbyte*>(&bytes[0]));
  return bytes;
}

void Throw(JNIEnv* env, const std::string& kind, const std::string& message,
           const std::string& backtrace) {
  if (env->ExceptionCheck()) return;
  try {
    jobject exception = env->NewObject(exception_class, exception_new, ToJava(env, kind),
                                       ToJava(env, message), ToJava(env, backtrace));
    if (exception != nullptr) env->Throw(static_cast<jthrowable>(exception));
  } catch (const Pending&) {
    // Java has an OutOfMemoryError pending, which says it as well.
  }
}

/*! Runs `body` and turns what it throws into a Java exception; then the result is a zero. */
template <typename Body>
auto Guard(JNIEnv* env, Body body) -> decltype(body()) {
  using Value = decltype(body());
  try {
    return body();
  } catch (const Pending&) {
  } catch (const Failure& failure) {
    Throw(env, failure.kind(), failure.what(), failure.backtrace());
  } catch (const std::exception& problem) {
    Throw(env, "InternalError", problem.what(), "");
  } catch (...) {
    Throw(env, "InternalError", "an exception of unknown type", "");
  }
  return Value();
}

template <typename T>
T* Pointer(jlong handle) {
  if (handle == 0) throw Failure("ArgumentError", "a null handle");
  return reinterpret_cast<T*>(handle);
}

const DLTensor* CpuTensor(jlong handle) {
  TVMFFIObject* object = Pointer<TVMFFIObject>(handle);
  if (object->type_index != kTVMFFITensor) throw Failure("ArgumentError", "not a tensor");
  const DLTensor* tensor = TVMFFITensorGetDLTensorPtr(object);
  if (tensor->device.device_type != kDLCPU) {
    throw Failure("ArgumentError", "the tensor is not in the CPU's memory");
  }
  return tensor;
}

jbyteArray Describe(JNIEnv* env, jclass) {
  return Guard(env, [&] {
    return ToJava(env, std::string("tvm=" ALC_TVM_VERSION "\nabi=") + alc::Abi() +
                           "\nfeatures=" + alc::CpuFeatures());
  });
}

jlong GlobalFunction(JNIEnv* env, jclass, jbyteArray name) {
  return Guard(env, [&] { return Hand(alc::GlobalFunction(FromJava(env, name))); });
}

jbyteArray Call(JNIEnv* env, jclass, jlong function, jobject frame, jint count) {
  return Guard(env, [&]() -> jbyteArray {
    char* data = static_cast<char*>(env->GetDirectBufferAddress(frame));
    jlong size = env->GetDirectBufferCapacity(frame);
    if (data == nullptr || size < static_cast<jlong>(sizeof(alc::Slot))) {
      throw Failure("ArgumentError", "a frame must be a direct buffer of 16 bytes or more");
    }
    alc::Result result =
        alc::Call(Pointer<void>(function), data, static_cast<size_t>(size), count);
    alc::Slot slot{result.tag, result.type_index, result.payload};
    if (result.tag == alc::kObject) Hand(reinterpret_cast<void*>(result.payload));
    std::memcpy(data, &slot, sizeof(slot));
    if (result.tag == alc::kText || result.tag == alc::kBytes) return ToJava(env, result.bytes);
    return nullptr;
  });
}

void Release(JNIEnv*, jclass, jlong handle) {
  if (handle == 0) return;
  held.fetch_sub(1, std::memory_order_relaxed);
  TVMFFIObjectDecRef(reinterpret_cast<TVMFFIObjectHandle>(handle));
}

/*! Fills `out` with the DLDataType's bytes and the shape and returns the number of dimensions,
 *  also if `out` is too short for all of them. */
jint TensorShape(JNIEnv* env, jclass, jlong handle, jlongArray out) {
  return Guard(env, [&]() -> jint {
    const DLTensor* tensor = CpuTensor(handle);
    std::vector<jlong> facts{0};
    std::memcpy(facts.data(), &tensor->dtype, sizeof(tensor->dtype));
    facts.insert(facts.end(), tensor->shape, tensor->shape + tensor->ndim);
    if (env->GetArrayLength(out) >= static_cast<jsize>(facts.size())) {
      env->SetLongArrayRegion(out, 0, static_cast<jsize>(facts.size()), facts.data());
    }
    return tensor->ndim;
  });
}

/*! A direct buffer over the tensor's memory, which the caller must not outlive. */
jobject TensorBuffer(JNIEnv* env, jclass, jlong handle) {
  return Guard(env, [&]() -> jobject {
    const DLTensor* tensor = CpuTensor(handle);
    jobject buffer =
        env->NewDirectByteBuffer(static_cast<char*>(tensor->data) + tensor->byte_offset,
                                 static_cast<jlong>(alc::ByteSize(*tensor)));
    if (buffer == nullptr && !env->ExceptionCheck()) {
      throw Failure("InternalError", "this virtual machine has no direct buffers");
    }
    return buffer;
  });
}

jlong Map(JNIEnv* env, jclass, jbyteArray path, jlong size) {
  return Guard(env, [&] {
    auto mapping = std::make_shared<alc::Mapping>(FromJava(env, path),
                                                  static_cast<size_t>(size < 0 ? 0 : size));
    return Hand(new SharedMapping(std::move(mapping)));
  });
}

void Cache(JNIEnv* env, jclass, jlong mapping, jlong offset, jlong length) {
  Guard(env, [&] {
    const alc::Mapping& file = **Pointer<SharedMapping>(mapping);
    file.Cache(static_cast<size_t>(offset), static_cast<size_t>(length));
    return 0;
  });
}

/*! Ends the caller's share; the file stays mapped until the last tensor in it is released. */
void Unmap(JNIEnv*, jclass, jlong mapping) {
  if (mapping == 0) return;
  held.fetch_sub(1, std::memory_order_relaxed);
  delete reinterpret_cast<SharedMapping*>(mapping);
}

jlong TensorInMapping(JNIEnv* env, jclass, jlong mapping, jlong offset, jlong dtype,
                      jlongArray shape) {
  return Guard(env, [&] {
    DLDataType type;
    std::memcpy(&type, &dtype, sizeof(type));
    std::vector<jlong> dims(static_cast<size_t>(env->GetArrayLength(shape)));
    env->GetLongArrayRegion(shape, 0, static_cast<jsize>(dims.size()), dims.data());
    std::vector<int64_t> sizes(dims.begin(), dims.end());
    return Hand(alc::TensorIn(*Pointer<SharedMapping>(mapping), offset, type, sizes.data(),
                              static_cast<int32_t>(sizes.size())));
  });
}

jint ConfigureThreads(JNIEnv* env, jclass, jint count) {
  return Guard(env, [&]() -> jint { return alc::ConfigureThreads(count); });
}

jboolean KeepOnCores(JNIEnv* env, jclass, jintArray numbers) {
  return Guard(env, [&]() -> jboolean {
    std::vector<jint> cores(static_cast<size_t>(env->GetArrayLength(numbers)));
    env->GetIntArrayRegion(numbers, 0, static_cast<jsize>(cores.size()), cores.data());
    return alc::KeepOnCores({cores.begin(), cores.end()}) ? JNI_TRUE : JNI_FALSE;
  });
}

jlong HeldHandles(JNIEnv*, jclass) { return held.load(std::memory_order_relaxed); }

template <typename Function>
JNINativeMethod Method(const char* name, const char* signature, Function* function) {
  return {const_cast<char*>(name), const_cast<char*>(signature),
          reinterpret_cast<void*>(function)};
}

}  // namespace

/*! Registers the methods by hand: a class of another version is refused here and not in mid-call,
 *  and no other symbol than this one needs to be visible. */
extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* machine, void*) {
  JNIEnv* env = nullptr;
  if (machine->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
  jclass found = env->FindClass(kException);
  if (found == nullptr) return JNI_ERR;
  exception_class = static_cast<jclass>(env->NewGlobalRef(found));
  exception_new = env->GetMethodID(found, "<init>", "([B[B[B)V");
  jclass bindings = env->FindClass(kBindings);
  if (exception_class == nullptr || exception_new == nullptr || bindings == nullptr) return JNI_ERR;
  const JNINativeMethod methods[] = {
      Method("describe", "()[B", Describe),
      Method("globalFunction", "([B)J", GlobalFunction),
      Method("call", "(JLjava/nio/ByteBuffer;I)[B", Call),
      Method("release", "(J)V", Release),
      Method("tensorShape", "(J[J)I", TensorShape),
      Method("tensorBuffer", "(J)Ljava/nio/ByteBuffer;", TensorBuffer),
      Method("map", "([BJ)J", Map),
      Method("cache", "(JJJ)V", Cache),
      Method("unmap", "(J)V", Unmap),
      Method("tensorInMapping", "(JJJ[J)J", TensorInMapping),
      Method("configureThreads", "(I)I", ConfigureThreads),
      Method("keepOnCores", "([I)Z", KeepOnCores),
      Method("heldHandles", "()J", HeldHandles),
  };
  jint count = static_cast<jint>(sizeof(methods) / sizeof(methods[0]));
  return env->RegisterNatives(bindings, methods, count) == JNI_OK ? JNI_VERSION_1_6 : JNI_ERR;
}
