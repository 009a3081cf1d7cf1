// What begins and ends an iteration of the native engine beside its products.
#pragma once

#include "../core/training.h"
#include "engine_counters.h"

namespace pygan::cuda {

// Sets the clock to iteration `first` of a new run.
void engine_start(const Resources& run, const Counters& counters, int64_t first);

// Begins the next iteration: writes the counters, or stops where the last one was not finite.
void engine_prepare(const Resources& run, const Training& training, const Counters& counters);

// Scales the rows of every weight that are longer than max_column_norm back to it.
template <class S>
void engine_limit_norms(const Resources& run, const Mlp& mlp, const Counters& counters);

}  // namespace pygan::cuda
