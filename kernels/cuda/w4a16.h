// The C interface of the CUDA kernels: y [M, N] = f(x) W^T + bias + residual with W = (q - z) * s in the layout of
// layout.h.
//
// x, y, bias and residual have one type (`dtype`: 0 half, 1 bfloat16); sums are float32 in a fixed order, without float atomics:
// the same inputs give the same bits. `group` is 32, a multiple of 64, or K (one group per row, K a multiple of 32).
// N is free, K a multiple of the group. `stream` is a cudaStream_t. Functions that return int return a cudaError_t.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define AWQBENCH_API __attribute__((visibility("default")))
#else
#define AWQBENCH_API
#endif

constexpr int kAwqbenchCudaVersion = 2;  // of this interface and of the layout: the binding refuses another

extern "C" {

// f of x [M, K], computed in float32 and rounded once. 0: x itself. 1: RMS norm, x * norm / sqrt(mean(x^2) + eps). Else
// x is [M, 2 K], and f(x) = g(x[:, :K]) * x[:, K:] with g: 2 silu, 3 gelu by tanh, 4 gelu by erf, 5 relu.
struct AwqbenchGemm {
    const void *x, *tiles, *steps;
    const void *bias, *residual;  // [N] and [M, N], or null
    const float* norm;            // [K] for RMS norm, else null
    void* scratch;  // null, or [M, K]: a kernel of its own writes f(x) there first (awqbench_cuda_takes_in says when)
    void *y, *workspace;  // y overlaps neither x nor the residual
    void* stream;
    int64_t workspace_bytes, M, N, K, group, x_stride;
    int dtype, variant, before;
    int overlap;  // variant 0 may start before the kernel in front of it has finished; of others their name tells
    float eps;
};

// As awqbench_cuda_gemm; with a norm or a gate x lies as awqbench_cuda_rows wants it. With an early start weights, steps and norm are read while the kernel in front of this one may
// still run: that one must not be what writes them.
AWQBENCH_API int awqbench_cuda_fused(const AwqbenchGemm* gemm);

// Whether f is better computed by the product as it reads x (1) than by a kernel of its own before it (0).
AWQBENCH_API int awqbench_cuda_takes_in(int64_t M, int64_t N, int64_t K, int64_t group, int before, int device);

// f(x) alone: out [M, K]. x and out at multiples of 16 bytes, x_stride of 8 elements.
AWQBENCH_API int awqbench_cuda_rows(const void* x, const float* norm, void* out, int64_t M, int64_t K, int64_t x_stride,
                                    float eps, int before, int dtype, int overlap, void* stream);

// 1 <= M <= 64. `bias` [N] may be null. `x_stride`: elements between rows of x. `workspace`: zeroed once before its
// first use and left so that it can be used again; one per stream. `variant`: 0 chooses by shape.
AWQBENCH_API int awqbench_cuda_gemm(const void* x, const void* tiles, const void* steps, const void* bias, void* y,
                                    void* workspace, int64_t workspace_bytes, int64_t M, int64_t N, int64_t K,
                                    int64_t group, int64_t x_stride, int dtype, int variant, void* stream);

// M of any size, best from 65 on, and only where awqbench_cuda_prefill_scratch is not negative. Each weight is rounded once
// to x's type, so that y is a dense product's of the dequantized matrix. x, tiles, steps and scratch are aligned to 16
// bytes, x_stride a multiple of 8. `scratch`: for partial sums, in any state.
AWQBENCH_API int awqbench_cuda_prefill(const void* x, const void* tiles, const void* steps, const void* bias, void* y,
                                       void* scratch, int64_t scratch_bytes, int64_t M, int64_t N, int64_t K,
                                       int64_t group, int64_t x_stride, int dtype, int variant, void* stream);

// Bytes that awqbench_cuda_prefill needs, or -1 where it can't run: the sizes, or a device without wgmma.
AWQBENCH_API int64_t awqbench_cuda_prefill_scratch(int64_t M, int64_t N, int64_t K, int64_t group, int variant, int device);

AWQBENCH_API const char* awqbench_cuda_prefill_variants();  // as awqbench_cuda_variants, numbers of their own

// w [N, K] row-major, each weight rounded once.
AWQBENCH_API int awqbench_cuda_dequantize(const void* tiles, const void* steps, void* w, int64_t N, int64_t K,
                                          int64_t group, int dtype, void* stream);

// Bytes that awqbench_cuda_gemm needs for partial sums and counters, whatever the variant.
AWQBENCH_API int64_t awqbench_cuda_workspace(int64_t M, int64_t N, int64_t K, int64_t group, int device);

// The attention of one decoding step: one token for each of `batch` (1 to 64) sequences, whose query, key and value heads
// are qkv [batch, (heads + 2 key_heads) * size]. `size`: a multiple of 8 up to 256; heads a multiple of key_heads, which
// times batch may be 4096 (more than 16 query heads per key head: so many sixteens times less). keys and values [batch,
// key_heads, capacity, size]: the new token is stored at place `length` (int64 on the device, below capacity; else nothing
// is done). cosines and sines float32 [capacity or more, rotary]; `padding` int64 [batch] or null; head norms float32
// [size] or null; cap 0 and window 0: none. y [batch, heads * size]. Buffers of 16-bit numbers start at multiples of 16
// bytes. `workspace` as awqbench_cuda_gemm's, and shared with it. `overlap`: may start before the kernel in front of it
// has finished.
AWQBENCH_API int awqbench_cuda_attend(const void* qkv, const float* cosines, const float* sines, void* keys, void* values,
                                      const int64_t* length, const int64_t* padding, const float* query_norm,
                                      const float* key_norm, void* y, void* workspace, int64_t workspace_bytes,
                                      int64_t batch, int64_t heads, int64_t key_heads, int64_t size, int64_t capacity,
                                      int64_t rotary, int64_t window, double eps, double scale, double cap, int dtype,
                                      int overlap, void* stream);
AWQBENCH_API int64_t awqbench_cuda_attend_workspace(int64_t batch, int64_t heads, int64_t key_heads, int64_t size,
                                                    int64_t capacity, int device);

AWQBENCH_API const char* awqbench_cuda_variants();  // names separated by commas; a name's index is its `variant`
AWQBENCH_API const char* awqbench_cuda_error(int code);
AWQBENCH_API int awqbench_cuda_version();

}  // extern "C"
