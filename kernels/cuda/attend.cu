// The C interface of the attention of one decoding step: how many slices, then the launch.
#include "attend_kernel.h"
#include "gemm_device.h"
#include "gemm_split.h"
#include "w4a16.h"

namespace awqbench {
namespace {

constexpr int kMostSize = 256, kMostBatch = 64;

struct AttendPlan {
    int passes = 0, heads = 0, slices = 0, warps = 0, shared_bytes = 0;
    int64_t blocks = 0, workspace_bytes = 0;
};

template <int STEPS>
AttendPlan plan_with(int64_t batch, int64_t key_heads, int64_t group, int size, int64_t capacity, const Device& device) {
    using Shape = AttendShape<kHalf, STEPS>;
    constexpr int kReserved = 1024;  // of every block, by the system
    AttendPlan plan;
    plan.passes = static_cast<int>(ceil_div(group, kMostHeads));
    plan.heads = static_cast<int>(ceil_div(group, plan.passes));
    const int ring = Shape::kDepth * attend_tile_bytes(size), others = attend_rings_at(size);
    plan.warps = (device.shared_per_block - others) / ring;
    if (plan.warps > kAttendWarps) plan.warps = kAttendWarps;
    plan.shared_bytes = others + plan.warps * ring;
    int resident = plan.warps < 1 ? 1 : device.shared_per_sm / (plan.shared_bytes + kReserved);
    if (resident > Shape::kBlocksPerSm) resident = Shape::kBlocksPerSm;

    // All blocks at a time where they fit, a slice per processor: more would be more to merge. Else four rounds of them, so
    // that the last one doesn't leave most processors idle.
    const int64_t pairs = batch * key_heads * plan.passes, room = int64_t{device.processors} * resident;
    int64_t slices = pairs <= room ? device.processors / pairs : ceil_div(4 * room, pairs);
    const int64_t most = ceil_div(ceil_div(capacity, kTilePlaces), kLeastTiles);
    if (slices > most) slices = most;
    if (slices > kMostSlices) slices = kMostSlices;
    plan.slices = static_cast<int>(slices < 1 ? 1 : slices);
    plan.blocks = pairs * plan.slices;
    plan.workspace_bytes = kCounterBytes + plan.blocks * plan.heads * head_units(size) * 16;
    return plan;
}

template <class F>
auto with_size(int64_t size, const F& f) {
    if (size <= 64) return f(std::integral_constant<int, 4>{});
    if (size <= 128) return f(std::integral_constant<int, 8>{});
    return f(std::integral_constant<int, 16>{});
}

// Counters for every block of a first slice, and 32 bits for places and blocks.
bool attendable(int64_t batch, int64_t heads, int64_t key_heads, int64_t size, int64_t capacity) {
    constexpr int64_t kMost = int64_t{1} << 30;
    return batch >= 1 && batch <= kMostBatch && key_heads >= 1 && heads >= key_heads && heads % key_heads == 0 &&
           size >= 8 && size <= kMostSize && size % 8 == 0 && capacity >= 1 && capacity <= kMost && heads <= kMost / size &&
           batch * key_heads * ceil_div(heads / key_heads, kMostHeads) <= kMaxBlocks;
}

AttendPlan attend_plan(int64_t batch, int64_t heads, int64_t key_heads, int64_t size, int64_t capacity, const Device& device) {
    return with_size(size, [&](auto steps) {
        return plan_with<decltype(steps)::value>(batch, key_heads, heads / key_heads, static_cast<int>(size), capacity, device);
    });
}

}  // namespace
}  // namespace awqbench

using namespace awqbench;

extern "C" {

int awqbench_cuda_attend(const void* qkv, const float* cosines, const float* sines, void* keys, void* values,
                         const int64_t* length, const int64_t* padding, const float* query_norm, const float* key_norm,
                         void* y, void* workspace, int64_t workspace_bytes, int64_t batch, int64_t heads,
                         int64_t key_heads, int64_t size, int64_t capacity, int64_t rotary, int64_t window, double eps,
                         double scale, double cap, int dtype, int overlap, void* stream) {
    const auto bits = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
    if (!attendable(batch, heads, key_heads, size, capacity) || rotary < 0 || rotary > size || rotary % 2 != 0 || window < 0 ||
        (dtype != kHalf && dtype != kBfloat16) || (bits(qkv) | bits(keys) | bits(values) | bits(y) | bits(workspace)) % 16 != 0)
        return kInvalidValue;
    Device device;
    if (const int error = current_device(&device)) return error;
    const AttendPlan plan = attend_plan(batch, heads, key_heads, size, capacity, device);
    if (plan.warps < 1 || workspace_bytes < plan.workspace_bytes) return kInvalidValue;
    Attend p{};
    p.qkv = static_cast<const uint16_t*>(qkv);
    p.cosines = cosines;
    p.sines = sines;
    p.keys = static_cast<uint16_t*>(keys);
    p.values = static_cast<uint16_t*>(values);
    p.length = length;
    p.padding = padding;
    p.query_norm = query_norm;
    p.key_norm = key_norm;
    p.y = static_cast<uint16_t*>(y);
    p.counters = static_cast<uint32_t*>(workspace);
    p.partials = static_cast<uint8_t*>(workspace) + kCounterBytes;
    p.eps = static_cast<float>(eps);
    p.scale = static_cast<float>(scale);
    p.cap = cap > 0 ? static_cast<float>(cap) : 0.f;
    p.key_heads = static_cast<int>(key_heads);
    p.group = static_cast<int>(heads / key_heads);
    p.size = static_cast<int>(size);
    p.capacity = static_cast<int>(capacity);
    p.rotary = static_cast<int>(rotary);
    p.window = static_cast<int>(window < capacity ? window : capacity);
    p.passes = plan.passes;
    p.heads = plan.heads;
    p.slices = plan.slices;
    p.warps = plan.warps;
    return with_size(size, [&](auto steps) {
        constexpr int kSteps = decltype(steps)::value;
        return start(dtype == kHalf ? attend_kernel<kHalf, kSteps> : attend_kernel<kBfloat16, kSteps>, p,
                     static_cast<int>(plan.blocks), plan.warps * kLanes, plan.shared_bytes, overlap != 0 && device.bulk, stream);
    });
}

int64_t awqbench_cuda_attend_workspace(int64_t batch, int64_t heads, int64_t key_heads, int64_t size, int64_t capacity,
                                       int device_index) {
    Device device;
    if (!attendable(batch, heads, key_heads, size, capacity) || device_of(device_index, &device)) return 0;
    return attend_plan(batch, heads, key_heads, size, capacity, device).workspace_bytes;
}

}  // extern "C"
