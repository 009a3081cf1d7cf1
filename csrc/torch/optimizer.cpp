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

// Whether each element has a place of its own: no step along a dimension is as short as what lies inside it.
bool lies_apart(const Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> steps;  // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d)
    if (tensor.size(d) > 1) steps.emplace_back(tensor.stride(d), tensor.size(d));
  std::sort(steps.begin(), steps.end());
  int64_t inside = 0;
  for (const auto& [stride, size] : steps) {
    if (stride <= inside) return false;
    inside += stride * (size - 1);
  }
  return true;
}

// What is updated in place must have a place for each element.
void check_writable(const char* op, const char* argument, size_t i, const Tensor& tensor) {
  const auto overlap = at::has_internal_overlap(tensor);
  TORCH_CHECK_VALUE(overlap == at::MemOverlap::No || (overlap == at::MemOverlap::TooHard && lies_apart(tensor)), op,
                    ": ", argument, "[", i,
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

// Memory that two tensors share would be updated twice at the same time. Those that are not contiguous may interleave.
void check_distinct(const char* op, const std::vector<std::pair<const char*, TensorList>>& lists) {
  struct Place {
    const char *begin, *end;
    const char* list;
    size_t index;
  };
  std::vector<Place> places;
  for (const auto& [name, list] : lists)
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].numel() == 0) continue;
      const auto begin = static_cast<const char*>(list[i].const_data_ptr());
      const auto bytes = list[i].is_contiguous() ? list[i].nbytes() : size_t(1);
      places.push_back({begin, begin + bytes, name, i});
    }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < places.size(); ++i) {
    const Place &one = places[i - 1], &other = places[i];
    TORCH_CHECK_VALUE(other.begin >= one.end, op, ": ", other.list, "[", other.index, "] shares memory with ", one.list,
                      "[", one.index, "]; each tensor that is updated needs its own");
  }
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
  check_distinct("momentum_", {{"params", params}, {"velocities", velocities}});
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
  check_distinct("adam_", {{"params", params}, {"m", m}, {"v", v}});
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
