// The emulator's own tests: small kernels, right and wrong ones. Plain CUDA, so that nvcc can compile them too.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../../../csrc/cuda/launch.h"
#include "../../../csrc/cuda/ptx.h"

namespace cases {

using Run = void (*)();  // throws what went wrong

struct Registration {
  Registration(const char* name, Run run);
};

#define SIMT_CASE(name)                                      \
  static void name();                                        \
  static const cases::Registration name##_case(#name, name); \
  static void name()

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n) {
    pygan::cuda::check(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    pygan::cuda::check(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }

  std::vector<T> values() const {
    std::vector<T> result(n_);
    pygan::cuda::check(cudaMemcpy(result.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return result;
  }

 private:
  size_t n_;
  T* data_ = nullptr;
};

// 0, 1, 2 ...
inline std::vector<float> ramp(size_t n) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = float(i);
  return values;
}

template <class T>
void expect_equal(const std::vector<T>& got, const std::vector<T>& wanted) {
  for (size_t i = 0; i < wanted.size(); ++i)
    if (!(got[i] == wanted[i]))
      throw std::runtime_error("wrong result: element " + std::to_string(i) + " is " + std::to_string(got[i]) +
                               ", not " + std::to_string(wanted[i]));
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments... arguments) {
  pygan::cuda::launch(pygan::Resources{}, kernel, grid, block, shared_bytes, arguments...);
}

}  // namespace cases
