// The C interface of w4a16.h with the simulator underneath: a shared library that the Python binding loads as if there
// were a GPU. The caller's memory is not watched here, as it comes from torch: the other programs do that.
#include "../cuda/attend.cu"
#include "../cuda/dequantize.cu"
#include "../cuda/gemm.cu"
#include "../cuda/gemm_bfloat16.cu"
#include "../cuda/gemm_half.cu"
#include "../cuda/prefill.cu"
#include "../cuda/prefill_bfloat16.cu"
#include "../cuda/prefill_half.cu"
#include "../cuda/rows.cu"

namespace {

const bool everything_is_allowed = [] {
    simt::allow(nullptr, std::size_t{1} << 62, true);
    return true;
}();

}  // namespace

extern "C" {

int awqbench_cuda_version() { return kAwqbenchCudaVersion; }
const char* awqbench_cuda_error(int code) { return code == kInvalidValue ? "invalid argument" : "unknown error"; }

}  // extern "C"
