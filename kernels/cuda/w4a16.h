// The C interface of the CUDA kernels: y [M, N] = x [M, K] W^T + bias with W = (q - z) * s in the layout of layout.h.
//
// x, y and bias have one type (`dtype`: 0 half, 1 bfloat16); sums are float32 in a fixed order, without float atomics:
// the same inputs give the same bits. `group` is 32, a multiple of 64, or K (one group per row, K a multiple of 32).
// N is free, K a multiple of the group. `stream` is a cudaStream_t. Functions that return int return a cudaError_t.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define AWQBENCH_API __attribute__((visibility("default")))
#else
#define AWQBENCH_API
#endif

constexpr int kAwqbenchCudaVersion = 1;  // of this interface and of the layout: the binding refuses another

extern "C" {

// 1 <= M <= 64. `bias` [N] may be null. `x_stride`: elements between rows of x. `workspace`: zeroed once before its
// first use and left so that it can be used again; one per stream. `variant`: 0 chooses by shape.
AWQBENCH_API int awqbench_cuda_gemm(const void* x, const void* tiles, const void* steps, const void* bias, void* y,
                                    void* workspace, int64_t workspace_bytes, int64_t M, int64_t N, int64_t K,
                                    int64_t group, int64_t x_stride, int dtype, int variant, void* stream);

// w [N, K] row-major, each weight rounded once.
AWQBENCH_API int awqbench_cuda_dequantize(const void* tiles, const void* steps, void* w, int64_t N, int64_t K,
                                          int64_t group, int dtype, void* stream);

// Bytes that awqbench_cuda_gemm needs for partial sums and counters, whatever the variant.
AWQBENCH_API int64_t awqbench_cuda_workspace(int64_t M, int64_t N, int64_t K, int64_t group, int device);

AWQBENCH_API const char* awqbench_cuda_variants();  // names separated by commas; a name's index is its `variant`
AWQBENCH_API const char* awqbench_cuda_error(int code);
AWQBENCH_API int awqbench_cuda_version();

}  // extern "C"
