#include "device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace pygan {

Run::Run(const at::Device& device)
    : device_(device),
      guard_(device.is_cpu() ? std::nullopt : std::optional(device)),
      backend_(backend_for(device.type())) {
  TORCH_CHECK_NOT_IMPLEMENTED(backend_, "pygan was built without a backend for ", device.type(), " tensors");
}

bool tf32_allowed() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
         at::Float32Precision::TF32;
}

Resources Run::resources() {
  Resources resources;
  resources.threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  resources.scratch = scratch;
  resources.owner = this;
  resources.allow_tf32 = tf32_allowed();
  if (!device_.is_cpu()) {
    const c10::impl::VirtualGuardImpl device(device_.type());
    resources.stream = device.getStreamNativeHandle(device.getStream(device_));
  }
  return resources;
}

// torch's allocator gives the memory back to the stream's own pool: freeing it before the kernels ran is safe.
void* Run::scratch(void* self, size_t bytes) {
  Run& run = *static_cast<Run*>(self);
  constexpr size_t kAlignment = 256;
  const auto options = at::TensorOptions().dtype(at::kByte).device(run.device_);
  run.scratch_.push_back(at::empty({int64_t(bytes + kAlignment)}, options));
  const auto address = reinterpret_cast<uintptr_t>(run.scratch_.back().mutable_data_ptr());
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace pygan
