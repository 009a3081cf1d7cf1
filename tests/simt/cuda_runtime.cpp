#include "cuda_runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace simt {
namespace {

// The kernels of a graph, their parameters as they were when captured.
struct Graph {
  struct Node {
    cudaLaunchConfig_t config;
    void (*run)(const void* parameters);
    std::vector<std::max_align_t> parameters;
    size_t bytes;
  };
  std::vector<Node> nodes;

  void add(const cudaLaunchConfig_t& config, const simt::Kernel& kernel) {
    Node node{config, kernel.run, {}, kernel.parameter_bytes};
    node.parameters.resize((kernel.parameter_bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
    std::memcpy(node.parameters.data(), kernel.parameters, kernel.parameter_bytes);
    nodes.push_back(std::move(node));
  }
};

thread_local Graph* captured;
thread_local cudaStream_t captured_stream;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_report;

// Few make kernels choose large tiles, many small ones and splits: tests go through them.
int multiprocessors() {
  const char* text = std::getenv("PYGAN_SIMT_MULTIPROCESSORS");
  if (text == nullptr) return 132;
  const int count = std::atoi(text);
  if (count < 1) {
    std::fprintf(stderr, "PYGAN_SIMT_MULTIPROCESSORS must be a number of at least 1, got '%s'\n", text);
    std::abort();
  }
  return count;
}

std::mutex attributes_mutex;

std::map<const void*, int>& shared_attributes() {
  static std::map<const void*, int> attributes;
  return attributes;
}

cudaError_t record(cudaError_t error, std::string report = "") {
  if (error != cudaSuccess) {
    last_error = error;
    last_report = std::move(report);
  }
  return error;
}

std::string text(dim3 v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

bool valid_block(dim3 b) {
  return b.x >= 1 && b.y >= 1 && b.z >= 1 && b.x <= 1024 && b.y <= 1024 && b.z <= 64 && b.x * b.y * b.z <= kMaxThreads;
}

bool valid_grid(dim3 g) {
  return g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535;
}

size_t allowed_shared_bytes(const void* function) {
  const std::lock_guard<std::mutex> lock(attributes_mutex);
  const auto found = shared_attributes().find(function);
  return found == shared_attributes().end() ? kSharedWithoutOptIn
                                            : std::max(kSharedWithoutOptIn, size_t(found->second));
}

unsigned lane_number() { return thread_number() % kWarp; }

struct ShuffleSlot {
  uint64_t bits;
  unsigned source;
  uint64_t result;
};

void combine_shuffle(uint32_t mask, void* const (&slots)[kWarp], Site site) {
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    auto& slot = *static_cast<ShuffleSlot*>(slots[__builtin_ctz(lanes)]);
    if (((mask >> slot.source) & 1u) == 0) fail("a shuffle reads from a lane that is not in its mask", {site});
    slot.result = static_cast<const ShuffleSlot*>(slots[slot.source])->bits;
  }
}

// Lanes outside of the segment: the lane's own value.
unsigned source_lane(Shuffle kind, unsigned operand, unsigned width) {
  const unsigned lane = lane_number();
  const unsigned first = lane & ~(width - 1);
  unsigned source = lane;
  switch (kind) {
    case Shuffle::index:
      return first + (operand & (width - 1));
    case Shuffle::up:
      return lane - first < operand ? lane : lane - operand;
    case Shuffle::down:
      source = lane + (operand & 31);
      break;
    case Shuffle::exclusive_or:
      source = lane ^ (operand & 31);
      break;
  }
  return source < first + width ? source : lane;
}

void combine_nothing(uint32_t mask, void* const (&)[kWarp], Site) {
  if (observer && mask == 0xffffffffu) observer->warp_barrier(thread_number() / kWarp);
}

struct VoteSlot {
  bool predicate;
  uint32_t result;
};

void combine_vote(uint32_t mask, void* const (&slots)[kWarp], Site) {
  uint32_t votes = 0;
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    votes |= uint32_t(static_cast<const VoteSlot*>(slots[lane])->predicate) << lane;
  }
  for (uint32_t lanes = mask; lanes != 0; lanes &= lanes - 1)
    static_cast<VoteSlot*>(slots[__builtin_ctz(lanes)])->result = votes;
}

uint32_t vote(const char* operation, uint32_t mask, bool predicate, Site site) {
  VoteSlot slot{predicate, 0};
  warp_collective(operation, mask, &slot, combine_vote, site);
  return slot.result;
}

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t bits, unsigned operand, int width, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) fail("a shuffle's width is no power of two", {site});
  ShuffleSlot slot{bits, source_lane(kind, operand, unsigned(width)), 0};
  warp_collective("a shuffle", mask, &slot, combine_shuffle, site);
  return slot.result;
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || size_t(value) > kSharedLimit)
    return record(cudaErrorInvalidValue, "invalid argument: " + std::to_string(value) +
                                             " bytes of shared memory are above the limit of a block");
  const std::lock_guard<std::mutex> lock(attributes_mutex);
  shared_attributes()[kernel] = value;
  return cudaSuccess;
}

