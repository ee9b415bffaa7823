// The product's kernels as a library that runs them on the CPU, behind their own C interface.
#include <cmath>
#include <iostream>

#include "cuda/gemm.cu"
#include "cuda/gemm_bfloat16.cu"
#include "cuda/gemm_half.cu"

#define VISIBLE __attribute__((visibility("default")))

extern "C" {

// The memory that kernels may read, or write as well; forgetting it is the start of a new launch.
VISIBLE void simulated_allow(void* begin, int64_t bytes, int writable) {
    simt::allow(static_cast<char*>(begin), static_cast<std::size_t>(bytes), writable != 0);
}
VISIBLE void simulated_forget() {
    simt::forget_ranges();
    awqbench::simulated_device() = {4, 227 * 1024, 228 * 1024, true};
}
VISIBLE const char* awqbench_cuda_error(int) { return "the launch failed"; }

}  // extern "C"
