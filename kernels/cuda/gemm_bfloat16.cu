#include "gemm_launch.h"

int awqbench::launch_bfloat16(const Request& r, const Device& device) {
    return with_shape(r, [&](auto shape) { return launch<kBfloat16, decltype(shape)>(r, device); });
}
