// Holds a product with a norm or a gate before it and a residual after it, run on the CPU, against float64, and bit for bit
// against the plain product on f(x), which `rows` computes.
//
// `before`: as w4a16.h counts. `way`: 1 lets a kernel of its own compute it, 2 feeds the result to a second product, 3 does
// both. Whatever follows another launch begins before that one.
#pragma once

#include "product_check.h"

namespace {

double before_of(int before, double x, double up) {
    using namespace awqbench;
    const double cubic = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    const double f = before == kSilu       ? x / (1 + std::exp(-x))
                     : before == kGeluTanh ? x / (1 + std::exp(-2 * cubic))
                     : before == kGelu     ? x * std::erfc(-x / std::sqrt(2.)) / 2
                                           : std::max(x, 0.);
    return f * up;
}

// What is wrong with f(x) [M, K] in 16 bits, which is rounded once from float32.
std::string compare_before(const Case& c, const std::vector<uint16_t>& x, int64_t stride, const std::vector<float>& norm,
                           float eps, const uint16_t* made) {
    using namespace awqbench;
    const auto at = [&](int64_t i) { return static_cast<double>(host::to_float(c.dtype, x[static_cast<std::size_t>(i)])); };
    const double unit = c.dtype == kHalf ? std::exp2(-11) : std::exp2(-8), least = c.dtype == kHalf ? std::exp2(-25) : 1e-38;
    for (int64_t m = 0; m < c.M; ++m) {
        double squares = 0;
        for (int64_t k = 0; k < c.K; ++k) squares += at(m * stride + k) * at(m * stride + k);
        for (int64_t k = 0; k < c.K; ++k) {
            const double v = at(m * stride + k), up = c.before == kNorm ? 0 : at(m * stride + c.K + k);
            const double wanted = c.before == kNorm
                                      ? v * norm[static_cast<std::size_t>(k)] / std::sqrt(squares / static_cast<double>(c.K) + eps)
                                      : before_of(c.before, v, up);
            const double found = host::to_float(c.dtype, made[m * c.K + k]);
            const double room = (unit + 4e-6) * std::fabs(wanted) + (c.before == kGelu ? 2e-7 * std::fabs(v * up) : 0) + least;
            if (!(std::fabs(found - wanted) <= room))
                return "f(x) of token " + std::to_string(m) + " k " + std::to_string(k) + ": " + std::to_string(found) +
                       " is not " + std::to_string(wanted);
        }
    }
    return "";
}

std::string check_fused(const Case& c) {
    using namespace awqbench;
    std::mt19937 random(static_cast<uint32_t>(c.M * 31 + c.N * 17 + c.K * 7 + c.group + c.dtype));
    const Weights w = make_weights(c, random);
    const bool gate = c.before >= kSilu;
    const int64_t width = gate ? 2 * c.K : c.K, stride = width + c.padding;
    make_chip(c);
    const std::vector<uint16_t> x = make_inputs(c, width, stride, random), bias = make_summands(c, c.N, random);
    const std::vector<uint16_t> residual = make_summands(c, c.M * c.N, random);
    std::vector<float> norm(static_cast<std::size_t>(c.K));
    const float eps = 0.25f;  // so that one left out shows
    for (auto& n : norm) n = static_cast<float>(1 + normal(random) / 4);

    simt::forget_ranges();
    const std::size_t y_bytes = 2 * static_cast<std::size_t>(c.M * c.N);
    const Buffer x_buffer(x, false, c.padding % 2 * 2), x_aligned(x, false), bias_buffer(bias, false), residual_buffer(residual, false);
    const Buffer tiles(w.tiles, true), steps(w.steps, true), norm_buffer(norm, true);
    const Buffer y(y_bytes, true), z(y_bytes, true), scratch(2 * static_cast<std::size_t>(c.M * c.K), true);
    const int64_t workspace_bytes = awqbench_cuda_workspace(c.M, c.N, c.K, c.group, 0);
    const Buffer workspace(static_cast<std::size_t>(workspace_bytes), true);
    std::memset(workspace.data, 0, kCounterBytes);
    const auto product = [&](const void* from, int64_t x_stride, int before, bool first, int variant, void* to) {
        AwqbenchGemm g{};
        g.x = from;
        g.tiles = tiles.data;
        g.steps = steps.data;
        g.bias = c.bias ? bias_buffer.data : nullptr;
        g.residual = c.residual ? residual_buffer.data : nullptr;
        g.norm = before == kNorm ? reinterpret_cast<const float*>(norm_buffer.data) : nullptr;
        g.scratch = first ? scratch.data : nullptr;
        g.y = to;
        g.workspace = workspace.data;
        g.workspace_bytes = workspace_bytes;
        g.M = c.M;
        g.N = c.N;
        g.K = c.K;
        g.group = c.group;
        g.x_stride = x_stride;
        g.dtype = c.dtype;
        g.variant = variant;
        g.before = before;
        g.overlap = 1;
        g.eps = eps;
        return awqbench_cuda_fused(&g);
    };
    // Fewer kernels take something in than there are: the variant that is the same one without it.
    int twin = c.variant;
    const Request asked = request_of(c.M, c.N, c.K, c.group, kVariants[c.variant], simulated_device(), c.before);
    for (int v = 1; c.before != kPlain && c.variant != 0 && !(c.way & 1) && v < kVariantCount; ++v)
        if (kVariants[v].kind == asked.kind && kVariants[v].whole_panels == asked.whole_panels) twin = v;
    // f(x), and the plain product on it: what a fused one must give.
    const auto plain = [&](const void* from, int64_t x_stride, void* to) {
        if (c.before != kPlain) {
            const float* const weight = c.before == kNorm ? reinterpret_cast<const float*>(norm_buffer.data) : nullptr;
            if (const int error = awqbench_cuda_rows(from, weight, scratch.data, c.M, c.K, x_stride, eps, c.before, c.dtype, 1, nullptr))
                return error;
            from = scratch.data;
            x_stride = c.K;
        }
        return product(from, x_stride, kPlain, false, twin, to);
    };
    std::vector<uint16_t> inputs(x);  // of the product as such
    int64_t inputs_stride = stride;
    // Rows that the kernel for f takes: multiples of 8 numbers apart.
    std::vector<uint16_t> dense;
    for (int64_t m = 0; m < c.M; ++m) dense.insert(dense.end(), x.begin() + m * stride, x.begin() + m * stride + width);
    const Buffer rows(dense, false);
    if (const int error = plain(rows.data, width, y.data)) return "error " + std::to_string(error);
    const std::vector<char> before(y.data, y.data + y_bytes);
    std::vector<char> after;
    if (c.before != kPlain) {
        inputs.assign(reinterpret_cast<uint16_t*>(scratch.data), reinterpret_cast<uint16_t*>(scratch.data) + c.M * c.K);
        inputs_stride = c.K;
        const std::string wrong = compare_before(c, dense, width, norm, eps, inputs.data());
        if (!wrong.empty()) return wrong;
    }
    if (c.way & 2) {
        if (const int error = plain(y.data, c.N, z.data)) return "error " + std::to_string(error);
        after.assign(z.data, z.data + y_bytes);
    }
    simt::forget_range(rows.data);

    for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
        simt::machine().order = order;
        simt::machine().early = 2;
        for (const Buffer* const to : {&y, &z, &scratch}) std::memset(to->data, 0xff, to->memory.size() - 512);
        std::memset(workspace.data + kCounterBytes, 0xff, static_cast<std::size_t>(workspace_bytes - kCounterBytes));
        int error = product(c.way & 1 ? x_aligned.data : x_buffer.data, stride, c.before, c.way & 1, c.variant, y.data);
        if (!error && c.way & 2) error = product(y.data, c.N, c.before, c.way & 1, c.variant, z.data);
        simt::finish();
        simt::machine().early = 0;
        if (error) return "error " + std::to_string(error);
        for (int64_t i = 0; i < kCounterBytes; ++i)
            if (workspace.data[i] != 0) return "a counter was left at work";
        if (std::memcmp(before.data(), y.data, y_bytes) != 0) return "not the bits of the plain product";
        if (!after.empty() && std::memcmp(after.data(), z.data, y_bytes) != 0)
            return "a second product has other bits where it begins early";
    }

    const auto added = [&](int64_t m, int64_t n) {
        return (c.bias ? host::to_float(c.dtype, bias[static_cast<std::size_t>(n)]) : 0.) +
               (c.residual ? host::to_float(c.dtype, residual[static_cast<std::size_t>(m * c.N + n)]) : 0.);
    };
    const bool exact = c.values != "random" && (c.before == kPlain || c.before == kRelu);
    return compare(c, exact, inputs.data(), inputs_stride, w.dense, added, y.data);
}

}  // namespace
