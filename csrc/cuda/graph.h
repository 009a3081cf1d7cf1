// Work captured once in a CUDA graph and launched again and again.
#pragma once

#include "launch.h"

namespace pygan::cuda {

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { clear(); }

  bool captured() const { return exec_ != nullptr; }

  // queue(stream) queues the work. The stream is one of our own: torch's default stream cannot be captured.
  template <class F>
  void capture(const F& queue) {
    clear();
    Stream stream;
    check(cudaStreamBeginCapture(stream.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      queue(stream.stream);
    } catch (...) {
      cudaStreamEndCapture(stream.stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream.stream, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }

  void launch(const Resources& run) const {
    check(cudaGraphLaunch(exec_, static_cast<cudaStream_t>(run.stream)), "cudaGraphLaunch");
  }

  void clear() {
    if (exec_) cudaGraphExecDestroy(exec_);
    exec_ = nullptr;
  }

 private:
  struct Stream {
    cudaStream_t stream = nullptr;
    Stream() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
    ~Stream() { cudaStreamDestroy(stream); }
  };

  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace pygan::cuda
