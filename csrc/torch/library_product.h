// Products that torch's own library computes faster than the backend's kernels: the op calls it and keeps its
// epilogue.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include "../core/ops.h"

namespace pygan {

enum class Product { automatic, fused, library };

// Which product layers use from now on: by the table in library_product.cpp, always the fused one, always the
// library's (where the backend can take it).
Product product_choice();
void set_product_choice(Product choice);

// Which of a layer's products torch's library computes.
struct LibraryProducts {
  bool forward = false, backward = false;
};

// By the table; the backend must be able to take a linear_act's products, or also a maxout's.
LibraryProducts library_products(const Backend& backend, const at::Tensor& x, const at::Tensor& weight, double dropout,
                                 bool maxout = false);
// On a GPU, for layers of so much work.
bool uses_library(const Backend& backend, at::ScalarType type, double flops);

// dropout(x) . weight^T + bias, (m, n) into `out`: the bias before half types are rounded
void library_forward(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                     const Dropout& dropout, at::Tensor out);

// From g (m, n): grad_x, grad_weight and grad_bias into the tensors that are wanted.
void library_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight, const Dropout& dropout,
                      const std::array<bool, 3>& mask, const std::tuple<at::Tensor, at::Tensor, at::Tensor>& grads);

}  // namespace pygan
