// What the launch code asks of the CUDA runtime. Without a CUDA compiler, kernels/host answers.
#pragma once

#include <cstdint>

namespace awqbench {

struct Device {
    int processors = 0, shared_per_block = 0, shared_per_sm = 0;
    // The kernels that this device runs were compiled for Hopper or later: with bulk copies and early launches. Code for
    // an older chip, translated by the driver, has neither, whatever the device.
    bool bulk = false;
    bool wgmma = false;  // for Hopper itself
};

}  // namespace awqbench

#if !defined(__CUDACC__)
#include "../host/simt_launch.h"
#else
#include <cuda_runtime.h>

#include <atomic>

namespace awqbench {

constexpr int kInvalidValue = cudaErrorInvalidValue;

static __global__ void probe() {}  // compiled with the kernels and for the same chips

// Attributes never change, and asking takes longer than launching: asked once. Only complete answers are kept.
inline int device_of(int index, Device* device) {
    constexpr int kKept = 64;
    static Device kept[kKept];
    static std::atomic<int> known[kKept];
    if (index >= 0 && index < kKept && known[index].load(std::memory_order_acquire) == 2) {
        *device = kept[index];
        return cudaSuccess;
    }
    Device d;
    const struct {
        cudaDeviceAttr attribute;
        int* value;
    } questions[] = {{cudaDevAttrMultiProcessorCount, &d.processors},
                     {cudaDevAttrMaxSharedMemoryPerBlockOptin, &d.shared_per_block},
                     {cudaDevAttrMaxSharedMemoryPerMultiprocessor, &d.shared_per_sm}};
    for (const auto& q : questions)
        if (const int error = cudaDeviceGetAttribute(q.value, q.attribute, index)) return error;
    int current = 0;
    if (const int error = cudaGetDevice(&current)) return error;
    if (current != index)
        if (const int error = cudaSetDevice(index)) return error;
    cudaFuncAttributes compiled{};
    const int error = cudaFuncGetAttributes(&compiled, probe);
    if (current != index)
        if (const int back = cudaSetDevice(current)) return back;
    if (error) return error;
    d.bulk = compiled.ptxVersion >= 90;
    d.wgmma = compiled.ptxVersion == 90;  // the build's target for Hopper is sm_90a
    int unknown = 0;
    if (index >= 0 && index < kKept && known[index].compare_exchange_strong(unknown, 1)) {
        kept[index] = d;
        known[index].store(2, std::memory_order_release);
    }
    *device = d;
    return cudaSuccess;
}

inline int current_device(Device* device) {
    int index = 0;
    if (const int error = cudaGetDevice(&index)) return error;
    return device_of(index, device);
}

template <class P>
int start(void (*kernel)(P), const P& problem, int blocks, int threads, int shared_bytes, bool overlap, void* stream) {
    constexpr int kWithoutAsking = 48 * 1024;
    if (shared_bytes > kWithoutAsking)
        if (const int error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes)) return error;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = overlap ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, problem);
}

}  // namespace awqbench
#endif
