#include "direct_calls.h"
#include "find_op.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <optional>
#include <string_view>

namespace pygan {
namespace {

namespace py = pybind11;
using at::Tensor;
using std::optional;

// What Python code gets wrong first, in one sentence.
void check_tensor(const char* op, const char* argument, py::handle object, bool optional = false) {
  if (THPVariable_Check(object.ptr()) || (optional && object.is_none())) return;
  throw py::type_error(c10::str(op, ": ", argument, " must be a tensor", optional ? " or None" : "", ", got ",
                                Py_TYPE(object.ptr())->tp_name));
}

std::string_view text(const char* op, const char* argument, py::handle object) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_Check(object.ptr()) ? PyUnicode_AsUTF8AndSize(object.ptr(), &size) : nullptr;
  if (!data)
    throw py::type_error(c10::str(op, ": ", argument, " must be a string, got ", Py_TYPE(object.ptr())->tp_name));
  return {data, size_t(size)};
}

double number(const char* op, const char* argument, py::handle object) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error(c10::str(op, ": ", argument, " must be a number, got ", Py_TYPE(object.ptr())->tp_name));
  }
  return value;
}

int64_t whole(const char* op, const char* argument, py::handle object) {
  const int64_t value = PyIndex_Check(object.ptr()) ? PyNumber_AsSsize_t(object.ptr(), nullptr) : -1;
  if (!PyIndex_Check(object.ptr()))
    throw py::type_error(c10::str(op, ": ", argument, " must be a whole number, got ", Py_TYPE(object.ptr())->tp_name));
  if (PyErr_Occurred()) throw py::error_already_set();
  return value;
}

bool truth(const char* op, const char* argument, py::handle object) {
  if (PyBool_Check(object.ptr())) return object.ptr() == Py_True;
  throw py::type_error(c10::str(op, ": ", argument, " must be True or False, got ", Py_TYPE(object.ptr())->tp_name));
}

// A tensor or a Parameter itself, not a subclass with a __torch_function__ of its own.
bool is_plain(py::handle object) { return THPVariable_CheckExact(object.ptr()); }

template <class... Tensors>
bool are_plain(const Tensors&... tensors) {
  return (is_plain(tensors) && ...) && !at::impl::torch_function_mode_enabled() && !torch::jit::tracer::isTracing();
}

const Tensor& unpack(py::handle object) { return THPVariable_Unpack(object.ptr()); }

py::object torch_op(const char* name) { return py::module_::import("torch").attr("ops").attr("pygan").attr(name); }

py::object wrap(Tensor tensor) { return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(tensor))); }

py::object wrap(std::tuple<Tensor, Tensor> pair) {
  return py::make_tuple(wrap(std::move(std::get<0>(pair))), wrap(std::move(std::get<1>(pair))));
}

template <class F>
py::object without_gil(const F& f) {
  auto result = [&] {
    const py::gil_scoped_release release;
    return f();
  }();
  return wrap(std::move(result));
}

py::object linear_act(py::handle x, py::handle weight, py::handle bias, py::handle activation_name, py::handle slope_) {
  const auto activation = text("linear_act", "activation", activation_name);
  const double slope = number("linear_act", "slope", slope_);
  check_tensor("linear_act", "x", x);
  check_tensor("linear_act", "weight", weight);
  check_tensor("linear_act", "bias", bias, true);
  if (!are_plain(x, weight) || !(bias.is_none() || is_plain(bias))) {
    using namespace py::literals;
    return torch_op("linear_act")(x, weight, bias, "activation"_a = activation, "slope"_a = slope);
  }
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, c10::string_view, double,
                                        double, c10::SymInt, c10::SymInt)>("pygan::linear_act");
  const optional<Tensor> given = bias.is_none() ? std::nullopt : optional<Tensor>(unpack(bias));
  return without_gil([&] { return op.call(unpack(x), unpack(weight), given, activation, slope, 0.0, 0, 0); });
}

py::object maxout(py::handle x, py::handle weight, py::handle bias, py::handle pieces_) {
  const int64_t pieces = whole("maxout", "pieces", pieces_);
  check_tensor("maxout", "x", x);
  check_tensor("maxout", "weight", weight);
  check_tensor("maxout", "bias", bias, true);
  if (!are_plain(x, weight) || !(bias.is_none() || is_plain(bias))) {
    using namespace py::literals;
    return torch_op("maxout")(x, weight, bias, "pieces"_a = pieces);
  }
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, double, c10::SymInt, c10::SymInt)>(
          "pygan::maxout");
  const optional<Tensor> given = bias.is_none() ? std::nullopt : optional<Tensor>(unpack(bias));
  return without_gil([&] { return op.call(unpack(x), unpack(weight), given, pieces, 0.0, 0, 0); });
}

