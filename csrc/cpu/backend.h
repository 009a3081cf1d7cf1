// The CPU backend.
#pragma once

#include "../core/ops.h"

namespace pygan::cpu {

// The best backend of this machine, chosen once; the environment variable PYGAN_CPU_ISA names another
// (portable, avx2, avx512). Throws std::invalid_argument for a name this build or machine does not have.
const Backend& backend();

}  // namespace pygan::cpu
