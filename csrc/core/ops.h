// The ops as a backend sees them: plain structs in, one function an op.
//
// Kernels trust their callers: shapes, dtypes and ranges were checked in csrc/torch. Every result is a fixed
// sequence of operations, whatever the number of threads: the same inputs give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "activation.h"
#include "gan_loss.h"

namespace pygan {

enum class DType { f32, f64, bf16, f16 };

// What an op may use while it runs: each backend reads its own part.
struct Resources {
  int threads = 1;         // CPU
  void* stream = nullptr;  // CUDA: the cudaStream_t that the work is queued on
  // CUDA: device memory, aligned to 256 bytes, that work queued by this op may use.
  void* (*scratch)(void* owner, size_t bytes) = nullptr;
  void* owner = nullptr;
  bool allow_tf32 = false;  // CUDA: whether fp32 products may round their factors to TF32
};

// A read-only strided matrix; strides count elements.
struct Matrix {
  const void* data;
  int64_t rows, cols;
  int64_t row_stride, col_stride;
};

// Dropout on a layer's input: element e of the (m, k) input is dropped with probability p. p == 0: none.
struct Dropout {
  double p = 0;
  uint64_t seed = 0, offset = 0;
};

// y (m, n) = act(dropout(x) (m, k) . weight^T + bias)
struct LinearActForward {
  DType dtype;
  Matrix x, weight;
  const void* bias;  // contiguous (n) or null
  Activation activation;
  double slope;
  Dropout dropout;
  void* y;
  Resources run;
  // dropout(x) . weight^T + bias, contiguous (m, n), where a library has computed it; bias is null then. It may be y.
  const void* product = nullptr;
};

// g = grad_y * act'(y); grad_x = mask(g . weight); grad_weight = g^T . dropout(x); grad_bias = column sums of g.
struct LinearActBackward {
  DType dtype;
  Matrix grad_y, x, weight;
  const void* y;  // contiguous (m, n)
  Activation activation;
  double slope;
  Dropout dropout;
  void *grad_x, *grad_weight, *grad_bias;  // null where not wanted
  Resources run;
};

// y (m, units) = max over `pieces` consecutive rows of weight (units * pieces, k); argmax is the winning piece.
struct MaxoutForward {
  DType dtype;
  Matrix x, weight;
  const void* bias;
  int64_t pieces;
  Dropout dropout;
  void* y;
  uint8_t* argmax;
  Resources run;
  const void* product = nullptr;
};

struct MaxoutBackward {
  DType dtype;
  Matrix grad_y, x, weight;
  const uint8_t* argmax;  // contiguous (m, units)
  int64_t pieces;
  Dropout dropout;
  void *grad_x, *grad_weight, *grad_bias;
  Resources run;
};

// h = x . weight^T + bias (m, n); y = act(gamma (h - mean) / sqrt(variance + eps) + beta), column by column. Vectors are
// contiguous (n), in the type that is computed with.
struct LinearBatchNormForward {
  DType dtype;
  Matrix x, weight;
  const void* bias;                         // of dtype, or null
  const void *gamma, *beta;                 // null: 1 and 0
  const void *given_mean, *given_variance;  // null: the batch's, over its m rows
  double eps;
  Activation activation;
  double slope;
  void* h;  // contiguous (m, n), kept for backward; null: not wanted
  void* y;
  void *mean, *inverse;  // (n) what was subtracted, 1 / sqrt(variance + eps)
  void* variance;        // (n) the batch's, over m - 1; null where it was given
  Resources run;
  bool has_product = false;  // a library has filled h, or y where h is null
};

// g = grad_y * act'(y), z = (h - mean) * inverse; grad_beta = column sums of g, grad_gamma = those of g z;
// grad_h = gamma inverse (g - mean of g - z * mean of g z), or gamma inverse g where the statistics were given; the
// layer's gradients follow from grad_h as from a linear layer's.
struct LinearBatchNormBackward {
  DType dtype;
  Matrix x, weight;
  const void *grad_y, *h, *y;  // contiguous (m, n)
  const void* gamma;           // or null
  const void *mean, *inverse;
  bool batch_statistics;
  Activation activation;
  double slope;
  void* grad_h;                            // contiguous (m, n)
  void *grad_gamma, *grad_beta;            // (n), in the type that is computed with
  void *grad_x, *grad_weight, *grad_bias;  // null where not wanted
  Resources run;
};

// A whole MLP of linear layers that are narrow enough for one launch, activations on the way.
constexpr int kSmallMlpWidth = 128;  // of every layer's input and output, at most
constexpr int kSmallMlpLayers = 8;

struct SmallMlpLayer {
  const void* weight;  // contiguous (outputs, inputs)
  const void* bias;    // or null
  int outputs, inputs;
  Activation activation;
  void* y;     // forward: (m, outputs); backward reads it
  void* grad;  // backward: (m, outputs), the gradient of the pre-activations
};

struct SmallMlpForward {
  DType dtype;
  const void* x;  // contiguous (m, inputs of the first layer)
  int64_t m;
  SmallMlpLayer layers[kSmallMlpLayers];
  int count;
  double slope;
  Resources run;
};

struct SmallMlpBackward {
  DType dtype;
  const void* grad_y;  // contiguous (m, outputs of the last layer)
  int64_t m;
  SmallMlpLayer layers[kSmallMlpLayers];
  int count;
  double slope;
  void* grad_x;  // null where not wanted
  Resources run;
};

// out[e] = x[e] * mask(e) / (1 - p) over n contiguous elements
struct DropoutForward {
  DType dtype;
  const void* x;
  int64_t n;
  Dropout dropout;
  void* out;
  Resources run;
};

enum class Reduction { none, sum, mean };
constexpr const char* kReductionNames[] = {"none", "sum", "mean"};

// A term of the loss over n contiguous logits.
struct GanLossTerm {
  GanTerm term;
  const void* logits;
  int64_t n;
  double smoothing;
  void* grad;                     // backward: like logits
  const void* targets = nullptr;  // of the terms that have a target for each logit: like logits
};

// out = the terms' values added element by element (none), or one value: the sum over the terms of their sum or
// mean. The discriminator's loss has two terms, the generator's and the cross entropy one.
struct GanLossForward {
  DType dtype;
  GanLossTerm terms[2];
  int count;
  Reduction reduction;
  void* out;
  Resources run;
};

// grad[e] = scale * upstream * d/da of each term; upstream is one value a logit for `none`, else one value.
struct GanLossBackward {
  DType dtype;
  GanLossTerm terms[2];
  int count;
  Reduction reduction;
  const void* upstream;
  Resources run;
};

// The discriminator's last layer, which has one output, with the loss of its logits: a = hidden . weight + bias.
// Rows [0, real_rows) are real, the others generated; each kind's mean is over its own rows.
struct HeadLossForward {
  DType dtype;
  Matrix hidden;       // (m, k), its columns one after the other
  const void* weight;  // contiguous (k)
  const void* bias;    // one value or null
  int64_t real_rows;
  GanTerm generated;  // the term of generated rows: `fake` is the discriminator's loss, others the generator's
  double smoothing;
  void *loss, *logits;
  void* slopes;  // (m) d loss / d a, in the type that is computed with
  void* sums;    // (k + 1) the columns' sums of slopes * hidden, then that of slopes, in that type; null: not wanted
  Resources run;
};

// e = grad_loss * slopes + grad_logits; grad_hidden = e . weight, grad_weight = e^T . hidden, grad_bias = sum e.
struct HeadLossBackward {
  DType dtype;
  Matrix hidden;
  const void* weight;
  const void *grad_loss, *grad_logits;          // one value, contiguous (m); null: zero
  const void *slopes, *sums;                    // of the forward pass; sums may be null
  void *grad_hidden, *grad_weight, *grad_bias;  // null where not wanted
  Resources run;
};

// One contiguous parameter tensor of an update; its state is of the same dtype or fp32.
struct ParamSlice {
  void* param;
  const void* grad;
  void *state1, *state2;
  int64_t n;
};

struct MomentumUpdate {
  DType dtype, state_dtype;
  const ParamSlice* slices;
  int64_t count;
  double lr, momentum;
  Resources run;
};

struct AdamUpdate {
  DType dtype, state_dtype;
  const ParamSlice* slices;
  int64_t count;
  int64_t step;
  double lr, beta1, beta2, eps;
  Resources run;
};

enum class NoiseKind { normal, uniform };

struct Noise {
  DType dtype;
  NoiseKind kind;
  uint64_t seed, offset;
  void* out;
  int64_t n;
  Resources run;
};

// Elements [start, start + count) of the endless sequence of epochs, each a fresh permutation of the population.
struct MinibatchIndices {
  int64_t population, start, count;
  uint64_t seed, offset;
  int64_t* out;
  Resources run;
};

// out[i] = log of the mean over samples of N(x_i; sample, sigma^2 I)
struct ParzenLogLikelihood {
  DType dtype;
  Matrix x, samples;
  double sigma;
  double* out;
  Resources run;
};

class Engine;
struct Training;

struct Backend {
  const char* name;
  void (*linear_act_forward)(const LinearActForward&);
  void (*linear_act_backward)(const LinearActBackward&);
  void (*maxout_forward)(const MaxoutForward&);
  void (*maxout_backward)(const MaxoutBackward&);
  void (*linear_batch_norm_act_forward)(const LinearBatchNormForward&);
  void (*linear_batch_norm_act_backward)(const LinearBatchNormBackward&);
  void (*dropout_forward)(const DropoutForward&);
  void (*gan_loss_forward)(const GanLossForward&);
  void (*gan_loss_backward)(const GanLossBackward&);
  void (*head_loss_forward)(const HeadLossForward&);
  void (*head_loss_backward)(const HeadLossBackward&);
  void (*momentum_update)(const MomentumUpdate&);
  void (*adam_update)(const AdamUpdate&);
  void (*noise)(const Noise&);
  void (*minibatch_indices)(const MinibatchIndices&);
  void (*parzen_log_likelihood)(const ParzenLogLikelihood&);
  // For products that a library computes: null where none is ever asked. The forward ops then take `product`; these
  // write g (m, n), the gradient of the pre-activations, and leave the products to the caller.
  void (*linear_act_grad)(const LinearActBackward&, void* g) = nullptr;
  void (*maxout_grad)(const MaxoutBackward&, void* g) = nullptr;
  // null where layer by layer is as fast
  void (*small_mlp_forward)(const SmallMlpForward&) = nullptr;
  void (*small_mlp_backward)(const SmallMlpBackward&) = nullptr;
  // The native engine of training.h, null where there is none.
  Engine* (*make_engine)(const Training&) = nullptr;
};

}  // namespace pygan