py::object linear_batch_norm_act(py::handle x, py::handle weight, py::handle bias, py::handle gamma, py::handle beta,
                                 py::handle running_mean, py::handle running_var, py::handle training_,
                                 py::handle momentum_, py::handle eps_, py::handle activation_name, py::handle slope_) {
  constexpr const char* kName = "linear_batch_norm_act";
  if (!PyBool_Check(training_.ptr()))
    throw py::type_error(c10::str(kName, ": training must be True or False, got ", Py_TYPE(training_.ptr())->tp_name));
  const bool training = training_.is(py::bool_(true));
  const double momentum = number(kName, "momentum", momentum_), eps = number(kName, "eps", eps_);
  const auto activation = text(kName, "activation", activation_name);
  const double slope = number(kName, "slope", slope_);
  check_tensor(kName, "x", x);
  check_tensor(kName, "weight", weight);
  const std::pair<const char*, py::handle> vectors[] = {
      {"bias", bias}, {"gamma", gamma}, {"beta", beta}, {"running_mean", running_mean}, {"running_var", running_var}};
  bool plain = are_plain(x, weight);
  optional<Tensor> given[5];
  for (size_t i = 0; i < 5; ++i) {
    const auto& [name, vector] = vectors[i];
    check_tensor(kName, name, vector, true);
    if (vector.is_none()) continue;
    plain = plain && is_plain(vector);
    given[i] = unpack(vector);
  }
  if (!plain) {
    using namespace py::literals;
    return torch_op(kName)(x, weight, bias, gamma, beta, running_mean, running_var, "training"_a = training,
                           "momentum"_a = momentum, "eps"_a = eps, "activation"_a = activation, "slope"_a = slope);
  }
  using Vector = const optional<Tensor>&;
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, Vector, Vector, Vector, Vector, Vector, bool,
                                        double, double, c10::string_view, double)>("pygan::linear_batch_norm_act");
  return without_gil([&] {
    return op.call(unpack(x), unpack(weight), given[0], given[1], given[2], given[3], given[4], training, momentum, eps,
                   activation, slope);
  });
}

py::object discriminator_loss(py::handle real, py::handle fake, py::handle kind_name, py::handle smoothing_,
                              py::handle reduction_name) {
  const auto kind = text("discriminator_loss", "kind", kind_name);
  const double smoothing = number("discriminator_loss", "label_smoothing", smoothing_);
  const auto reduction = text("discriminator_loss", "reduction", reduction_name);
  check_tensor("discriminator_loss", "real_logits", real);
  check_tensor("discriminator_loss", "fake_logits", fake);
  if (!are_plain(real, fake)) {
    using namespace py::literals;
    return torch_op("discriminator_loss")(real, fake, "kind"_a = kind, "label_smoothing"_a = smoothing,
                                          "reduction"_a = reduction);
  }
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, c10::string_view, double, c10::string_view)>(
      "pygan::discriminator_loss");
  return without_gil([&] { return op.call(unpack(real), unpack(fake), kind, smoothing, reduction); });
}

py::object generator_loss(py::handle fake, py::handle kind_name, py::handle reduction_name) {
  const auto kind = text("generator_loss", "kind", kind_name);
  const auto reduction = text("generator_loss", "reduction", reduction_name);
  check_tensor("generator_loss", "fake_logits", fake);
  if (!are_plain(fake)) {
    using namespace py::literals;
    return torch_op("generator_loss")(fake, "kind"_a = kind, "reduction"_a = reduction);
  }
  static const auto op = find_op<Tensor(const Tensor&, c10::string_view, c10::string_view)>("pygan::generator_loss");
  return without_gil([&] { return op.call(unpack(fake), kind, reduction); });
}

py::object binary_cross_entropy(py::handle input, py::handle target, py::handle logits_, py::handle reduction_name) {
  const bool logits = truth("binary_cross_entropy", "logits", logits_);
  const auto reduction = text("binary_cross_entropy", "reduction", reduction_name);
  check_tensor("binary_cross_entropy", "input", input);
  check_tensor("binary_cross_entropy", "target", target);
  if (!are_plain(input, target)) {
    using namespace py::literals;
    return torch_op("binary_cross_entropy")(input, target, "logits"_a = logits, "reduction"_a = reduction);
  }
  static const auto op =
      find_op<Tensor(const Tensor&, const Tensor&, bool, c10::string_view)>("pygan::binary_cross_entropy");
  return without_gil([&] { return op.call(unpack(input), unpack(target), logits, reduction); });
}

py::object head_loss(py::handle hidden, py::handle weight, py::handle bias, py::handle rows, py::handle kind_name,
                     py::handle smoothing_) {
  const int64_t real_rows = whole("head_loss", "real_rows", rows);
  const auto kind = text("head_loss", "kind", kind_name);
  const double smoothing = number("head_loss", "label_smoothing", smoothing_);
  check_tensor("head_loss", "hidden", hidden);
  check_tensor("head_loss", "weight", weight);
  check_tensor("head_loss", "bias", bias, true);
  if (!are_plain(hidden, weight) || !(bias.is_none() || is_plain(bias))) {
    using namespace py::literals;
    return torch_op("head_loss")(hidden, weight, bias, "real_rows"_a = real_rows, "kind"_a = kind,
                                 "label_smoothing"_a = smoothing);
  }
  static const auto op = find_op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const optional<Tensor>&,
                                                            c10::SymInt, c10::string_view, double)>("pygan::head_loss");
  const optional<Tensor> given = bias.is_none() ? std::nullopt : optional<Tensor>(unpack(bias));
  return without_gil([&] { return op.call(unpack(hidden), unpack(weight), given, real_rows, kind, smoothing); });
}

}  // namespace

void define_direct_calls(py::module_& m) {
  // as torch's own functions raise them: ValueError, TypeError and so on, without a stack trace of C++
  py::register_local_exception_translator([](std::exception_ptr raised) {
    try {
      std::rethrow_exception(raised);
    } catch (python_error& raised_in_python) {  // by a hook of saved tensors, say
      raised_in_python.restore();
    } catch (const c10::Error&) {
      torch::translate_exception_to_python(raised);
    }
  });
  m.def("linear_act", linear_act);
  m.def("maxout", maxout);
  m.def("linear_batch_norm_act", linear_batch_norm_act);
  m.def("discriminator_loss", discriminator_loss);
  m.def("generator_loss", generator_loss);
  m.def("binary_cross_entropy", binary_cross_entropy);
  m.def("head_loss", head_loss);
}

}  // namespace pygan
