#include "prefill_launch.h"

int awqbench::prefill_half(const PrefillRequest& r, const Device& device) {
    return with_prefill_shape(r, [&](auto shape) { return launch_prefill<kHalf, decltype(shape)>(r, device); });
}
