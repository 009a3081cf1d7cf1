// Ops as plain Python functions. torch.ops goes through boxed values, names and defaults, some microseconds a call:
// as much as a small layer itself. These take a tensor's C++ side at once, and leave every case that is not plain
// (subclasses, modes, tracing) to torch.ops.
#pragma once

#include <pybind11/pybind11.h>

namespace pygan {

void define_direct_calls(pybind11::module_& m);

}  // namespace pygan
