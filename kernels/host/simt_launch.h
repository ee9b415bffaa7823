// What kernels/cuda/gemm_device.h promises, without a CUDA runtime: a chip of the caller's choice, launches on the CPU.
#pragma once

#include "simt.h"

namespace awqbench {

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue

inline Device& simulated_device() {
    static Device d{6, 227 * 1024, 228 * 1024, true, true};
    return d;
}
inline int device_of(int, Device* device) {
    *device = simulated_device();
    return 0;
}
inline int current_device(Device* device) { return device_of(0, device); }

template <class P>
int start(void (*kernel)(P), const P& problem, int blocks, int threads, int shared_bytes, bool overlap, void*) {
    if (shared_bytes > simulated_device().shared_per_block || blocks < 1) return kInvalidValue;
    simt::launch([kernel, problem] { kernel(problem); }, blocks, threads, shared_bytes, overlap);
    return 0;
}

}  // namespace awqbench
