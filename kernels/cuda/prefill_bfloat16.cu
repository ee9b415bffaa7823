#include "prefill_launch.h"

int awqbench::prefill_bfloat16(const PrefillRequest& r, const Device& device) {
    return with_prefill_shape(r, [&](auto shape) { return launch_prefill<kBfloat16, decltype(shape)>(r, device); });
}
