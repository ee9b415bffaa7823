#include "gemm_launch.h"

int awqbench::launch_half(const Request& r, const Device& device) {
    return with_shape(r, [&](auto shape) { return launch<kHalf, decltype(shape)>(r, device); });
}
