// A backend's native engine, which trains in place what it is given; pygan/native.py describes and checks it.
#include "../core/training.h"

#include <ATen/ops/empty.h>
#include <pybind11/numpy.h>
#include <torch/csrc/autograd/python_variable.h>

#include "device.h"
#include "library_product.h"
#include "training.h"

namespace pygan {
namespace {

namespace py = pybind11;
using at::Tensor;

const Tensor& tensor(py::handle object) { return THPVariable_Unpack(object.ptr()); }

template <class T>
T item(const py::dict& from, const char* name) {
  return from[name].cast<T>();
}

DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kDouble:
      return DType::f64;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    default:
      TORCH_CHECK_TYPE(false, "the native engine trains floating-point networks, got ", t.scalar_type());
  }
}

class Session {
 public:
  explicit Session(const py::dict& from) : device_(tensor(from["values"]).device()) {
    Training training;
    const Tensor& params = tensor(from["generator"]["params"]);
    training.dtype = dtype_of(params);
    training.generator = mlp(from["generator"]);
    training.discriminator = mlp(from["discriminator"]);
    const Tensor& values = kept(from["values"]);
    training.data = {values.const_data_ptr(), values.scalar_type() == at::kByte, values.size(0),
                     values.size(1),          item<double>(from, "low"),         item<double>(from, "scale")};
    training.batch = item<int64_t>(from, "batch");
    training.k = item<int64_t>(from, "k");
    training.simultaneous = item<bool>(from, "simultaneous");
    training.generator_term = item<bool>(from, "minimax") ? GanTerm::minimax : GanTerm::non_saturating;
    training.smoothing = item<double>(from, "smoothing");
    training.noise = item<bool>(from, "uniform_noise") ? NoiseKind::uniform : NoiseKind::normal;
    training.seed = uint64_t(item<int64_t>(from, "seed"));
    training.memory = memory;
    training.owner = this;
    const Run run(device_);
    engine_.reset(run->make_engine(training));
  }

  // (iterations done, kStatistics)
  py::array_t<double> run(int64_t first, int64_t count, double seconds) {
    std::vector<double> statistics(size_t(count * kStatistics));
    int64_t done;
    {
      const py::gil_scoped_release release;
      Run run(device_);
      done = engine_->run(first, count, seconds, statistics.data(), run.resources());
    }
    return py::array_t<double>({py::ssize_t(done), py::ssize_t(kStatistics)}, statistics.data());
  }

  int64_t launches() const { return engine_->launches(); }

 private:
  static void* memory(void* self, size_t bytes) {
    Session& session = *static_cast<Session*>(self);
    constexpr size_t kAlignment = 256;
    const auto options = at::TensorOptions().dtype(at::kByte).device(session.device_);
    session.tensors_.push_back(at::empty({int64_t(bytes + kAlignment)}, options));
    const auto address = reinterpret_cast<uintptr_t>(session.tensors_.back().mutable_data_ptr());
    return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }

  const Tensor& kept(py::handle object) {
    tensors_.push_back(tensor(object));
    return tensors_.back();
  }

  Mlp mlp(const py::dict& from) {
    Mlp mlp{};
    for (const auto& layer : from["layers"]) {
      const auto [inputs, outputs, pieces, activation, dropout, weight, bias] =
          layer.cast<std::tuple<int64_t, int64_t, int64_t, int, double, int64_t, int64_t>>();
      mlp.layers.push_back({inputs, outputs, pieces, Activation(activation), dropout, weight, bias});
    }
    mlp.slope = item<double>(from, "slope");
    mlp.size = kept(from["params"]).numel();
    mlp.params = tensors_.back().mutable_data_ptr();
    const py::list state = from["state"];
    mlp.state1 = kept(state[0]).mutable_data_ptr();
    mlp.adam = item<bool>(from, "adam");
    const py::dict rule = from["rule"];
    if (mlp.adam) {
      mlp.state2 = kept(state[1]).mutable_data_ptr();
      mlp.adam_rule = {item<double>(rule, "lr"), item<double>(rule, "beta1"), item<double>(rule, "beta2"),
                       item<double>(rule, "eps")};
    } else {
      mlp.momentum_rule = {
          item<double>(rule, "lr"),         item<double>(rule, "lr_decay"),       item<double>(rule, "lr_floor"),
          item<double>(rule, "momentum"),   item<double>(rule, "final_momentum"), item<double>(rule, "first_epoch"),
          item<double>(rule, "last_epoch"), item<double>(rule, "max_column_norm")};
    }
    return mlp;
  }

  const at::Device device_;
  std::vector<Tensor> tensors_;  // keeps what the engine works on
  std::unique_ptr<Engine> engine_;
};

}  // namespace

void define_training(py::module_& m) {
  py::class_<Session>(m, "Session", "A native engine on the networks, state and data of one run.")
      .def(py::init<const py::dict&>())
      .def("run", &Session::run, py::arg("first"), py::arg("count"), py::arg("seconds"))
      .def_property_readonly("launches", &Session::launches);
  m.def(
      "has_engine",
      [](const std::string& device) {
        const Backend* backend = backend_for(at::Device(device).type());
        return backend && backend->make_engine;
      },
      py::arg("device"));
  m.def(
      "uses_library",
      [](py::handle like, double flops) {
        const Tensor& t = tensor(like);
        const Backend* backend = backend_for(t.device().type());
        return backend && uses_library(*backend, t.scalar_type(), flops);
      },
      py::arg("like"), py::arg("flops"), "Whether a layer's product of so much work is left to torch's library.");
}

}  // namespace pygan
