// The C interface of the product for many tokens: which tiles, then the launch.
#include "w4a16.h"

#include "prefill_launch.h"
#include "variant_names.h"

namespace awqbench {
namespace {

struct PrefillVariant {
    const char* name;
    Tile tile;
    bool cut;
};

// Index 0 chooses one of the others.
constexpr PrefillVariant kPrefillVariants[] = {
    {"default", Tile::kTall, true},     {"tall", Tile::kTall, true}, {"tall-whole", Tile::kTall, false},
    {"narrow", Tile::kNarrow, true},    {"narrow-whole", Tile::kNarrow, false},
    {"wide", Tile::kWide, true},        {"wide-whole", Tile::kWide, false},
};
constexpr int kPrefillVariantCount = sizeof kPrefillVariants / sizeof kPrefillVariants[0];

PrefillPlan plan_of(const PrefillRequest& r, const Device& device) {
    return with_prefill_shape(r, [&](auto shape) { return plan_prefill<decltype(shape)>(r, device); });
}

// The cheapest by the counts of plan_prefill; unmeasured.
void choose(PrefillRequest& r, int variant, const Device& device) {
    const auto set = [&](const PrefillVariant& v) {
        r.tile = v.tile;
        r.cut = v.cut;
    };
    if (variant > 0) return set(kPrefillVariants[variant]);
    const PrefillVariant* best = nullptr;
    double least = 0;
    for (const PrefillVariant& v : kPrefillVariants) {
        set(v);
        const double cycles = plan_of(r, device).cycles;
        if (best != nullptr && cycles >= least) continue;
        best = &v;
        least = cycles;
    }
    set(*best);
}

bool valid_prefill(int64_t M, int64_t N, int64_t K, int64_t group, int variant) {
    // So that k tiles fit 16 bits, and numbers of tiles 31.
    constexpr int64_t kMostK = int64_t{1} << 21, kMost = int64_t{1} << 30;
    if (M < 1 || N < 1 || M > kMost || N > kMost || K > kMostK || !takes(K, group)) return false;
    if (row_tiles(M) * row_tiles(N) > kMost) return false;
    return variant >= 0 && variant < kPrefillVariantCount;
}

}  // namespace
}  // namespace awqbench

using namespace awqbench;

extern "C" {

int awqbench_cuda_prefill(const void* x, const void* tiles, const void* steps, const void* bias, void* y, void* scratch,
                          int64_t scratch_bytes, int64_t M, int64_t N, int64_t K, int64_t group, int64_t x_stride, int dtype,
                          int variant, void* stream) {
    if (!valid_prefill(M, N, K, group, variant) || (dtype != kHalf && dtype != kBfloat16)) return kInvalidValue;
    const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
    if (!aligned(x) || !aligned(tiles) || !aligned(steps) || !aligned(scratch) || x_stride % 8 != 0) return kInvalidValue;
    Device device;
    if (const int error = current_device(&device)) return error;
    if (!device.wgmma) return kInvalidValue;
    PrefillRequest r{};
    r.x = x;
    r.tiles = tiles;
    r.steps = steps;
    r.bias = bias;
    r.y = y;
    r.scratch = scratch;
    r.scratch_bytes = scratch_bytes;
    r.M = M;
    r.N = N;
    r.K = K;
    r.group = group;
    r.x_stride = x_stride;
    r.stream = stream;
    choose(r, variant, device);
    return dtype == kHalf ? prefill_half(r, device) : prefill_bfloat16(r, device);
}

int64_t awqbench_cuda_prefill_scratch(int64_t M, int64_t N, int64_t K, int64_t group, int variant, int device_index) {
    Device device;
    if (!valid_prefill(M, N, K, group, variant) || device_of(device_index, &device) || !device.wgmma) return -1;
    PrefillRequest r{};
    r.M = M;
    r.N = N;
    r.K = K;
    r.group = group;
    choose(r, variant, device);
    return plan_of(r, device).scratch_bytes;
}

const char* awqbench_cuda_prefill_variants() {
    static const std::string names = names_of(kPrefillVariants);
    return names.c_str();
}

}  // extern "C"