cudaError_t launch_kernel(const cudaLaunchConfig_t& config, const void* function, const Kernel& kernel) {
  if (!valid_grid(config.gridDim) || !valid_block(config.blockDim))
    return record(cudaErrorInvalidConfiguration,
                  "invalid configuration: grid " + text(config.gridDim) + ", block " + text(config.blockDim));
  if (config.dynamicSmemBytes > allowed_shared_bytes(function))
    return record(cudaErrorInvalidValue, "invalid argument: " + std::to_string(config.dynamicSmemBytes) +
                                             " bytes of shared memory without cudaFuncSetAttribute");
  if (config.numAttrs != 0) return record(cudaErrorInvalidValue, "launch attributes are not emulated");
  if (captured && config.stream == captured_stream) {
    captured->add(config, kernel);
    return cudaSuccess;
  }
  const std::string failure = launch(config.gridDim, config.blockDim, config.dynamicSmemBytes, kernel);
  return failure.empty() ? cudaSuccess : record(cudaErrorLaunchFailure, failure);
}

}  // namespace simt

void __syncwarp(unsigned mask, simt::Site site) {
  simt::warp_collective("__syncwarp", mask, nullptr, simt::combine_nothing, site);
}

unsigned __ballot_sync(unsigned mask, int predicate, simt::Site site) {
  return simt::vote("__ballot_sync", mask, predicate != 0, site);
}

int __any_sync(unsigned mask, int predicate, simt::Site site) {
  return simt::vote("__any_sync", mask, predicate != 0, site) != 0;
}

int __all_sync(unsigned mask, int predicate, simt::Site site) {
  return simt::vote("__all_sync", mask, predicate != 0, site) == mask;
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return simt::last_report.empty() ? "error" : simt::last_report.c_str();
}

cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return simt::last_error; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = simt::multiprocessors();
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(simt::kSharedLimit);
      return cudaSuccess;
  }
  return simt::record(cudaErrorInvalidValue, "invalid argument: a device attribute that is not emulated");
}

// The exact size, so that AddressSanitizer sees the first byte beyond.
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (posix_memalign(pointer, 256, bytes) != 0) return simt::record(cudaErrorMemoryAllocation, "out of memory");
  std::memset(*pointer, 0xff, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes != 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  if (bytes != 0) std::memset(pointer, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(pointer, value, bytes);
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || simt::captured)
    return simt::record(cudaErrorInvalidValue, "invalid argument: the default stream, or a capture within a capture");
  simt::captured = new simt::Graph;
  simt::captured_stream = stream;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(simt::captured, nullptr));
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = reinterpret_cast<cudaGraphExec_t>(new simt::Graph(*reinterpret_cast<simt::Graph*>(graph)));
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const simt::Graph::Node& node : reinterpret_cast<const simt::Graph*>(exec)->nodes) {
    const cudaLaunchConfig_t& config = node.config;
    const std::string failure = simt::launch(config.gridDim, config.blockDim, config.dynamicSmemBytes,
                                             {node.run, node.parameters.data(), node.bytes});
    if (!failure.empty()) return simt::record(cudaErrorLaunchFailure, failure);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<simt::Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
