// The door: every argument is checked here, once, in words that name it; kernels trust their callers.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "../core/ops.h"

namespace pygan {

// Unknown names raise ValueError with the nearest known one.
Activation parse_activation(std::string_view op, std::string_view name);
// For the layers of an mlp: whether it is "maxout", which is no elementwise activation.
bool parse_layer_activation(std::string_view op, std::string_view name);
Reduction parse_reduction(std::string_view op, std::string_view name);
// Indices into kDiscriminatorKinds and kGeneratorKinds.
int parse_discriminator_kind(std::string_view op, std::string_view name);
int parse_generator_kind(std::string_view name);
// "discriminator" or one of the generator's: the term of generated rows.
GanTerm parse_head_kind(std::string_view op, std::string_view name);
NoiseKind parse_noise_kind(std::string_view name);

void check_slope(const char* op, double slope);
void check_probability(const char* op, const char* argument, double p);
void check_floating(const char* op, const char* argument, const at::Tensor& tensor);
void check_same(const char* op, const char* argument, const at::Tensor& tensor, const char* reference,
                const at::Tensor& other);

// x (..., k), weight (n, k), bias (n): ranks, inner dimension, dtypes, devices.
void check_layer(const char* op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);
void check_pieces(const char* op, int64_t pieces, const at::Tensor& weight);
void check_shape(const char* op, const char* argument, const at::Tensor& tensor, c10::SymIntArrayRef expected);

DType dtype_of(const at::Tensor& tensor);

// x (..., k) as a matrix (m, k); a view where strides allow.
at::Tensor as_rows(const at::Tensor& x);
Matrix matrix_of(const at::Tensor& rows);

// The shape of a layer's output: x's with the last dimension replaced.
c10::SymDimVector with_last(const at::Tensor& x, c10::SymInt last);

}  // namespace pygan
