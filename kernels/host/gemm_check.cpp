// Runs the product's kernels for up to 64 tokens on the CPU: product_check.h and fused_check.h say how and on which cases.
#include "../cuda/gemm.cu"
#include "../cuda/gemm_bfloat16.cu"
#include "../cuda/gemm_half.cu"
#include "../cuda/rows.cu"
#include "fused_check.h"

int main() {
    return check_all([](const Case& c) {
        const int64_t bytes = awqbench_cuda_workspace(c.M, c.N, c.K, c.group, 0);
        return Kernel{bytes, awqbench::kCounterBytes, false,
                      [c, bytes](const void* x, const void* tiles, const void* steps, const void* bias, void* y, void* scratch, int64_t stride) {
                          return awqbench_cuda_gemm(x, tiles, steps, bias, y, scratch, bytes, c.M, c.N, c.K, c.group, stride,
                                                    c.dtype, c.variant, nullptr);
                      }};
    }, check_fused);
}
