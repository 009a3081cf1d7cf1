// The discriminator's last layer in the native engine.
#pragma once

#include "../core/training.h"
#include "engine_counters.h"

namespace pygan::cuda {

// Which loss a pass is for; a simultaneous iteration's last step has both.
struct HeadLoss {
  bool discriminator, generator;
  GanTerm generator_term;
  double smoothing;
  double share;  // of the discriminator's loss that is descended
  bool counts;   // its statistics are the iteration's
};

// m real rows and m generated ones, or with real_rows == 0 generated ones alone. Logits, losses, slopes, the gradients
// of the layer below and the update of this one's weight and bias, in one launch (large ones take two).
template <class S>
struct Head {
  using T = Compute<S>;

  const S* hidden;  // (rows, k)
  int64_t rows, real_rows, m, k;
  const S *weight, *bias;
  GroupedMask<T> mask;
  Activation activation;  // of hidden
  double slope;
  S *d_grad, *g_grad;  // (rows, k) and of generated rows alone, of each loss; null: not wanted
  HeadLoss loss;
  Update<S> update_weight, update_bias;  // of the discriminator's loss
  const Counters* counters;
};

// Updates and statistics wait for nothing but the number of iterations begun.
template <class S>
void engine_head(const Resources& run, unsigned* ticket, const Head<S>& head);

}  // namespace pygan::cuda
