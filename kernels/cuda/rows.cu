// The C interface of the kernel that computes a norm or a gate alone.
#include "gemm_device.h"
#include "rows_kernel.h"
#include "w4a16.h"

using namespace awqbench;

extern "C" int awqbench_cuda_rows(const void* x, const float* norm, void* out, int64_t M, int64_t K, int64_t x_stride,
                                  float eps, int before, int dtype, int overlap, void* stream) {
    constexpr int64_t kMost = int64_t{1} << 30;  // of k and blocks: they are counted in 32 bits
    const auto bits = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
    if (before <= kPlain || before >= kBeforeCount || M < 0 || K < kPiece || K > kMost || K % kPiece != 0 ||
        (dtype != kHalf && dtype != kBfloat16) || (before == kNorm) != (norm != nullptr) || x_stride % kPiece != 0 ||
        (bits(x) | bits(norm) | bits(out)) % 16 != 0)
        return kInvalidValue;
    Device device;
    if (const int error = current_device(&device)) return error;
    Rows p{};
    p.x = static_cast<const uint16_t*>(x);
    p.norm = norm;
    p.out = static_cast<uint16_t*>(out);
    p.x_stride = x_stride;
    p.K = static_cast<int>(K);
    p.slices = before == kNorm ? 1 : static_cast<int>(ceil_div(K / kPiece, kRowsThreads));
    p.before = before;
    p.eps = eps;
    if (M * p.slices > kMost) return kInvalidValue;
    if (M == 0) return 0;
    return start(dtype == kHalf ? rows_kernel<kHalf> : rows_kernel<kBfloat16>, p, static_cast<int>(M * p.slices),
                 kRowsThreads, kRowsShared, overlap != 0 && device.bulk, stream);
}
