// The C interface of the product: which kernel, then the launch. awqbench_cuda_error and _version: entry.cu.
#include "w4a16.h"

#include "gemm_launch.h"
#include "variant_names.h"

namespace awqbench {
namespace {

struct Variant {
    const char* name;
    Kind kind;
    bool whole_panels, overlap;
};

// Index 0 chooses one of the others.
constexpr Variant kVariants[] = {
    {"default", Kind::kStream, false, false},
    {"stream", Kind::kStream, false, false},
    {"stream-whole", Kind::kStream, true, false},
    {"stream-overlap", Kind::kStream, false, true},
    {"tall", Kind::kTall, false, false},
    {"tall-overlap", Kind::kTall, false, true},
    {"rows", Kind::kRows, true, false},
    {"rows-overlap", Kind::kRows, true, true},
    {"bulk", Kind::kBulk, false, false},
    {"bulk-overlap", Kind::kBulk, false, true},
    {"group", Kind::kGroup, false, false},
    {"group-overlap", Kind::kGroup, false, true},
    {"tall-group", Kind::kTallGroup, false, false},
    {"tall-group-overlap", Kind::kTallGroup, false, true},
};
constexpr int kVariantCount = sizeof kVariants / sizeof kVariants[0];

Request request_of(int64_t M, int64_t N, int64_t K, int64_t group, const Variant& v, const Device& device,
                   int before = kPlain) {
    Request r{};
    r.before = before;
    r.M = M;
    r.N = N;
    r.K = K;
    r.group = group;
    r.kind = v.kind;
    // Kernels that cannot compute it.
    if (before != kPlain && (r.kind == Kind::kTall || r.kind == Kind::kRows)) r.kind = Kind::kStream;
    if (before != kPlain && r.kind == Kind::kTallGroup) r.kind = Kind::kGroup;
    if (r.kind == Kind::kBulk && !device.bulk) r.kind = Kind::kStream;
    if (r.kind == Kind::kGroup && !device.wgmma) r.kind = Kind::kStream;
    if (r.kind == Kind::kTallGroup && !device.wgmma) r.kind = Kind::kTall;
    r.whole_panels = v.whole_panels;
    r.overlap = v.overlap && device.bulk;
    return r;
}

Plan plan_of(const Request& r, const Device& device) {
    return with_shape(r, [&](auto shape) { return plan_for<decltype(shape)>(r, device); });
}

// Tokens per launch: as many as a kernel of this kind takes and shared memory holds.
int64_t tokens_at_once(Request r, const Device& device) {
    if (r.kind == Kind::kRows && r.M > 8) r.M = 8;
    while (r.M > 1 && !plan_of(r, device).fits) r.M = r.M > 32 ? 32 : r.M > 16 ? 16 : r.M > 8 ? 8 : r.M / 2;
    return r.M;
}

// What the counts in kernels/NOTES.md suggest; unmeasured. Up to 16 tokens a warp's own mma costs the fewest instructions
// per weight, beyond that wgmma. Higher panels read x less often and have larger partial sums: the fewer bytes win.
Variant choose(int64_t M, int64_t N, int64_t K, int64_t group, const Device& device) {
    const bool wide = M > 16 && device.wgmma;
    const Variant low{"", wide ? Kind::kGroup : Kind::kStream, false, false};
    const Variant high{"", wide ? Kind::kTallGroup : Kind::kTall, false, false};
    if (M <= 8) return low;
    const Plan a = plan_of(request_of(M, N, K, group, low, device), device);
    const Plan b = plan_of(request_of(M, N, K, group, high, device), device);
    return b.fits && (!a.fits || b.traffic < a.traffic) ? high : low;
}

// Where a norm or a gate costs less in every block of the product than in a launch of its own: counted in
// kernels/NOTES.md, unmeasured. And never where it would make one launch of the product two.
bool takes_in(int64_t M, int64_t N, int64_t K, int64_t group, int before, const Device& device) {
    constexpr int64_t kMostNormNumbers = 8192, kFewGateTokens = 4;
    if (M > kMostTakenIn || (before == kNorm ? M * K > kMostNormNumbers : M > kFewGateTokens)) return false;
    return tokens_at_once(request_of(M, N, K, group, choose(M, N, K, group, device), device, before), device) == M;
}

bool meet(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
    const auto from = reinterpret_cast<uintptr_t>(a), other = reinterpret_cast<uintptr_t>(b);
    return b != nullptr && from < other + static_cast<uintptr_t>(b_bytes) && other < from + static_cast<uintptr_t>(a_bytes);
}

bool valid(int64_t M, int64_t N, int64_t K, int64_t group) {
    // So that k tiles fit 16 bits, and numbers of tiles 31.
    constexpr int64_t kMostK = int64_t{1} << 21, kMost = int64_t{1} << 40;
    if (M < 1 || M > 64 || N < 1 || K < 32 || K > kMostK || K % 32 != 0 || N > kMost / K) return false;
    return group == K || group == 32 ? K % group == 0 : group > 0 && group % 64 == 0 && K % group == 0;
}

}  // namespace
}  // namespace awqbench

