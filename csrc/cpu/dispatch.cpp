// Chooses the instruction set at run time.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "backend.h"

namespace pygan::cpu {

namespace portable {
extern const Backend table;
}
#ifdef PYGAN_HAVE_AVX2
namespace avx2 {
extern const Backend table;
}
#endif
#ifdef PYGAN_HAVE_AVX512
namespace avx512 {
extern const Backend table;
}
#endif

namespace {

const Backend* const kTables[] = {
#ifdef PYGAN_HAVE_AVX512
    &avx512::table,
#endif
#ifdef PYGAN_HAVE_AVX2
    &avx2::table,
#endif
    &portable::table,
};

// What the compiler flags of each set in CMakeLists.txt let it use.
bool machine_has(const std::string& isa) {
#ifdef PYGAN_HAVE_AVX2
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == "avx2") return avx2;
#endif
#ifdef PYGAN_HAVE_AVX512
  if (isa == "avx512")
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
  return isa == "portable";
}

const Backend& choose() {
  const char* wanted = std::getenv("PYGAN_CPU_ISA");
  std::string available;
  for (const Backend* table : kTables) {
    if (!machine_has(table->name)) continue;
    if (!wanted || !*wanted || std::string(wanted) == table->name) return *table;
    available += available.empty() ? table->name : std::string(", ") + table->name;
  }
  throw std::invalid_argument("PYGAN_CPU_ISA: expected one of " + available + " on this machine, got '" + wanted + "'");
}

}  // namespace

const Backend& backend() {
  static const Backend& chosen = choose();
  return chosen;
}

}  // namespace pygan::cpu
