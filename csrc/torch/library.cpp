// The schemas, each written once. Kernels register themselves at the foot of the op's own file.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

TORCH_LIBRARY(pygan, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};

  m.def(
      "linear_act(Tensor x, Tensor weight, Tensor? bias=None, *, str activation=\"relu\", float slope=0.01, "
      "float dropout=0.0, SymInt seed=0, SymInt offset=0) -> Tensor",
      tags);
  m.def(
      "linear_act_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor y, *, str activation, float slope, "
      "float dropout, SymInt seed, SymInt offset, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "maxout(Tensor x, Tensor weight, Tensor? bias=None, *, int pieces, float dropout=0.0, SymInt seed=0, "
      "SymInt offset=0) -> Tensor",
      tags);
  m.def(
      "maxout_forward(Tensor x, Tensor weight, Tensor? bias, *, int pieces, float dropout, SymInt seed, "
      "SymInt offset) -> (Tensor, Tensor)",
      tags);
  m.def(
      "maxout_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor argmax, *, int pieces, float dropout, "
      "SymInt seed, SymInt offset, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
      tags);
  m.def(
      "linear_batch_norm_act(Tensor x, Tensor weight, Tensor? bias=None, Tensor? gamma=None, Tensor? beta=None, "
      "Tensor(a!)? running_mean=None, Tensor(b!)? running_var=None, *, bool training, float momentum=0.1, "
      "float eps=1e-05, str activation=\"identity\", float slope=0.01) -> Tensor",
      tags);
  m.def(
      "linear_batch_norm_act_forward(Tensor x, Tensor weight, Tensor? bias, Tensor? gamma, Tensor? beta, "
      "Tensor? mean, Tensor? variance, *, float eps, str activation, float slope, bool keep) "
      "-> (Tensor y, Tensor h, Tensor mean, Tensor inverse, Tensor variance)",
      tags);
  m.def(
      "linear_batch_norm_act_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor h, Tensor y, Tensor? gamma, "
      "Tensor mean, Tensor inverse, *, bool batch_statistics, str activation, float slope, bool[3] output_mask) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_gamma, Tensor grad_beta)",
      tags);
  m.def("dropout(Tensor x, *, float p, SymInt seed, SymInt offset) -> Tensor", tags);
  m.def(
      "mlp(Tensor x, Tensor[] weights, Tensor?[] biases, *, str[] activations, float slope=0.01, int pieces=1, "
      "float[] dropout, SymInt seed=0, SymInt offset=0) -> Tensor",
      tags);
  m.def("small_mlp(Tensor x, Tensor[] weights, Tensor?[] biases, *, str[] activations, float slope=0.01) -> Tensor[]",
        tags);
  m.def(
      "small_mlp_backward(Tensor grad_y, Tensor[] weights, Tensor[] outputs, *, str[] activations, float slope, "
      "bool input) -> Tensor[]",
      tags);
  m.def(
      "discriminator_loss(Tensor real_logits, Tensor fake_logits, *, str kind=\"logistic\", "
      "float label_smoothing=0.0, str reduction=\"mean\") -> Tensor",
      tags);
  m.def(
      "discriminator_loss_backward(Tensor grad, Tensor real_logits, Tensor fake_logits, *, str kind=\"logistic\", "
      "float label_smoothing, str reduction) -> (Tensor, Tensor)",
      tags);
  m.def("generator_loss(Tensor fake_logits, *, str kind=\"non_saturating\", str reduction=\"mean\") -> Tensor", tags);
  m.def("generator_loss_backward(Tensor grad, Tensor fake_logits, *, str kind, str reduction) -> Tensor", tags);
  m.def("binary_cross_entropy(Tensor input, Tensor target, *, bool logits, str reduction=\"mean\") -> Tensor", tags);
  m.def(
      "binary_cross_entropy_backward(Tensor grad, Tensor input, Tensor target, *, bool logits, str reduction) -> "
      "Tensor",
      tags);
  m.def(
      "head_loss(Tensor hidden, Tensor weight, Tensor? bias=None, *, SymInt real_rows, str kind=\"discriminator\", "
      "float label_smoothing=0.0) -> (Tensor loss, Tensor logits)",
      tags);
  m.def(
      "head_loss_forward(Tensor hidden, Tensor weight, Tensor? bias, *, SymInt real_rows, str kind, "
      "float label_smoothing, bool with_sums) -> (Tensor loss, Tensor logits, Tensor slopes, Tensor sums)",
      tags);
  m.def(
      "head_loss_backward(Tensor? grad_loss, Tensor? grad_logits, Tensor hidden, Tensor weight, Tensor logits, "
      "Tensor slopes, Tensor sums, *, SymInt real_rows, str kind, float label_smoothing, bool[3] output_mask) "
      "-> (Tensor, Tensor, Tensor)",
      tags);
  m.def("momentum_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] velocities, *, float lr, float momentum) -> ()",
        tags);
  m.def(
      "adam_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] m, Tensor(c!)[] v, *, int step, float lr, "
      "float beta1, float beta2, float eps) -> ()",
      tags);
  m.def(
      "noise(SymInt[] size, *, str kind=\"normal\", SymInt seed, SymInt offset, ScalarType? dtype=None, "
      "Device? device=None) -> Tensor",
      tags);
  m.def(
      "minibatch_indices(int population, int count, *, SymInt start, SymInt seed, SymInt offset=0, "
      "Device? device=None) -> Tensor",
      tags);
  m.def("parzen_log_likelihood(Tensor x, Tensor samples, *, float sigma) -> Tensor", tags);
}
