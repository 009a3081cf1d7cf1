// Narrow MLPs in one launch each way, where the device's backend has a kernel for that.
#pragma once

#include <ATen/core/Tensor.h>

namespace pygan {

// Whether small_mlp serves these layers: all linear and at most kSmallMlpWidth wide, no more than kSmallMlpLayers.
bool serves_small_mlp(const at::Tensor& x, at::TensorList weights, const c10::List<std::string>& activations,
                      at::ArrayRef<double> dropout);

// The outputs of all layers, through the dispatcher.
std::vector<at::Tensor> call_small_mlp(const at::Tensor& x, at::TensorList weights,
                                       const c10::List<std::optional<at::Tensor>>& biases,
                                       const c10::List<std::string>& activations, double slope);

}  // namespace pygan
