#include "direct_calls.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <optional>
#include <string_view>

namespace pygan {
namespace {

namespace py = pybind11;
using at::Tensor;
using std::optional;

// A tensor or a Parameter itself, not a subclass with a __torch_function__ of its own.
bool is_plain(py::handle object) { return THPVariable_CheckExact(object.ptr()); }

template <class... Tensors>
bool are_plain(const Tensors&... tensors) {
  return (is_plain(tensors) && ...) && !at::impl::torch_function_mode_enabled() && !torch::jit::tracer::isTracing();
}

const Tensor& unpack(py::handle object) { return THPVariable_Unpack(object.ptr()); }

py::object torch_op(const char* name) { return py::module_::import("torch").attr("ops").attr("pygan").attr(name); }

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

template <class F>
py::object without_gil(const F& f) {
  Tensor result;
  {
    const py::gil_scoped_release release;
    result = f();
  }
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(result)));
}

py::object linear_act(py::handle x, py::handle weight, py::handle bias, std::string_view activation, double slope) {
  if (!are_plain(x, weight) || !(bias.is_none() || is_plain(bias))) {
    using namespace py::literals;
    return torch_op("linear_act")(x, weight, bias, "activation"_a = activation, "slope"_a = slope);
  }
  static const auto op = find<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, c10::string_view, double,
                                     double, c10::SymInt, c10::SymInt)>("pygan::linear_act");
  const optional<Tensor> given = bias.is_none() ? std::nullopt : optional<Tensor>(unpack(bias));
  return without_gil([&] { return op.call(unpack(x), unpack(weight), given, activation, slope, 0.0, 0, 0); });
}

py::object maxout(py::handle x, py::handle weight, py::handle bias, int64_t pieces) {
  if (!are_plain(x, weight) || !(bias.is_none() || is_plain(bias))) {
    using namespace py::literals;
    return torch_op("maxout")(x, weight, bias, "pieces"_a = pieces);
  }
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, double, c10::SymInt, c10::SymInt)>(
          "pygan::maxout");
  const optional<Tensor> given = bias.is_none() ? std::nullopt : optional<Tensor>(unpack(bias));
  return without_gil([&] { return op.call(unpack(x), unpack(weight), given, pieces, 0.0, 0, 0); });
}

py::object discriminator_loss(py::handle real, py::handle fake, double smoothing, std::string_view reduction) {
  if (!are_plain(real, fake)) {
    using namespace py::literals;
    return torch_op("discriminator_loss")(real, fake, "label_smoothing"_a = smoothing, "reduction"_a = reduction);
  }
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, double, c10::string_view)>("pygan::discriminator_loss");
  return without_gil([&] { return op.call(unpack(real), unpack(fake), smoothing, reduction); });
}

py::object generator_loss(py::handle fake, std::string_view kind, std::string_view reduction) {
  if (!are_plain(fake)) {
    using namespace py::literals;
    return torch_op("generator_loss")(fake, "kind"_a = kind, "reduction"_a = reduction);
  }
  static const auto op = find<Tensor(const Tensor&, c10::string_view, c10::string_view)>("pygan::generator_loss");
  return without_gil([&] { return op.call(unpack(fake), kind, reduction); });
}

}  // namespace

void define_direct_calls(py::module_& m) {
  m.def("linear_act", linear_act);
  m.def("maxout", maxout);
  m.def("discriminator_loss", discriminator_loss);
  m.def("generator_loss", generator_loss);
}

}  // namespace pygan
