// Algorithm 1 on two MLPs as one call: what a backend's native engine is given.
//
// Everything was checked at the door. Of the discriminator the last layer is linear with one output. The arithmetic,
// the random numbers and their streams are those of pygan/trainer.py, which composes the same iteration of ops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ops.h"

namespace pygan {

struct MlpLayer {
  int64_t inputs, outputs;  // outputs of a maxout layer are its units
  int64_t pieces;           // above 1: maxout, of the largest of so many rows of weights
  Activation activation;
  double dropout;        // of the layer's input; 0: none
  int64_t weight, bias;  // where they begin in the flat parameters; bias is -1 where there is none

  bool is_maxout() const { return pieces > 1; }
  int64_t rows() const { return outputs * pieces; }
  int64_t weights() const { return rows() * inputs; }
};

struct MomentumRule {
  double lr, lr_decay, lr_floor;
  double momentum, final_momentum;
  double first_epoch, last_epoch;  // between which momentum moves, linearly
  double max_column_norm;          // of a unit's incoming weights after an update; 0: no limit
};

struct AdamRule {
  double lr, beta1, beta2, eps;
};

struct Mlp {
  std::vector<MlpLayer> layers;
  double slope;  // of leaky_relu
  int64_t size;  // of the flat parameters, in elements
  void* params;  // flat; its optimizer's state lies alike
  void* state1;  // velocity, or Adam's m
  void* state2;  // null, or Adam's v
  bool adam;     // else momentum
  MomentumRule momentum_rule;
  AdamRule adam_rule;
};

struct TrainingData {
  const void* rows;  // contiguous (count, dim), bytes or the networks' dtype
  bool bytes;
  int64_t count, dim;
  double low, scale;  // of bytes: b stands for low + b * scale
};

struct Training {
  DType dtype;
  Mlp generator, discriminator;
  TrainingData data;
  int64_t batch;  // m
  int64_t k;      // discriminator steps an iteration
  bool simultaneous;
  GanTerm generator_term;  // non_saturating or minimax
  double smoothing;
  NoiseKind noise;
  uint64_t seed;
  // CUDA: device memory that lives as long as the engine, aligned to 256 bytes.
  void* (*memory)(void* owner, size_t bytes) = nullptr;
  void* owner = nullptr;
};

// The streams of a run's random numbers: the table of pygan/random.py.
namespace stream {
constexpr uint64_t noise_d = 0, noise_g = 1, minibatch = 2;
// of dropout; the layer's index is added
constexpr uint64_t d_real = 0x100, d_fake = 0x200, d_in_g = 0x300, g_in_d = 0x400, g = 0x500;
}  // namespace stream

// What one iteration leaves: both losses and the means of D(x) and D(G(z)), of its last discriminator step.
constexpr int kStatistics = 4;

class Engine {
 public:
  virtual ~Engine() = default;

  // Runs iterations first, first + 1, ... until `count` are done, `seconds` have passed, or one leaves a statistic
  // that is not finite, which is then the last. Writes kStatistics numbers of each; returns how many were run.
  virtual int64_t run(int64_t first, int64_t count, double seconds, double* statistics, const Resources& run) = 0;

  // CUDA: kernels of the last iteration that was queued, or 0.
  virtual int64_t launches() const { return 0; }
};

}  // namespace pygan
