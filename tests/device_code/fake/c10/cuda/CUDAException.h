// The part of CUDA's runtime that the launchers use, on fibers.
#pragma once

#include <c10/util/Exception.h>

#include <unordered_map>

#include "gpu.h"

#define C10_CUDA_CHECK(CALL) CALL
#define C10_CUDA_KERNEL_LAUNCH_CHECK()

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMultiProcessorCount
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  int stream = 0;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

struct cudaFuncAttributes {
  size_t sharedSizeBytes = 0;
  int ptxVersion = 90;
};

// An H100's answers.
inline void cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 * 1024;
      return;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return;
    case cudaDevAttrMultiProcessorCount:
      *value = 132;
  }
}
template <typename Kernel>
void cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {}

// A kernel may use 48 KiB of shared memory, more only once it has asked for it.
template <typename Kernel>
std::unordered_map<Kernel*, size_t>& allowed() {
  static std::unordered_map<Kernel*, size_t> bytes;
  return bytes;
}
template <typename Kernel>
void cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  allowed<Kernel>()[kernel] = static_cast<size_t>(bytes);
}

template <typename Program>
void cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(const Program),
                        const Program& program) {
  const auto asked = allowed<void(const Program)>().find(kernel);
  const size_t limit = asked == allowed<void(const Program)>().end() ? 48 * 1024 : asked->second;
  TORCH_CHECK(config->dynamicSmemBytes <= limit, "a launch asks for ", config->dynamicSmemBytes,
              " bytes of shared memory, ", limit, " are allowed");
  const int64_t ranks = config->numAttrs ? config->attrs->val.clusterDim.x : 1;
  gpu::run({config->gridDim, config->blockDim, config->dynamicSmemBytes, ranks},
           [&] { kernel(program); });
}
