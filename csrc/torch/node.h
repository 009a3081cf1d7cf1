// A node of autograd's graph, as torch's own generated ones are: saved tensors and plain settings in the object.
// torch::autograd::Function keeps settings in a hash table, costs some microseconds more a call, and is refused by
// torch.func.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <array>
#include <memory>
#include <mutex>
#include <type_traits>

namespace pygan {

// What is differentiated: Rule has
//   kName, kSaved (how many tensors are kept), kSavedOutput (which of them is an output of the op, or -1),
//   Settings (plain data), and
//   static variable_list backward(const std::array<Tensor, kSaved>&, const Settings&, const Wants&, variable_list&)
// which gives one gradient, or an undefined tensor, for each input; wants(i) says whether input i's is asked for.
template <class Rule>
class OpNode final : public torch::autograd::Node {
 public:
  std::array<torch::autograd::SavedVariable, Rule::kSaved> saved;
  typename Rule::Settings settings;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::array<at::Tensor, Rule::kSaved> tensors;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (int i = 0; i < Rule::kSaved; ++i)
        tensors[i] = saved[i].unpack(i == Rule::kSavedOutput ? this->getptr() : nullptr);
    }
    const auto wants = [this](size_t input) { return task_should_compute_output(input); };
    return Rule::backward(tensors, settings, wants, grads);
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved) variable.reset_data();
  }

  std::string name() const override { return Rule::kName; }
};

// How torch owns a node: an intrusive pointer from 2.13 on, a shared one before.
using NodePointer = decltype(std::declval<torch::autograd::Node&>().getptr());

template <class N>
std::pair<NodePointer, N*> make_node() {
  if constexpr (std::is_same_v<NodePointer, std::shared_ptr<torch::autograd::Node>>) {
    auto* node = new N();
    return {NodePointer(node, [](auto* made) { deleteNode(made); }), node};
  } else {
    auto node = c10::make_intrusive<N>();
    auto* bare = node.get();
    return {std::move(node), bare};
  }
}

// Whether autograd keeps a record of an op with these inputs. Forward-mode derivatives do not exist: an error.
template <size_t kInputs>
bool records(const char* op, const std::array<const at::Tensor*, kInputs>& inputs) {
  bool required = false;
  for (const at::Tensor* input : inputs) {
    if (!input || !input->defined()) continue;
    required |= input->requires_grad();
    TORCH_CHECK_NOT_IMPLEMENTED(!input->_fw_grad(0).defined(), op, " has no forward-mode derivative");
  }
  return required && at::GradMode::is_enabled();
}

// Where a gradient of an input goes; nowhere for one that is not there.
inline torch::autograd::Edge edge_to(const at::Tensor* input) {
  return input && input->defined() ? torch::autograd::impl::gradient_edge(*input) : torch::autograd::Edge();
}

// Records that `outputs` came from `inputs` (null: an optional input that is not there; an undefined output is not
// differentiable).
template <class Rule, size_t kInputs, size_t kOutputs>
void record(const std::array<const at::Tensor*, kInputs>& inputs, const std::array<at::Tensor, kOutputs>& outputs,
            const std::array<at::Tensor, Rule::kSaved>& saved, typename Rule::Settings settings) {
  const auto [owner, node] = make_node<OpNode<Rule>>();
  torch::autograd::edge_list edges;
  edges.reserve(kInputs);
  for (const at::Tensor* input : inputs) edges.push_back(edge_to(input));
  node->set_next_edges(std::move(edges));
  for (const at::Tensor& output : outputs) torch::autograd::set_history(output, owner);
  node->settings = std::move(settings);
  for (int i = 0; i < Rule::kSaved; ++i)
    node->saved[i] = torch::autograd::SavedVariable(saved[i], i == Rule::kSavedOutput);
}

}  // namespace pygan
