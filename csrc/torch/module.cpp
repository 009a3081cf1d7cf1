// The Python module: importing it registers torch.ops.pygan; what else it says is about the build itself.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <tuple>

#include "../core/philox.h"
#include "backends.h"
#include "direct_calls.h"
#include "library_product.h"
#include "training.h"

namespace py = pybind11;

namespace {

using Words = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>;

Words philox(const Words& counter, const std::tuple<uint32_t, uint32_t>& key) {
  const auto [c0, c1, c2, c3] = counter;
  const auto block = pygan::philox4x32_10({{c0, c1, c2, c3}}, std::get<0>(key), std::get<1>(key));
  return {block.word[0], block.word[1], block.word[2], block.word[3]};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "pygan's compiled ops (torch.ops.pygan).";
  m.def(
      "cpu_isa", [] { return std::string(pygan::backend_for(c10::kCPU)->name); },
      "The instruction set that the CPU ops use on this machine; simt where emulated CUDA kernels stand in.");
  pygan::define_direct_calls(m);
  pygan::define_training(m);
  m.def("product_choice", [] { return int(pygan::product_choice()); });
  m.def("set_product_choice", [](int choice) { pygan::set_product_choice(pygan::Product(choice)); });
  m.def("philox4x32_10", philox, py::arg("counter"), py::arg("key"),
        "One block of Philox4x32-10: four counter words and two key words in, four words out.");
}
