// The native engine as a Python class.
#pragma once

#include <pybind11/pybind11.h>

namespace pygan {

void define_training(pybind11::module_& m);

}  // namespace pygan
