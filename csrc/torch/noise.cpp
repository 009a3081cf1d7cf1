// Noise and minibatch order: factories whose values are functions of (seed, offset, element).
#include <ATen/ops/empty.h>
#include <c10/core/TensorOptions.h>
#include <torch/library.h>

#include <limits>

#include "checks.h"
#include "device.h"
#include "find_op.h"

namespace pygan {
namespace {

using at::Tensor;
using std::optional;
using OptionalType = optional<at::ScalarType>;
using OptionalDevice = optional<at::Device>;

at::TensorOptions options(OptionalType dtype, OptionalDevice device) {
  return at::TensorOptions().dtype(dtype.value_or(at::typeMetaToScalarType(at::get_default_dtype()))).device(device);
}

Tensor empty_noise(c10::SymIntArrayRef size, OptionalType dtype, OptionalDevice device) {
  for (const auto& extent : size) TORCH_CHECK_VALUE(extent >= 0, "noise: size must have no negative entry, got ", size);
  Tensor out = at::empty_symint(size, options(dtype, device));
  check_floating("noise", "dtype", out);
  return out;
}

Tensor noise(c10::SymIntArrayRef size, c10::string_view kind, c10::SymInt seed, c10::SymInt offset, OptionalType dtype,
             OptionalDevice device) {
  const NoiseKind parsed = parse_noise_kind(kind);
  Tensor out = empty_noise(size, dtype, device);
  Run run(out.device());
  run->noise({dtype_of(out), parsed, uint64_t(seed.expect_int()), uint64_t(offset.expect_int()), out.mutable_data_ptr(),
              out.numel(), run.resources()});
  return out;
}

Tensor noise_meta(c10::SymIntArrayRef size, c10::string_view kind, c10::SymInt, c10::SymInt, OptionalType dtype,
                  OptionalDevice device) {
  parse_noise_kind(kind);
  return empty_noise(size, dtype, device);
}

void check_minibatch(int64_t population, int64_t count) {
  TORCH_CHECK_VALUE(population >= 1, "minibatch_indices: population must be >= 1, got ", population);
  TORCH_CHECK_VALUE(count >= 0, "minibatch_indices: count must be >= 0, got ", count);
}

Tensor minibatch(int64_t population, int64_t count, int64_t start, int64_t seed, int64_t offset,
                 OptionalDevice device) {
  check_minibatch(population, count);
  TORCH_CHECK_VALUE(start >= 0 && start <= std::numeric_limits<int64_t>::max() - count,
                    "minibatch_indices: start must be >= 0 and start + count below 2^63, got ", start);
  Tensor out = at::empty({count}, options(at::kLong, device));
  Run run(out.device());
  run->minibatch_indices(
      {population, start, count, uint64_t(seed), uint64_t(offset), out.mutable_data_ptr<int64_t>(), run.resources()});
  return out;
}

Tensor minibatch_meta(int64_t population, int64_t count, c10::SymInt, c10::SymInt, c10::SymInt, OptionalDevice device) {
  check_minibatch(population, count);
  return at::empty({count}, options(at::kLong, device));
}

// Factories have no tensor to dispatch on: the device argument chooses.
template <class Op>
c10::DispatchKeySet key_of(const char* name, const Op& op, OptionalType dtype, OptionalDevice device) {
  const auto key = c10::computeDispatchKey(dtype, std::nullopt, device);
  TORCH_CHECK_NOT_IMPLEMENTED(op.hasKernelForDispatchKey(key), name, ": this build of pygan has no kernel for device ",
                              device.value_or(at::kCPU));
  return c10::DispatchKeySet(key);
}

Tensor noise_select(c10::SymIntArrayRef size, c10::string_view kind, c10::SymInt seed, c10::SymInt offset,
                    OptionalType dtype, OptionalDevice device) {
  static const auto op =
      find_op<Tensor(c10::SymIntArrayRef, c10::string_view, c10::SymInt, c10::SymInt, OptionalType, OptionalDevice)>(
          "pygan::noise");
  return op.redispatch(key_of("noise", op, dtype, device), size, kind, std::move(seed), std::move(offset), dtype,
                       device);
}

Tensor minibatch_select(int64_t population, int64_t count, c10::SymInt start, c10::SymInt seed, c10::SymInt offset,
                        OptionalDevice device) {
  static const auto op = find_op<Tensor(int64_t, int64_t, c10::SymInt, c10::SymInt, c10::SymInt, OptionalDevice)>(
      "pygan::minibatch_indices");
  return op.redispatch(key_of("minibatch_indices", op, at::kLong, device), population, count, std::move(start),
                       std::move(seed), std::move(offset), device);
}

void register_kernels(torch::Library& m) {
  m.impl("noise", noise);
  m.impl("minibatch_indices", minibatch);
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, BackendSelect, m) {
  m.impl("noise", noise_select);
  m.impl("minibatch_indices", minibatch_select);
}

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("noise", noise_meta);
  m.impl("minibatch_indices", minibatch_meta);
}

}  // namespace pygan
