#include "checks.h"

#include <algorithm>
#include <array>
#include <vector>

namespace pygan {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

// The index of `name` among `known`; else a ValueError that lists them and suggests the nearest.
template <class Names>
size_t parse(std::string_view op, const char* argument, std::string_view name, const Names& known) {
  for (size_t i = 0; i < std::size(known); ++i)
    if (name == known[i]) return i;
  std::string list;
  size_t nearest = 0;
  for (size_t i = 0; i < std::size(known); ++i) {
    if (i) list += ", ";
    list += known[i];
    if (edit_distance(name, known[i]) < edit_distance(name, known[nearest])) nearest = i;
  }
  TORCH_CHECK_VALUE(false, op, ": ", argument, " must be one of ", list, ", got '", name, "' (did you mean '",
                    known[nearest], "'?)");
}

}  // namespace

Activation parse_activation(std::string_view op, std::string_view name) {
  return static_cast<Activation>(parse(op, "activation", name, kActivationNames));
}

bool parse_layer_activation(std::string_view op, std::string_view name) {
  static const auto known = [] {
    std::array<const char*, kActivations + 1> names{};
    std::copy(std::begin(kActivationNames), std::end(kActivationNames), names.begin());
    names.back() = "maxout";
    return names;
  }();
  return parse(op, "activations", name, known) == kActivations;
}

Reduction parse_reduction(std::string_view op, std::string_view name) {
  return static_cast<Reduction>(parse(op, "reduction", name, kReductionNames));
}

int parse_discriminator_kind(std::string_view op, std::string_view name) {
  return static_cast<int>(parse(op, "kind", name, kDiscriminatorKinds));
}

int parse_generator_kind(std::string_view name) {
  return static_cast<int>(parse("generator_loss", "kind", name, kGeneratorKinds));
}

GanTerm parse_head_kind(std::string_view op, std::string_view name) {
  static constexpr const char* kNames[] = {"discriminator", "minimax", "non_saturating"};
  static constexpr GanTerm kTerms[] = {GanTerm::fake, GanTerm::minimax, GanTerm::non_saturating};
  return kTerms[parse(op, "kind", name, kNames)];
}

NoiseKind parse_noise_kind(std::string_view name) {
  static constexpr const char* kNames[] = {"normal", "uniform"};
  return static_cast<NoiseKind>(parse("noise", "kind", name, kNames));
}

void check_slope(const char* op, double slope) {
  TORCH_CHECK_VALUE(slope >= 0, op, ": slope must be >= 0, got ", slope,
                    " (the derivative is taken from the output, whose sign a negative slope would hide)");
}

void check_probability(const char* op, const char* argument, double p) {
  TORCH_CHECK_VALUE(p >= 0 && p < 1, op, ": ", argument, " must be in [0, 1), got ", p);
}

void check_floating(const char* op, const char* argument, const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, op, ": ",
                   argument, " must be float32, float64, bfloat16 or float16, got ", type);
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, op, ": ", argument, " must be a dense tensor, got ",
                   tensor.layout());
}

void check_same(const char* op, const char* argument, const at::Tensor& tensor, const char* reference,
                const at::Tensor& other) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == other.scalar_type(), op, ": ", argument, " must have ", reference,
                   "'s dtype ", other.scalar_type(), ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.device() == other.device(), op, ": ", argument, " must be on ", reference, "'s device ",
                    other.device(), ", got ", tensor.device());
}

void check_shape(const char* op, const char* argument, const at::Tensor& tensor, c10::SymIntArrayRef expected) {
  TORCH_CHECK_VALUE(tensor.sym_sizes() == expected, op, ": ", argument, " must have shape ", expected, ", got ",
                    tensor.sym_sizes());
}

void check_layer(const char* op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  check_floating(op, "x", x);
  TORCH_CHECK_VALUE(x.dim() >= 1, op, ": x must have shape (..., k), got a scalar");
  TORCH_CHECK_VALUE(weight.dim() == 2, op, ": weight must be 2-dimensional (n, k), got ", weight.sym_sizes());
  TORCH_CHECK_VALUE(x.sym_size(-1) == weight.sym_size(1), op, ": x ", x.sym_sizes(), " and weight ", weight.sym_sizes(),
                    " must have the same last dimension");
  check_same(op, "weight", weight, "x", x);
  if (!bias) return;
  TORCH_CHECK_VALUE(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0), op, ": bias must have shape (",
                    weight.sym_size(0), ") as weight ", weight.sym_sizes(), " has rows, got ", bias->sym_sizes());
  check_same(op, "bias", *bias, "x", x);
}

void check_pieces(const char* op, int64_t pieces, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(pieces >= 1 && pieces <= 256, op, ": pieces must be in [1, 256], got ", pieces);
  TORCH_CHECK_VALUE(weight.sym_size(0) % pieces == 0, op, ": pieces (", pieces, ") must divide weight's ",
                    weight.sym_size(0), " rows");
}

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DType::f64;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    default:
      return DType::f32;
  }
}

at::Tensor as_rows(const at::Tensor& x) {
  if (x.dim() == 2) return x;
  c10::SymInt rows = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) rows *= x.sym_size(d);
  return x.reshape_symint({rows, x.sym_size(-1)});
}

Matrix matrix_of(const at::Tensor& rows) {
  return {rows.const_data_ptr(), rows.size(0), rows.size(1), rows.stride(0), rows.stride(1)};
}

c10::SymDimVector with_last(const at::Tensor& x, c10::SymInt last) {
  c10::SymDimVector sizes(x.sym_sizes().begin(), x.sym_sizes().end());
  sizes.back() = std::move(last);
  return sizes;
}

}  // namespace pygan
