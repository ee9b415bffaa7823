// Runs the product's kernels for many tokens on the CPU: product_check.h says how and on which cases.
#include "../cuda/prefill.cu"
#include "../cuda/prefill_bfloat16.cu"
#include "../cuda/prefill_half.cu"
#include "product_check.h"

int main() {
    return check_all([](const Case& c) {
        const int64_t bytes = awqbench_cuda_prefill_scratch(c.M, c.N, c.K, c.group, c.variant, 0);
        if (bytes < 0) simt::fail("no kernel for these sizes", c.M, c.N);
        return Kernel{bytes, 0, true,
                      [c, bytes](const void* x, const void* tiles, const void* steps, const void* bias, void* y, void* scratch, int64_t stride) {
                          return awqbench_cuda_prefill(x, tiles, steps, bias, y, scratch, bytes, c.M, c.N, c.K, c.group, stride,
                                                       c.dtype, c.variant, nullptr);
                      }};
    });
}
