// What the library says about itself. Kernels and their launchers: dequantize.cu and gemm*.cu.
#include <cuda_runtime.h>

#include "w4a16.h"

extern "C" {

int awqbench_cuda_version() { return kAwqbenchCudaVersion; }

const char* awqbench_cuda_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // extern "C"