using namespace awqbench;

extern "C" {

int awqbench_cuda_fused(const AwqbenchGemm* given) {
    AwqbenchGemm g = *given;
    const bool gate = g.before >= kSilu;
    if (!valid(g.M, g.N, g.K, g.group) || g.variant < 0 || g.variant >= kVariantCount ||
        (g.dtype != kHalf && g.dtype != kBfloat16) || g.before < kPlain || g.before >= kBeforeCount ||
        (g.before == kNorm) != (g.norm != nullptr) || reinterpret_cast<uintptr_t>(g.norm) % 16 != 0 ||
        (g.before != kPlain && (reinterpret_cast<uintptr_t>(g.x) % 16 != 0 || g.x_stride % kPiece != 0)) ||
        (g.before != kPlain && g.scratch == nullptr && g.M > kMostTakenIn))
        return kInvalidValue;
    const int64_t y_bytes = 2 * g.M * g.N, x_bytes = 2 * ((g.M - 1) * g.x_stride + (gate ? 2 : 1) * g.K);
    if (meet(g.y, y_bytes, g.x, x_bytes) || meet(g.y, y_bytes, g.residual, y_bytes)) return kInvalidValue;
    Device device;
    if (const int error = current_device(&device)) return error;
    if (g.scratch != nullptr && g.before != kPlain) {
        if (const int error = awqbench_cuda_rows(g.x, g.norm, g.scratch, g.M, g.K, g.x_stride, g.eps, g.before, g.dtype,
                                                 g.overlap, g.stream))
            return error;
        g.x = g.scratch;
        g.x_stride = g.K;
        g.before = kPlain;
    }
    Variant variant = kVariants[g.variant];
    if (g.variant == 0) {
        variant = choose(g.M, g.N, g.K, g.group, device);
        variant.overlap = g.overlap != 0;
    }
    Request r = request_of(g.M, g.N, g.K, g.group, variant, device, g.before);
    r.tiles = g.tiles;
    r.steps = g.steps;
    r.bias = g.bias;
    r.norm = g.norm;
    r.eps = g.eps;
    r.workspace = g.workspace;
    r.workspace_bytes = g.workspace_bytes;
    r.x_stride = g.x_stride;
    r.stream = g.stream;
    const int64_t most = tokens_at_once(r, device);
    for (int64_t token = 0; token < g.M; token += most) {
        r.M = g.M - token < most ? g.M - token : most;
        r.x = static_cast<const uint16_t*>(g.x) + token * g.x_stride;
        r.residual = g.residual == nullptr ? nullptr : static_cast<const uint16_t*>(g.residual) + token * g.N;
        r.y = static_cast<uint16_t*>(g.y) + token * g.N;
        if (const int error = g.dtype == kHalf ? launch_half(r, device) : launch_bfloat16(r, device)) return error;
    }
    return 0;
}

int awqbench_cuda_gemm(const void* x, const void* tiles, const void* steps, const void* bias, void* y, void* workspace,
                       int64_t workspace_bytes, int64_t M, int64_t N, int64_t K, int64_t group, int64_t x_stride,
                       int dtype, int variant, void* stream) {
    AwqbenchGemm g{};
    g.x = x;
    g.tiles = tiles;
    g.steps = steps;
    g.bias = bias;
    g.y = y;
    g.workspace = workspace;
    g.workspace_bytes = workspace_bytes;
    g.M = M;
    g.N = N;
    g.K = K;
    g.group = group;
    g.x_stride = x_stride;
    g.dtype = dtype;
    g.variant = variant;
    g.stream = stream;
    return awqbench_cuda_fused(&g);
}

int awqbench_cuda_takes_in(int64_t M, int64_t N, int64_t K, int64_t group, int before, int device_index) {
    Device device;
    return valid(M, N, K, group) && device_of(device_index, &device) == 0 && takes_in(M, N, K, group, before, device);
}

int64_t awqbench_cuda_workspace(int64_t M, int64_t N, int64_t K, int64_t group, int device_index) {
    Device device;
    if (!valid(M, N, K, group) || device_of(device_index, &device)) return 0;
    int64_t bytes = 0;
    const auto include = [&](const Variant& variant, int before) {
        Request r = request_of(M, N, K, group, variant, device, before);
        r.M = tokens_at_once(r, device);
        const int64_t needed = plan_of(r, device).workspace_bytes;
        if (needed > bytes) bytes = needed;
        r.M = M % r.M;  // a last, smaller launch may be another kernel
        if (r.M > 0 && plan_of(r, device).workspace_bytes > bytes) bytes = plan_of(r, device).workspace_bytes;
    };
    for (const Variant& variant : kVariants) {
        include(variant, kPlain);
        if (M <= kMostTakenIn) include(variant, kSilu), include(variant, kNorm);
    }
    return bytes;
}

const char* awqbench_cuda_variants() {
    static const std::string names = names_of(kVariants);
    return names.c_str();
}

}  // extern "C"
