// In-place updates of all of a network's parameters in one call.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.h"
#include "device.h"

namespace pygan {
namespace {

using at::Tensor;
using at::TensorList;

void check_list(const char* op, const char* argument, const TensorList& list, const TensorList& params) {
  TORCH_CHECK_VALUE(list.size() == params.size(), op, ": ", argument, " must have one entry for each of the ",
                    params.size(), " params, got ", list.size());
}

void check_like_param(const char* op, const char* argument, size_t i, const Tensor& tensor, const Tensor& param) {
  TORCH_CHECK_VALUE(tensor.sym_sizes() == param.sym_sizes(), op, ": ", argument, "[", i, "] must have shape ",
                    param.sym_sizes(), ", got ", tensor.sym_sizes());
  TORCH_CHECK_VALUE(tensor.device() == param.device(), op, ": ", argument, "[", i, "] must be on its param's device ",
                    param.device(), ", got ", tensor.device());
}

// What is updated in place must have a place for each element.
void check_writable(const char* op, const char* argument, size_t i, const Tensor& tensor) {
  TORCH_CHECK_VALUE(at::has_internal_overlap(tensor) != at::MemOverlap::Yes, op, ": ", argument, "[", i,
                    "] is updated in place and must not be expanded: some of its elements share memory");
}

void check_update(const char* op, const TensorList& params, const TensorList& grads,
                  const std::vector<std::pair<const char*, TensorList>>& states) {
  check_list(op, "grads", grads, params);
  for (const auto& [name, state] : states) check_list(op, name, state, params);
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& param = params[i];
    check_floating(op, "params", param);
    TORCH_CHECK_VALUE(!(at::GradMode::is_enabled() && param.requires_grad()), op, ": params[", i,
                      "] requires grad and is updated in place; call under torch.no_grad()");
    TORCH_CHECK_TYPE(param.scalar_type() == params[0].scalar_type(), op, ": params[", i,
                     "] must have params[0]'s dtype ", params[0].scalar_type(), ", got ", param.scalar_type());
    TORCH_CHECK_VALUE(param.device() == params[0].device(), op, ": params[", i, "] must be on params[0]'s device ",
                      params[0].device(), ", got ", param.device());
    TORCH_CHECK_TYPE(grads[i].scalar_type() == param.scalar_type(), op, ": grads[", i, "] must have its param's dtype ",
                     param.scalar_type(), ", got ", grads[i].scalar_type());
    check_writable(op, "params", i, param);
    check_like_param(op, "grads", i, grads[i], param);
    for (const auto& [name, state] : states) {
      const auto type = state[i].scalar_type();
      const bool wide = type == at::kFloat && param.scalar_type() != at::kDouble;
      TORCH_CHECK_TYPE((type == param.scalar_type() || wide) && type == states[0].second[0].scalar_type(), op, ": ",
                       name, "[", i, "] must have its param's dtype ", param.scalar_type(),
                       " (or float32 for all half-precision params), got ", type);
      check_writable(op, name, i, state[i]);
      check_like_param(op, name, i, state[i], param);
    }
  }
}

// Two places of a list that share memory would be updated at the same time.
void check_distinct(const char* op, const TensorList& params) {
  std::vector<std::pair<const void*, size_t>> places;
  for (size_t i = 0; i < params.size(); ++i)
    if (params[i].numel()) places.emplace_back(params[i].const_data_ptr(), i);
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i)
    TORCH_CHECK_VALUE(places[i].first != places[i - 1].first, op, ": params[", places[i].second, "] is params[",
                      places[i - 1].second, "] again; each must be there once");
}

void check_lr(const char* op, double lr) {
  TORCH_CHECK_VALUE(lr >= 0 && std::isfinite(lr), op, ": lr must be finite and >= 0, got ", lr);
}

// The tensors of an update as contiguous slices; a strided one is updated in a copy and written back.
class Slices {
 public:
  Slices(const TensorList& params, const TensorList& grads, const TensorList& first, const TensorList& second) {
    for (size_t i = 0; i < params.size(); ++i) {
      void* param = in_place(params[i]);
      held_.push_back(grads[i].contiguous());
      const void* grad = held_.back().const_data_ptr();
      void* state1 = in_place(first[i]);
      void* state2 = second.empty() ? nullptr : in_place(second[i]);
      slices_.push_back({param, grad, state1, state2, params[i].numel()});
    }
  }

  void write_back() const {
    for (const auto& [target, copy] : copies_) target.copy_(copy);
  }

  const ParamSlice* data() const { return slices_.data(); }
  int64_t size() const { return int64_t(slices_.size()); }

 private:
  void* in_place(const Tensor& tensor) {
    tensor.unsafeGetTensorImpl()->bump_version();  // autograd then notices a saved tensor that changed
    if (tensor.is_contiguous()) return tensor.mutable_data_ptr();
    copies_.emplace_back(tensor, tensor.contiguous());
    return copies_.back().second.mutable_data_ptr();
  }

  std::vector<ParamSlice> slices_;
  std::vector<Tensor> held_;
  std::vector<std::pair<Tensor, Tensor>> copies_;
};

void check_momentum(TensorList params, TensorList grads, TensorList velocities, double lr, double momentum) {
  check_update("momentum_", params, grads, {{"velocities", velocities}});
  check_lr("momentum_", lr);
  TORCH_CHECK_VALUE(momentum >= 0 && momentum < 1, "momentum_: momentum must be in [0, 1), got ", momentum);
}

void momentum(TensorList params, TensorList grads, TensorList velocities, double lr, double momentum) {
  check_momentum(params, grads, velocities, lr, momentum);
  if (params.empty()) return;
  check_distinct("momentum_", params);
  Slices slices(params, grads, velocities, {});
  Run run(params[0].device());
  run->momentum_update(
      {dtype_of(params[0]), dtype_of(velocities[0]), slices.data(), slices.size(), lr, momentum, run.resources()});
  slices.write_back();
}

void check_adam(TensorList params, TensorList grads, TensorList m, TensorList v, int64_t step, double lr, double beta1,
                double beta2, double eps) {
  check_update("adam_", params, grads, {{"m", m}, {"v", v}});
  TORCH_CHECK_VALUE(step >= 1, "adam_: step counts from 1, got ", step);
  check_lr("adam_", lr);
  check_probability("adam_", "betas[0]", beta1);
  check_probability("adam_", "betas[1]", beta2);
  TORCH_CHECK_VALUE(eps >= 0, "adam_: eps must be >= 0, got ", eps);
}

void adam(TensorList params, TensorList grads, TensorList m, TensorList v, int64_t step, double lr, double beta1,
          double beta2, double eps) {
  check_adam(params, grads, m, v, step, lr, beta1, beta2, eps);
  if (params.empty()) return;
  check_distinct("adam_", params);
  Slices slices(params, grads, m, v);
  Run run(params[0].device());
  run->adam_update({dtype_of(params[0]), dtype_of(m[0]), slices.data(), slices.size(), step, lr, beta1, beta2, eps,
                    run.resources()});
  slices.write_back();
}

void register_kernels(torch::Library& m) {
  m.impl("momentum_", momentum);
  m.impl("adam_", adam);
}

}  // namespace

PYGAN_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(pygan, Meta, m) {
  m.impl("momentum_", check_momentum);
  m.impl("adam_", check_adam);
}

}  // namespace pygan
